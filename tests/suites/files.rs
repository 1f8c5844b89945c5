//! What a restart does about files that changed meanwhile: `--files verify`, `rollback` and `ignore`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, wait};
use image_format::ExitCode;

/// A saved and killed `files` guest; its log holds "one", it has read half of the table.
struct Saved {
    place: Place,
    image: PathBuf,
}

const TABLE: &str = "first second";

impl Saved {
    fn new(user: User) -> Result<Self> {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        place.write("log", "")?;
        place.write("table", TABLE)?;
        place.write("both", "0123456789")?;
        let job = Job::start(&mut place.armed(place.guest("files")?, &image))?;
        job.wait_line(READY)?;
        job.save_and_kill(&image)?;
        place.go()?;
        Ok(Self { place, image })
    }

    fn restart(&self, policy: Option<&str>) -> Result<Ended> {
        let mut command = self.place.stub(&self.image);
        if let Some(policy) = policy {
            command.args(["--files", policy]);
        }
        Job::start(&mut command)?.end()
    }

    fn append(&self, name: &str, text: &str) -> Result<()> {
        let old = fs::read_to_string(self.place.file(name))?;
        Ok(fs::write(self.place.file(name), old + text)?)
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.place.file(name))?)
    }

    /// Puts another file under the name: same contents, another inode.
    fn replace(&self, name: &str) -> Result<()> {
        let contents = self.text(name)?;
        self.place.write("other", contents)?;
        Ok(fs::rename(self.place.file("other"), self.place.file(name))?)
    }

    /// The restart is refused with this code, one line of standard error names the file, and nothing has run.
    fn refused(&self, policy: Option<&str>, code: ExitCode, name: &str) -> Result<()> {
        let ended = self.restart(policy)?;
        ended.expect_code(code as i32)?;
        let path = self.place.file(name).display().to_string();
        let one_line = ended.err.lines().count() == 1 && ended.err.starts_with("restart-stub: ");
        ensure!(one_line && ended.err.contains(&path), "the message names {path} in one line: {ended:#?}");
        ensure!(ended.out.is_empty(), "something ran: {ended:#?}");
        Ok(())
    }

    fn goes_on(&self, policy: Option<&str>, rest: &str) -> Result<()> {
        let ended = self.restart(policy)?;
        ended.expect_pass()?;
        ensure!(ended.out == format!("rest: {rest}\nPASS\n"), "{ended:#?}");
        Ok(())
    }
}

fn exists(path: &Path) -> bool {
    path.exists()
}

