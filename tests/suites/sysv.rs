//! System V shared memory by `ckpt restart`: attached again under key and id; segments that were removed, written or replaced since.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, left_out};
use image_format::ExitCode;

/// A key of this test's own. What it leads to is removed in the end.
struct Key(String);

impl Key {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{:#x}", 0x4000_0000 | std::process::id() << 8 | next))
    }

    fn remove(&self) -> Result<()> {
        let removed = Command::new("ipcrm").args(["-M", &self.0]).output()?;
        ensure!(removed.status.success(), "ipcrm: {removed:?}");
        Ok(())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm").args(["-M", &self.0]).output();
    }
}

/// The guest with a segment under this key, or one that is marked for removal, saved and ended.
fn saved(place: &Place, key: Option<&Key>, by_signal: bool) -> Result<()> {
    let (image, guest) = (place.file("job.ckpt"), place.guest("sysv")?);
    let mut command = if by_signal { place.armed(guest, &image) } else { place.command(guest) };
    let mut job = Job::start(command.args(key.map(|key| &key.0)).env("ATTACHED", "1"))?;
    job.wait_line(READY)?;
    if by_signal {
        job.save_and_kill(&image)?;
    } else {
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
    }
    Ok(())
}

fn restart(place: &Place, options: &[&str]) -> Result<Job> {
    place.go()?;
    Job::start(place.ckpt().arg("restart").args(options).arg(place.file("job.ckpt")))
}

/// Writes a byte into the segment, as somebody else.
fn write(place: &Place, key: &Key, offset: u32) -> Result<()> {
    let script = format!(
        "import ctypes; l = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p\n\
         i = l.shmget({}, 0, 0); a = l.shmat(i, None, 0); ctypes.memmove(a + {offset}, b'Z', 1)",
        key.0
    );
    let wrote = place.command(tool("python3", "python3")?).args(["-c", &script]).output()?;
    ensure!(wrote.status.success(), "{wrote:?}");
    Ok(())
}

#[test]
fn marked_for_removal_it_is_attached_again() -> Result<()> {
    User::each(|user| {
        for by_signal in [false, true] {
            let place = Place::new(user)?;
            saved(&place, None, by_signal)?;
            restart(&place, &[])?.end()?.expect_pass()?;
        }
        Ok(())
    })
}

#[test]
fn one_that_is_still_there_is_attached_again() -> Result<()> {
    User::each(|user| {
        for (by_signal, options) in
            [(false, &[][..]), (true, &[]), (false, &["--namespace"]), (false, &["--pid", "new"])]
        {
            let (place, key) = (Place::new(user)?, Key::new());
            saved(&place, Some(&key), by_signal)?;
            restart(&place, options)?.end()?.expect_pass().with_context(|| format!("{by_signal} {options:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn one_that_is_gone_is_made_again_under_its_id() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, Some(&key), false)?;
        key.remove()?;
        let mut job = restart(&place, &[])?;
        if user.is_root() {
            return job.end()?.expect_pass();
        }
        let refused = job.end()?;
        ensure!(refused.err.contains("under its key and id"), "{refused:#?}");
        refused.expect_code(ExitCode::FileMissing as i32)
    })
}

/// A command by this user in an IPC namespace of its own, as after a reboot, in which so many segments were made before.
fn rebooted(command: &Command, before: u32) -> Command {
    let made = "n=$1; shift; while [ $n -gt 0 ]; do ipcmk -M 1 >ipcmk.out || exit 9; n=$((n - 1)); done; \
                exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut new = Command::new("unshare");
    new.args(["-i", "sh", "-c", made, "sh"])
        .arg(before.to_string())
        .arg(command.get_program())
        .args(command.get_args());
    new.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    new.current_dir(command.get_current_dir().unwrap_or_else(|| "/".as_ref()));
    new
}

#[test]
fn after_a_reboot_an_ordinary_user_has_its_id_again() -> Result<()> {
    left_out::unless_root("only root makes IPC namespaces for nobody")?;
    let (place, key) = (Place::new(User::Nobody)?, Key::new());
    let image = place.file("job.ckpt");
    let mut guest = place.command(place.guest("sysv")?);
    let mut job = Job::start(&mut rebooted(guest.arg(&key.0), 20))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &image, &["--kill"])?;
    job.end()?;
    place.go()?;
    let mut command = place.ckpt();
    command.arg("restart").arg(&image);
    // The counter stands before the id, at once before it, and behind it: then that is another's.
    Job::start(&mut rebooted(&command, 3))?.end()?.expect_pass()?;
    Job::start(&mut rebooted(&command, 20))?.end()?.expect_pass()?;
    Job::start(&mut rebooted(&command, 21))?.end()?.expect_code(ExitCode::FileChanged as i32)
}

#[test]
fn what_others_wrote_is_neither_lost_nor_taken_silently() -> Result<()> {
    User::each(|user| {
        // Inside what has contents, and in a hole.
        for offset in [5000, 9000] {
            let (place, key) = (Place::new(user)?, Key::new());
            saved(&place, Some(&key), false)?;
            write(&place, &key, offset)?;
            for policy in ["verify", "rollback"] {
                let refused = restart(&place, &["--files", policy])?.end()?;
                refused.expect_code(ExitCode::FileChanged as i32)?;
                ensure!(refused.err.contains("was written after the save"), "{refused:#?}");
            }
            let taken = restart(&place, &["--files", "ignore"])?.end()?;
            ensure!(taken.out.contains("FAIL"), "the other bytes are not there: {taken:#?}");
        }
        Ok(())
    })
}

#[test]
fn another_segment_is_never_taken_for_it() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, Some(&key), false)?;
        key.remove()?;
        // Under the same key, of another size.
        let script = format!("import ctypes; ctypes.CDLL(None).shmget({}, 4096, 0o1600)", key.0);
        place.command(tool("python3", "python3")?).args(["-c", &script]).output()?;
        let refused = restart(&place, &["--files", "ignore"])?.end()?;
        ensure!(refused.err.contains("System V"), "{refused:#?}");
        key.remove()
    })
}

