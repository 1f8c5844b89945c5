//! Files in memory that processes of a tree share by mappings (MPI's, Python's `shared_memory`): carried with the image, compared at the restart,
//! whichever of the processes has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, wait};
use image_format::ExitCode;
use rustix::process::Signal;

/// A parent, and children that count in a file in memory, all in the same, and each for itself: they must agree. The parent has none of it.
const RANKS: &str = "import mmap, os, sys, time\npath, ranks = sys.argv[1], 3\n\
    def rank(me):\n    fd = os.open(path, os.O_RDWR)\n    shared = mmap.mmap(fd, 1 << 20)\n    os.close(fd); own = 0\n    \
    while not os.path.exists('go') or own < 20:\n        at = me * 4096\n        \
        assert int.from_bytes(shared[at:at + 8], 'little') == own, (me, own, shared[at:at + 8])\n        \
        own += 1; shared[at:at + 8] = own.to_bytes(8, 'little'); time.sleep(0.002)\n    os._exit(0)\n\
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600); os.ftruncate(fd, 1 << 20); os.close(fd)\n\
    pids = []\nfor me in range(ranks):\n    pid = os.fork()\n    if not pid: rank(me)\n    pids.append(pid)\n\
    print('ready', flush=True)\n\
    ends = [os.waitpid(pid, 0)[1] for pid in pids]\nos.unlink(path)\nprint('PASS' if not any(ends) else ends, flush=True)\n";

/// A file in memory that goes away with the value, with what restarts have kept of it.
struct InMemory(PathBuf);

impl InMemory {
    fn new(place: &Place) -> Self {
        let name = place.work().parent().and_then(Path::file_name).unwrap_or_default().to_owned();
        Self(Path::new("/dev/shm").join(name))
    }

    /// All of them.
    fn all(&self) -> Vec<PathBuf> {
        let own = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(&own)).map(|e| e.path()).collect()
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.all().iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

fn ranks(place: &Place, mut command: Command, file: &InMemory) -> Result<Command> {
    place.halt().ok();
    command.arg(tool("python3", "python3")?).args(["-c", RANKS]).arg(&file.0);
    Ok(command)
}

fn run(place: &Place, file: &InMemory) -> Result<Command> {
    let mut command = place.ckpt();
    command.args(["run", "-q", "-o", "job.ckpt", "--"]);
    ranks(place, command, file)
}

fn save(job: &Job, image: &Path) -> Result<()> {
    let before = Mark::of(image);
    job.send(Signal::USR1)?;
    wait::until(|| Ok((Mark::of(image) != before).then_some(())), || format!("no image: {}", job.story()))
}

/// After kill -9 of everything, and after a boot that finds the memory empty: the processes and their file agree again.
#[test]
fn a_job_whose_children_share_memory() -> Result<()> {
    User::each(|user| {
        for reboot in [false, true] {
            let place = Place::new(user)?;
            let (image, file) = (place.file("job.ckpt"), InMemory::new(&place));
            let mut command = run(&place, &file)?;
            let mut job = Job::start(&mut command)?;
            job.wait_line(READY)?;
            save(&job, &image)?;
            // Several times from one image.
            for _ in 0..3 {
                let then = fs::read(&file.0)?;
                let wrote_on = || Ok((fs::read(&file.0)? != then).then_some(()));
                wait::until(wrote_on, || format!("it does not go on: {}", job.story()))?;
                job.kill_session()?;
                let killed = fs::read(&file.0)?;
                if reboot {
                    fs::remove_file(&file.0)?;
                }
                job = Job::start(&mut command)?;
                // It takes the file as it finds it: what it finds must be its own. Until the restart has put that there, the name may be gone.
                let goes_on = || Ok((fs::read(&file.0).is_ok_and(|now| now != killed)).then_some(()));
                wait::until(goes_on, || format!("it does not go on: {}", job.story()))?;
            }
            place.go()?;
            job.end()?.expect_pass()?;
        }
        Ok(())
    })
}

/// Without rollback a file that was written since is named, although the root has nothing of it.
#[test]
fn a_childs_file_that_was_written_since_is_named() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (image, file) = (place.file("job.ckpt"), InMemory::new(&place));
        let job = Job::start(&mut ranks(&place, place.command("/usr/bin/env"), &file)?)?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &[])?;
        let then = fs::read(&file.0)?;
        wait::until(|| Ok((fs::read(&file.0)? != then).then_some(())), || job.story())?;
        job.kill_session()?;
        place.go()?;
        let refused = Job::start(place.ckpt().arg("restart").arg(&image))?.end()?;
        refused.expect_code(ExitCode::FileChanged as i32)?;
        ensure!(refused.err.contains(&*file.0.to_string_lossy()) && refused.out.is_empty(), "{refused:#?}");
        // With it the job is whole, twice from one image.
        for _ in 0..2 {
            let ended = Job::start(place.ckpt().args(["restart", "--files", "rollback"]).arg(&image))?.end()?;
            ended.expect_pass()?;
        }
        Ok(())
    })
}