#[test]
fn unchanged_files_restart_under_every_policy() -> Result<()> {
    User::each(|user| {
        for policy in [None, Some("verify"), Some("rollback"), Some("ignore")] {
            let saved = Saved::new(user)?;
            saved.goes_on(policy, "second")?;
            ensure!(saved.text("log")? == "one\ntwo\n", "{policy:?}: {}", saved.text("log")?);
            ensure!(!exists(&saved.place.file("log.after-restart.1")), "{policy:?}: something was kept aside");
        }
        Ok(())
    })
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    User::each(|user| {
        for name in ["log", "table", "both"] {
            let saved = Saved::new(user)?;
            fs::remove_file(saved.place.file(name))?;
            for policy in [None, Some("verify"), Some("rollback"), Some("ignore")] {
                saved.refused(policy, ExitCode::FileMissing, name)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_shorter_file_is_named() -> Result<()> {
    User::each(|user| {
        for name in ["log", "table", "both"] {
            let saved = Saved::new(user)?;
            let text = saved.text(name)?;
            fs::write(saved.place.file(name), &text[..text.len() - 1])?;
            for policy in [None, Some("rollback")] {
                saved.refused(policy, ExitCode::FileShrank, name)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_replaced_file_is_named() -> Result<()> {
    User::each(|user| {
        for name in ["log", "both"] {
            let saved = Saved::new(user)?;
            saved.replace(name)?;
            saved.refused(None, ExitCode::FileChanged, name)?;
            saved.goes_on(Some("ignore"), "second")?;
        }
        Ok(())
    })
}

#[test]
fn a_file_that_grew_under_a_writer_is_named() -> Result<()> {
    User::each(|user| {
        for name in ["log", "both"] {
            let saved = Saved::new(user)?;
            saved.append(name, "later\n")?;
            saved.refused(Some("verify"), ExitCode::FileChanged, name)?;
            ensure!(saved.text("log")?.starts_with("one\n"), "a refused restart touched the file");
        }
        Ok(())
    })
}

#[test]
fn rollback_cuts_back_and_keeps_the_tail() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user)?;
        saved.append("log", "later\n")?;
        saved.goes_on(Some("rollback"), "second")?;
        ensure!(saved.text("log")? == "one\ntwo\n", "the log: {:?}", saved.text("log")?);
        ensure!(saved.text("log.after-restart.1")? == "later\n", "kept: {:?}", saved.text("log.after-restart.1")?);
        // Once more: the next tail gets the next number.
        saved.goes_on(Some("rollback"), "second")?;
        ensure!(saved.text("log.after-restart.1")? == "later\n", "the first tail was touched");
        ensure!(saved.text("log.after-restart.2")? == "two\n", "kept: {:?}", saved.text("log.after-restart.2")?);
        ensure!(saved.text("log")? == "one\ntwo\n", "the log: {:?}", saved.text("log")?);
        Ok(())
    })
}

/// The kernel sets a file's time before it writes: a program that is killed between these has changed the time alone.
#[test]
fn rollback_takes_a_new_time_for_a_write_that_did_not_come_to_be() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user)?;
        let touch = |name: &str| -> Result<()> {
            let file = fs::File::options().write(true).open(saved.place.file(name))?;
            Ok(file.set_modified(std::time::SystemTime::now())?)
        };
        touch("log")?;
        saved.refused(Some("verify"), ExitCode::FileChanged, "log")?;
        saved.goes_on(Some("rollback"), "second")?;
        ensure!(saved.text("log")? == "one\ntwo\n", "the log: {:?}", saved.text("log")?);
        // The program writes inside this one, or reads that one: something else has changed them.
        let inside = Saved::new(user)?;
        for name in ["both", "table"] {
            fs::write(inside.place.file(name), inside.text(name)?.replace(['1', 'r'], "x"))?;
            inside.refused(Some("rollback"), ExitCode::FileChanged, name)?;
        }
        Ok(())
    })
}

#[test]
fn ignore_takes_files_as_they_are() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user)?;
        saved.append("log", "later\n")?;
        saved.goes_on(Some("ignore"), "second")?;
        ensure!(saved.text("log")? == "one\nlater\ntwo\n", "the log: {:?}", saved.text("log")?);
        let shorter = Saved::new(user)?;
        fs::write(shorter.place.file("table"), "first se")?;
        shorter.goes_on(Some("ignore"), "se")
    })
}

#[test]
fn a_wrong_policy_is_a_usage_error() -> Result<()> {
    let saved = Saved::new(User::Own)?;
    let ended = saved.restart(Some("sometimes"))?;
    ended.expect_code(ExitCode::Usage as i32)?;
    ensure!(ended.out.is_empty() && ended.err.contains("sometimes"), "{ended:#?}");
    Ok(())
}

#[test]
fn a_lock_of_another_is_named() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let job = Job::start(&mut place.armed(place.guest("lock")?, &image))?;
        job.wait_line(READY)?;
        job.save_and_kill(&image)?;
        // Another process takes the same locks.
        let other = Job::start(&mut place.command(place.bin().join("lock")))?;
        other.wait_line(READY)?;
        let ended = Job::start(&mut place.stub(&image))?.end()?;
        ended.expect_code(ExitCode::Descriptor as i32)?;
        ensure!(ended.err.contains("lock") && ended.out.is_empty(), "{ended:#?}");
        other.kill().map(drop)
    })
}