#[test]
fn by_the_stub_alone() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, Some(&key), false)?;
        place.go()?;
        Job::start(&mut place.stub(&place.file("job.ckpt")))?.end()?.expect_pass()
    })
}

/// Attached by a process and its child, which see each other's bytes.
const TREE: &str = r#"
import ctypes, os, time
l = ctypes.CDLL(None, use_errno=True); l.shmat.restype = ctypes.c_void_p; l.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
l.shmdt.argtypes = [ctypes.c_void_p]
i = l.shmget(0, 100000, 0o1600); a = l.shmat(i, None, 0); assert l.shmctl(i, 0, None) == 0
m = (ctypes.c_char * 100000).from_address(a); m[70000] = b'p'
child = os.fork()
if child == 0:
    b = l.shmat(i, None, 0x1000)
    os.write(1, b'ready\n')
    while not os.path.exists('go'): time.sleep(0.001)
    while m[5] != b'x': time.sleep(0.001)
    ok = ctypes.string_at(b + 5, 1) == b'x' and m[70000] == b'p' and m[99999] == b'\0'
    m[6] = b'y' if ok else b'n'
    os._exit(0 if l.shmdt(a) == 0 and l.shmdt(b) == 0 else 1)
while not os.path.exists('go'): time.sleep(0.001)
m[5] = b'x'
assert os.waitpid(child, 0)[1] == 0 and m[6] == b'y'
assert l.shmdt(a) == 0
print('PASS', flush=True)
"#;

#[test]
fn a_tree_shares_it() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(place.command(tool("python3", "python3")?).args(["-c", TREE]))?;
        job.wait_line(READY)?;
        let checked = Job::start(place.ckpt().args(["check", &job.pid().to_string()]))?.end()?;
        ensure!(checked.code() == Some(0), "{checked:#?}");
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
        restart(&place, &[])?.end()?.expect_pass()
    })
}

/// Queues are in no image: the save of a process that uses them says so.
#[test]
fn queues_are_named() -> Result<()> {
    const SCRIPT: &str = "import ctypes, os, time; l = ctypes.CDLL(None)\n\
        q = l.msgget(0, 0o1600); l.msgsnd(q, (ctypes.c_long * 2)(1, 7), 8, 0); print(q, '', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.001)\n\
        l.msgctl(q, 0, None); print('PASS', flush=True)";
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(place.command(tool("python3", "python3")?).args(["-c", SCRIPT]))?;
        let queue = || Ok(job.out().split_once(' ').map(|(queue, _)| queue.to_owned()));
        let queue = ckpt_tests::wait::until(queue, || job.story())?;
        let saved = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        place.go()?;
        job.end()?.expect_pass()?;
        let what = format!("System V message queue {queue} ");
        ensure!(saved.code() == Some(0) && saved.err.contains(&what), "no {what} in {saved:#?}");
        Ok(())
    })
}
