//! System V semaphores by `ckpt restart`: left as they are, made again under key and id, refused when they were changed since.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, left_out};
use image_format::ExitCode;

/// A key of this test's own. What it leads to is removed in the end.
struct Key(String);

impl Key {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{:#x}", 0x5000_0000 | std::process::id() << 8 | next))
    }

    fn remove(&self) -> Result<()> {
        let removed = Command::new("ipcrm").args(["-S", &self.0]).output()?;
        ensure!(removed.status.success(), "ipcrm: {removed:?}");
        Ok(())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm").args(["-S", &self.0]).output();
    }
}

/// The guest with a set under this key, saved and ended.
fn saved(place: &Place, key: &Key, by_signal: bool) -> Result<()> {
    let (image, guest) = (place.file("job.ckpt"), place.guest("semaphore")?);
    let mut command = if by_signal { place.armed(guest, &image) } else { place.command(guest) };
    let mut job = Job::start(command.arg(&key.0))?;
    job.wait_line(READY)?;
    if by_signal {
        job.save_and_kill(&image)?;
    } else {
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
    }
    Ok(())
}

fn restart(place: &Place, options: &[&str]) -> Result<Ended> {
    place.go()?;
    Job::start(place.ckpt().arg("restart").args(options).arg(place.file("job.ckpt")))?.end()
}

/// Runs lines of Python as the place's user, with `l` as the C library and `i` as the set under a key.
fn python(place: &Place, key: &Key, lines: &str) -> Result<String> {
    let script = format!(
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); i = l.semget({}, 0, 0)\n\
         def op(*numbers): return l.semop(i, (ctypes.c_short * 3)(*numbers), 1)\n{lines}",
        key.0
    );
    let ran = place.command(tool("python3", "python3")?).args(["-c", &script]).output()?;
    ensure!(ran.status.success(), "{ran:?}");
    Ok(String::from_utf8(ran.stdout)?)
}

/// As a program that uses a set, says so, waits and looks at it.
fn program(place: &Place, key: &Key, before: &str, after: &str) -> Result<Job> {
    let script = format!(
        "import ctypes, os, time; l = ctypes.CDLL(None, use_errno=True); i = l.semget({}, 2, 0o1600)\n\
         def op(*numbers): return l.semop(i, (ctypes.c_short * 3)(*numbers), 1)\n\
         def value(number): return l.semctl(i, number, 12)\n{before}\nprint('ready', flush=True)\n\
         while not os.path.exists('go'): time.sleep(0.001)\n{after}\nprint('PASS', flush=True)",
        key.0
    );
    let job = Job::start(place.command(tool("python3", "python3")?).args(["-c", &script]))?;
    job.wait_line(READY)?;
    Ok(job)
}

fn refused(ended: &Ended, code: ExitCode) -> Result<()> {
    ended.expect_code(code as i32)?;
    ensure!(ended.err.contains("System V semaphores") && !ended.out.contains("FAIL"), "{ended:#?}");
    Ok(())
}

