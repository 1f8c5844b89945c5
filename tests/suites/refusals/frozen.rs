//! A process that its cgroup has frozen: named at once, by `ckpt check` as by `ckpt save`, and saved when it is thawed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, left_out, wait};

use super::foretold;

/// A cgroup of one of the two kinds, with what freezes and thaws it; gone with the value.
struct Cgroup {
    mount: PathBuf,
    dir: PathBuf,
    file: &'static str,
    words: [&'static str; 2],
    told: (&'static str, &'static str),
}

impl Cgroup {
    /// None: this kernel, or this container, has no such.
    fn new(place: &Place, first: bool) -> Result<Option<Self>> {
        let mount = place.file(if first { "first" } else { "second" });
        fs::create_dir(&mount)?;
        let (options, file, words, told) = if first {
            let told = ("freezer.state", "FROZEN");
            (&["-t", "cgroup", "-o", "freezer"][..], "freezer.state", ["FROZEN", "THAWED"], told)
        } else {
            (&["-t", "cgroup2"][..], "cgroup.freeze", ["1", "0"], ("cgroup.events", "frozen 1"))
        };
        if !Command::new("mount").args(options).arg("ckpt-test").arg(&mount).output()?.status.success() {
            return Ok(None);
        }
        let dir = mount.join(format!("ckpt-test-{}", std::process::id()));
        let cgroup = Self { mount, dir, file, words, told };
        Ok(fs::create_dir_all(cgroup.dir.join("inner")).is_ok().then_some(cgroup))
    }

    fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.dir.join("inner/cgroup.procs"), pid.to_string())?)
    }

    /// The cgroup above that of the process.
    fn set(&self, frozen: bool) -> Result<()> {
        let [freeze, thaw] = self.words;
        fs::write(self.dir.join(self.file), if frozen { freeze } else { thaw })?;
        let (file, word) = self.told;
        let is_frozen =
            |dir: &Path| -> Result<bool> { Ok(fs::read_to_string(dir.join(file))?.lines().any(|line| line == word)) };
        wait::until(
            || Ok((is_frozen(&self.dir.join("inner"))? == frozen).then_some(())),
            || format!("{file}: not as it was asked for"),
        )
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left fails the test's own cleaning up.
        let [_, thaw] = self.words;
        drop(fs::write(self.dir.join(self.file), thaw));
        drop(fs::remove_dir(self.dir.join("inner")));
        drop(fs::remove_dir(&self.dir));
        drop(Command::new("umount").arg(&self.mount).output());
    }
}

#[test]
fn by_its_cgroup() -> Result<()> {
    const SCRIPT: &str = "import os, time\nif os.fork() == 0:\n    while not os.path.exists('go'): time.sleep(0.001)\n    os._exit(0)\n\
        print('ready', flush=True)\nos.wait()\nprint('PASS')\n";
    left_out::unless_root("only root can freeze a cgroup of this system")?;
    User::each(|user| {
        for first in [false, true] {
            let place = Place::new(user)?;
            let Some(cgroup) = Cgroup::new(&place, first)? else {
                left_out::in_part(Needs::Machine, format!("no cgroups of version {}", if first { 1 } else { 2 }));
                continue;
            };
            let mut job = Job::start(place.command(tool("python3", "python3")?).args(["-c", SCRIPT]))?;
            job.wait_line(READY)?;
            let child = ckpt_tests::proc::children(job.pid())[0];
            for pid in [child, job.pid()] {
                cgroup.take(pid)?;
                cgroup.set(true)?;
                let refused = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
                refused.expect_code(88)?;
                let is_named =
                    refused.err.contains("is frozen by its cgroup") && refused.err.contains(&pid.to_string());
                ensure!(is_named, "{refused:#?}");
                foretold::by_check(&place, &job)?;
                cgroup.set(false)?;
            }
            foretold::by_check(&place, &job)?;
            place.go()?;
            job.end()?.expect_pass()?;
        }
        Ok(())
    })
}