/// Bytes that were stored through a mapping after a live save: time and size of a file in memory do not tell of them.
#[test]
fn a_file_that_was_stored_to_after_a_live_save_is_named() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let file = format!("/dev/shm/ckpt-suite-{}-{user:?}", std::process::id());
        let mut job = Job::start(place.command(place.guest("stores")?).arg(&file))?;
        job.wait_line(READY)?;
        let saved = Job::start(place.ckpt().arg("save").arg(job.pid().to_string()).arg("-o").arg(&image))?.end()?;
        saved.expect_code(0)?;
        place.go()?;
        job.end()?.expect_pass()?;
        let restart = |policy: &str| Job::start(place.stub(&image).args(["--files", policy]))?.end();
        let refused = restart("verify")?;
        refused.expect_code(ExitCode::FileChanged as i32)?;
        ensure!(refused.err.contains(&file) && refused.out.is_empty(), "the file is not named: {refused:#?}");
        let ignored = restart("ignore")?;
        ignored.expect_code(1)?;
        ensure!(ignored.out.contains("later bytes"), "the guest does not find them: {ignored:#?}");
        // It lies in memory: the image has it.
        let back = restart("rollback");
        fs::remove_file(&file)?;
        fs::remove_file(format!("{file}.after-restart.1"))?;
        back?.expect_pass()
    })
}

/// All obstacles are reported at once, by `ckpt check`, too; what helps can be copied out of the lines.
#[test]
fn all_of_them_at_once() -> Result<()> {
    const SCRIPT: &str = "import os, sys, time\n\
        gone = open('gone', 'w+'); short = open('short', 'w+'); short.write('x' * 100); short.flush(); grown = open('grown', 'a')\n\
        whole = open('whole', 'w+'); dir = os.open('dir', os.O_RDONLY)\n\
        print('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n\
        print(os.read(9, 10)); print('PASS', flush=True)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        fs::create_dir(place.file("dir"))?;
        let (reader, _writer) = std::io::pipe()?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let mut command = place.command(tool("python3", "python3")?);
        ckpt_tests::job::with_no_other_descriptors(&mut command);
        ckpt_tests::job::with_descriptor(&mut command, raw, &[9]);
        let job = Job::start(command.args(["-c", SCRIPT]))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job);
        place.go()?;
        fs::remove_file(place.file("gone"))?;
        fs::write(place.file("short"), "")?;
        fs::write(place.file("grown"), "more")?;
        fs::remove_dir(place.file("dir"))?;
        let mut restart = place.ckpt();
        ckpt_tests::job::with_no_other_descriptors(restart.arg("restart").arg(&image));
        let ended = Job::start(&mut restart)?.end()?;
        ended.expect_code(ExitCode::FileMissing as i32)?;
        let mut check = place.ckpt();
        ckpt_tests::job::with_no_other_descriptors(check.arg("check").arg(&image));
        let checked = Job::start(&mut check)?.end()?;
        checked.expect_code(ExitCode::FileMissing as i32)?;
        let told: Vec<&str> = ended.err.lines().filter_map(|line| line.strip_prefix("ckpt: ")).collect();
        ensure!(checked.out.lines().eq(told.iter().copied()), "{checked:#?}\n{ended:#?}");
        for (word, why) in [
            ("/gone)", "is not there any more"),
            ("/short)", "is shorter than it was"),
            ("/grown)", "has grown"),
            ("/dir)", "cannot be opened"),
            ("pipe:[", "led outside"),
        ] {
            ensure!(told.iter().any(|line| line.contains(word) && line.contains(why)), "{word}: {told:#?}");
        }
        ensure!(told.len() == 5 && ended.out.is_empty(), "{told:#?}");
        // By their own words: files that are to be written are made, and a pipe's other side is gone.
        fs::create_dir(place.file("dir"))?;
        let mut restart = place.ckpt();
        ckpt_tests::job::with_no_other_descriptors(restart.arg("restart").args(["--files", "ignore"]).arg(&image));
        for line in told {
            let Some((_, option)) = line.split_once("--fd ") else { continue };
            let number: String = option.chars().take_while(char::is_ascii_digit).collect();
            let value = if line.contains("pipe:[") { "closed".into() } else { place.file("new").display().to_string() };
            restart.args(["--fd", &format!("{number}={value}")]);
        }
        let ended = Job::start(&mut restart)?.end()?;
        ended.expect_pass()?;
        ensure!(ended.out.starts_with("b''\n") && place.file("new").exists(), "{ended:#?}");
        Ok(())
    })
}