#[test]
fn a_set_that_is_still_there_is_left_as_it_is() -> Result<()> {
    User::each(|user| {
        for (by_signal, options) in
            [(false, &[][..]), (true, &[]), (false, &["--namespace"]), (false, &["--pid", "new"])]
        {
            let (place, key) = (Place::new(user)?, Key::new());
            saved(&place, &key, by_signal)?;
            restart(&place, options)?.expect_pass().with_context(|| format!("{by_signal} {options:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn one_that_is_gone_is_made_again_under_its_id() -> Result<()> {
    User::each(|user| {
        for (by_signal, options) in [(false, &[][..]), (true, &["--files", "ignore"]), (false, &["--namespace"])] {
            let (place, key) = (Place::new(user)?, Key::new());
            saved(&place, &key, by_signal)?;
            key.remove()?;
            let ended = restart(&place, options)?;
            if user.is_root() {
                ended.expect_pass().with_context(|| format!("{by_signal} {options:?}"))?;
            } else {
                refused(&ended, ExitCode::FileMissing)?;
                ensure!(ended.err.contains("under their key and id"), "{ended:#?}");
            }
        }
        Ok(())
    })
}

/// A command by nobody in an IPC namespace of its own, as after a reboot, in which so many sets were made before.
fn rebooted(command: &Command, before: u32) -> Command {
    let made = "n=$1; shift; while [ $n -gt 0 ]; do ipcmk -S 1 >ipcmk.out || exit 9; n=$((n - 1)); done; \
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
    left_out::unless_root("only root makes IPC namespaces")?;
    let (place, key) = (Place::new(User::Nobody)?, Key::new());
    let image = place.file("job.ckpt");
    // It saves itself: a saver from outside asks in its own namespace.
    let mut guest = place.armed(place.guest("semaphore")?, &image);
    let job = Job::start(&mut rebooted(guest.arg(&key.0), 20))?;
    job.wait_line(READY)?;
    job.save_and_kill(&image)?;
    place.go()?;
    let mut command = place.ckpt();
    command.arg("restart").arg(&image);
    // The counter stands before the id, at once before it, and behind it: then that is another's.
    Job::start(&mut rebooted(&command, 3))?.end()?.expect_pass()?;
    Job::start(&mut rebooted(&command, 20))?.end()?.expect_pass()?;
    refused(&Job::start(&mut rebooted(&command, 21))?.end()?, ExitCode::FileChanged)
}

#[test]
fn what_others_changed_is_neither_lost_nor_taken_silently() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, &key, false)?;
        python(&place, &key, "assert op(2, 1, 0) == 0")?;
        for policy in ["verify", "rollback"] {
            let ended = restart(&place, &["--files", policy])?;
            refused(&ended, ExitCode::FileChanged)?;
            ensure!(ended.err.contains("were changed after the save: ipcrm -s"), "{ended:#?}");
        }
        ensure!(python(&place, &key, "print(l.semctl(i, 2, 12))")?.trim() == "8", "it was set back");
        let taken = restart(&place, &["--files", "ignore"])?;
        ensure!(taken.out.contains("FAIL: semaphore 2: 8"), "the other value is not there: {taken:#?}");
        Ok(())
    })
}

#[test]
fn another_set_is_never_taken_for_it() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, &key, false)?;
        // Another mode under the same id; then another set under the same key.
        python(
            &place,
            &key,
            "import struct; b = ctypes.create_string_buffer(200); assert l.semctl(i, 0, 2, b) == 0\n\
            b[20:24] = struct.pack('<I', 0o666); assert l.semctl(i, 0, 1, b) == 0",
        )?;
        let ended = restart(&place, &["--files", "ignore"])?;
        refused(&ended, ExitCode::FileChanged)?;
        ensure!(ended.err.contains("are others") && !ended.err.contains("ipcrm"), "{ended:#?}");
        key.remove()?;
        python(&place, &key, &format!("assert l.semget({}, 5, 0o1640) >= 0", key.0))?;
        refused(&restart(&place, &["--files", "ignore"])?, ExitCode::FileMissing)?;
        ensure!(python(&place, &key, "print(l.semctl(i, 3, 12))")?.trim() == "0", "another's set was changed");
        key.remove()
    })
}

/// The kernel undoes what a process did by `SEM_UNDO` when it ends, and tells nobody before.
#[test]
fn what_is_undone_at_the_end_is_named() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        let image = place.file("job.ckpt");
        let before = "assert l.semctl(i, 0, 16, 1) == 0 and op(0, -1, 0x1000) == 0";
        let after = "assert (value(0), value(1)) == (0, 0) and op(0, 1, 0) == 0";
        let mut job = program(&place, &key, before, after)?;
        let report = place.try_save(job.pid(), &image, &["--kill"])?;
        ensure!(report.code() == Some(0) && report.err.contains("SEM_UNDO"), "{report:#?}");
        job.end()?;
        ensure!(python(&place, &key, "print(l.semctl(i, 0, 12))")?.trim() == "1", "nothing was undone");
        refused(&restart(&place, &[])?, ExitCode::FileChanged)?;
        // Put back by hand, or by the restart.
        python(&place, &key, "assert l.semctl(i, 0, 16, 0) == 0")?;
        restart(&place, &[])?.expect_pass()?;
        key.remove()?;
        if user.is_root() {
            restart(&place, &[])?.expect_pass()?;
        }
        Ok(())
    })
}

