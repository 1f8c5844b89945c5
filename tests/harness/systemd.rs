//! A systemd of a test's own, as PID 1 of its own PID, mount, cgroup, UTS and IPC namespaces: no unit and no mount of the system's is touched.
//!
//! Takes root. Must never leave a process behind: its namespace ends with the value.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::left_out::{self, Needs};
use crate::programs::tool;
use crate::{Job, Place, User, proc, wait};

/// What it does before it becomes systemd. `$1`: the directory of the job; `$2`: that of `ckpt`; `$3`: that of the units; `$4`: systemd.
const BOOT: &str = "set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /srv
mkdir /srv/job
mount --bind \"$1\" /srv/job
mount --bind \"$2\" /usr/local/bin
export container=test SYSTEMD_UNIT_PATH=\"$3\"
exec \"$4\" --system --unit=multi-user.target --log-target=console --log-level=notice";

/// Where Debian has it.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// What units want that have the default dependencies, and nothing else of a system.
const TARGETS: [&str; 4] = ["sysinit.target", "basic.target", "shutdown.target", "multi-user.target"];

/// A machine on which one service is enabled: booted as long as the value lives.
#[derive(Debug)]
pub struct Systemd {
    job: Job,
}

impl Systemd {
    /// Writes a service and makes it start at each boot, as the place's user.
    ///
    /// # Errors
    /// The disk is full.
    pub fn enable(place: &Place, name: &str, unit: &str) -> Result<()> {
        let units = units(place);
        let wants = units.join("multi-user.target.wants");
        let drop_in = units.join(format!("{name}.d"));
        fs::create_dir_all(&wants)?;
        fs::create_dir_all(&drop_in)?;
        for target in TARGETS {
            fs::write(units.join(target), format!("[Unit]\nDescription={target}\n"))?;
        }
        fs::write(units.join(name), unit)?;
        std::os::unix::fs::symlink(units.join(name), wants.join(name))?;
        if place.user() == User::Nobody {
            fs::write(drop_in.join("user.conf"), "[Service]\nUser=nobody\n")?;
        }
        Ok(())
    }

    /// Boots a machine whose `/srv/job` is the place's working directory.
    ///
    /// # Errors
    /// It does not come up; left out: it takes root, or a kernel on which systemd can be started so.
    pub fn boot(place: &Place) -> Result<Self> {
        if !geteuid().is_root() {
            return Err(left_out::whole(Needs::Root, "systemd is PID 1"));
        }
        if !Path::new(SYSTEMD).exists() {
            return Err(left_out::whole(Needs::Package("systemd"), "systemd is not installed"));
        }
        let unshare = tool("unshare", "util-linux")?;
        let mut command = std::process::Command::new(unshare);
        command.args(["--pid", "--mount", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"]);
        command.args(["sh", "-c", BOOT, "sh"]).arg(place.work()).arg(place.bin()).arg(units(place)).arg(SYSTEMD);
        let this = Self { job: Job::start(&mut command)? };
        let up = || {
            ensure!(proc::state(this.job.pid()).is_some_and(|state| state != 'Z'), "{}", this.job.story());
            Ok(this.control(&["is-system-running"]).is_ok_and(|said| said.trim() == "running").then_some(()))
        };
        wait::until(up, || this.job.story())?;
        Ok(this)
    }

    /// What `systemctl` says inside.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn control(&self, words: &[&str]) -> Result<String> {
        let init = proc::children(self.job.pid()).first().copied().context("no PID 1")?.to_string();
        let mut command = std::process::Command::new(tool("nsenter", "util-linux")?);
        let said = command.args(["-t", &init, "-m", "-p", "systemctl"]).args(words).output()?;
        Ok(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
    }

    /// Shuts it down as before a reboot: each service is stopped; then nothing is left of it.
    ///
    /// # Errors
    /// A service does not stop.
    pub fn shut_down(self) -> Result<()> {
        let said = self.control(&["start", "shutdown.target", "--job-mode=replace-irreversibly"])?;
        ensure!(said.is_empty(), "{said}");
        self.fail()
    }

    /// The power fails.
    ///
    /// # Errors
    /// Its processes cannot be ended.
    pub fn fail(self) -> Result<()> {
        self.job.kill().map(drop)
    }

    /// All that is known, for messages.
    #[must_use]
    pub fn story(&self) -> String {
        format!("{}\n{}", self.job.story(), self.control(&["status", "--no-pager", "--full"]).unwrap_or_default())
    }
}

fn units(place: &Place) -> PathBuf {
    place.bin().join("units")
}