/// What whoever started the program gave to it, and its own user cannot open again: the save says so, and the restart takes another one.
#[test]
fn a_file_out_of_reach_is_named() -> Result<()> {
    // Root reaches everything.
    let user = if rustix::process::geteuid().is_root() { User::Nobody } else { User::Own };
    for (closed, mode) in [("hidden", 0o000), ("hidden/log", 0o400)] {
        let place = Place::new(user)?;
        let (image, log) = (place.file("job.ckpt"), place.file("hidden/log"));
        fs::create_dir(place.file("hidden"))?;
        place.write("hidden/log", "")?;
        place.give(&place.file("hidden"))?;
        let mut job = Job::start(place.command(place.guest("counter")?).arg("400").arg(&log).arg("1"))?;
        job.wait_line("count 3")?;
        fs::set_permissions(place.file(closed), Permissions::from_mode(mode))?;
        let saved = place.save(job.pid(), &image, &["--kill"])?;
        let named = format!("(file {}): this user cannot open it again", log.display());
        // Whoever runs the tests may have left pipes open, which are named, too.
        let line = saved.err.lines().find(|line| line.contains(&named)).unwrap_or_default();
        ensure!(line.contains("--fd "), "{saved:#?}");
        let fd = line.rsplit_once("--fd ").and_then(|(_, rest)| rest.split_once('=')).map_or("", |(fd, _)| fd);
        let missing = Job::start(&mut place.stub(&image))?.end()?;
        missing.expect_code(ExitCode::FileMissing as i32)?;
        ensure!(missing.err.contains(&format!("--fd {fd}=PATH")) && missing.out.is_empty(), "{missing:#?}");
        let other = place.write("other", "")?;
        let options = ["--fd".to_owned(), format!("{fd}={}", other.display())];
        Job::start(place.stub(&image).args(options))?.end()?.expect_pass()?;
        fs::set_permissions(place.file(closed), Permissions::from_mode(0o700))?;
        let (before, after) = (fs::read_to_string(&log)?, fs::read_to_string(other)?);
        let all = before + &after;
        ensure!(all == (1..=400).map(|n| format!("count {n}\n")).collect::<String>(), "{all}");
        job.end()?;
    }
    Ok(())
}

/// A guest that was saved live, and killed when it had written on into the file that it maps; what that holds.
fn written_on(place: &Place, arguments: &[&str]) -> Result<Vec<u8>> {
    let job = Job::start(place.command(place.guest("tally")?).args(arguments))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &place.file("job.ckpt"), &[])?;
    let saved = fs::read(place.file("tally"))?;
    let wrote_on = || Ok((fs::read(place.file("tally"))? != saved).then_some(()));
    wait::until(wrote_on, || "it writes nothing more".to_owned())?;
    job.kill()?;
    place.go()?;
    Ok(fs::read(place.file("tally"))?)
}

fn rolled_back(place: &Place) -> Result<Ended> {
    Job::start(place.ckpt().args(["restart", "--files", "rollback"]).arg(place.file("job.ckpt")))?.end()
}

#[test]
fn rollback_puts_a_mapped_file_back_that_the_image_has() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let later = written_on(&place, &[])?;
        let refused = Job::start(place.ckpt().arg("restart").arg(place.file("job.ckpt")))?.end()?;
        refused.expect_code(ExitCode::FileChanged as i32)?;
        rolled_back(&place)?.expect_pass()?;
        ensure!(fs::read(place.file("tally.after-restart.1"))? == later, "the later bytes are not kept");
        let later = fs::read(place.file("tally"))?;
        rolled_back(&place)?.expect_pass()?;
        ensure!(fs::read(place.file("tally.after-restart.2"))? == later, "those of the second run are not kept");
        Ok(())
    })
}

#[test]
fn rollback_moves_no_mapped_file_that_is_open() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let later = written_on(&place, &["open"])?;
        rolled_back(&place)?.expect_code(ExitCode::FileChanged as i32)?;
        ensure!(fs::read(place.file("tally"))? == later, "the file was touched");
        ensure!(!exists(&place.file("tally.after-restart.1")), "the file was moved");
        Ok(())
    })
}