#[test]
fn only_what_the_process_has_used_is_in_its_image() -> Result<()> {
    User::each(|user| {
        let (place, key, other) = (Place::new(user)?, Key::new(), Key::new());
        let image = place.file("job.ckpt");
        let mut job = program(&place, &key, "assert op(1, 3, 0) == 0", "assert (value(0), value(1)) == (0, 3)")?;
        python(&place, &other, &format!("i = l.semget({}, 3, 0o1600); assert op(0, 1, 0) == 0", other.0))?;
        let report = place.try_save(job.pid(), &image, &[])?;
        ensure!(report.code() == Some(0) && report.err.is_empty(), "{report:#?}");
        let show = place.ckpt().arg("show").arg(&image).output()?;
        let text = String::from_utf8(show.stdout)?;
        let sets: Vec<_> = text.lines().filter(|line| line.contains("semaphore ")).collect();
        ensure!(sets.len() == 1 && sets[0].contains(&key.0) && sets[0].ends_with(": 0 3"), "{text}");
        place.go()?;
        job.end()?.expect_pass()?;
        restart(&place, &[])?.expect_pass()
    })
}

#[test]
fn one_of_its_own_that_cannot_be_read_is_named() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        let mut job = program(&place, &key, "assert op(0, 1, 0) == 0", "")?;
        python(
            &place,
            &key,
            "import struct; b = ctypes.create_string_buffer(200); assert l.semctl(i, 0, 2, b) == 0\n\
            b[20:24] = struct.pack('<I', 0o200); assert l.semctl(i, 0, 1, b) == 0",
        )?;
        let report = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        let says = format!("(key {}): cannot be read: if the process uses them", key.0);
        ensure!(report.code() == Some(0) && report.err.contains(&says) != user.is_root(), "{report:#?}");
        place.go()?;
        job.end()?.expect_pass()
    })
}

#[test]
fn by_the_stub_alone() -> Result<()> {
    User::each(|user| {
        let (place, key) = (Place::new(user)?, Key::new());
        saved(&place, &key, false)?;
        place.go()?;
        Job::start(&mut place.stub(&place.file("job.ckpt")))?.end()?.expect_pass()
    })
}

/// One hands the turn to the other by semaphores.
const TREE: &str = "child = os.fork()\n\
if child == 0:\n \
    if op(1, 1, 0): os._exit(1)\n \
    os.write(1, b'child\\n')\n \
    for turn in range(1000):\n  \
        if op(0, -1, 0) or op(1, 1, 0): os._exit(1)\n \
    os._exit(0)\n\
while value(1) != 1: time.sleep(0.001)";

#[test]
fn a_tree_shares_it() -> Result<()> {
    User::each(|user| {
        for is_gone in [false, true] {
            let (place, key) = (Place::new(user)?, Key::new());
            let image = place.file("job.ckpt");
            let after = "assert op(1, -1, 0) == 0\n\
                for turn in range(1000): assert op(0, 1, 0) == 0 and op(1, -1, 0) == 0\n\
                assert os.waitpid(child, 0)[1] == 0";
            let mut job = program(&place, &key, TREE, after)?;
            place.save(job.pid(), &image, &["--kill"])?;
            job.end()?;
            if is_gone {
                key.remove()?;
            }
            let ended = restart(&place, &[])?;
            if is_gone && !user.is_root() {
                refused(&ended, ExitCode::FileMissing)?;
            } else {
                ended.expect_pass().with_context(|| format!("gone: {is_gone}"))?;
            }
        }
        Ok(())
    })
}

/// In an IPC namespace of its own: the saver tells what it leaves out, or that it cannot know.
#[test]
fn those_of_another_namespace_are_named() -> Result<()> {
    left_out::unless_root("only root makes IPC namespaces")?;
    for user in [User::Own, User::Nobody] {
        let (place, key) = (Place::new(user)?, Key::new());
        let mut guest = place.command(place.guest("semaphore")?);
        guest.arg(&key.0);
        let mut new = if user.is_root() {
            let mut new = Command::new("unshare");
            new.arg("-i").arg(guest.get_program()).args(guest.get_args());
            new.envs(guest.get_envs().filter_map(|(name, value)| Some((name, value?))));
            new.current_dir(guest.get_current_dir().unwrap_or_else(|| "/".as_ref()));
            new
        } else {
            rebooted(&guest, 0)
        };
        let mut job = Job::start(&mut new)?;
        job.wait_line(READY)?;
        let report = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        place.go()?;
        job.end()?.expect_pass()?;
        let says = if user.is_root() { "not in the image: must be there" } else { "in another IPC namespace" };
        ensure!(report.code() == Some(0) && report.err.contains(says), "{report:#?}");
    }
    Ok(())
}
