//! `ckpt run`: an image belongs to one job, one command runs it at a time, and what is done begins anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, wait};
use image_format::ExitCode;
use rustix::process::Signal;

/// `ckpt run OPTIONS -- WORDS`.
fn run(place: &Place, options: &[&str], words: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.arg("run").args(options).arg("--").args(words);
    command
}

/// Files of the working directory with this end, in order.
fn files(place: &Place, end: &str) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(place.work())? {
        let path = entry?.path();
        all.extend(path.to_string_lossy().ends_with(end).then_some(path));
    }
    all.sort();
    Ok(all)
}

fn counted(last: u32) -> String {
    (1..=last).map(|i| format!("count {i}\n")).collect()
}

/// Runs it until it counts, and lets it be saved and ended.
fn save_and_end(command: &mut Command) -> Result<()> {
    let mut job = Job::start(command)?;
    job.wait_line("count 3")?;
    job.send(Signal::TERM)?;
    job.end()?.expect_code(85)
}

#[test]
fn two_jobs_in_one_directory_do_not_meet() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let guest = place.guest("counter")?;
        let job = |file: &'static str| run(&place, &[], &[&guest.to_string_lossy(), "200", file, "10"]);
        save_and_end(&mut job("one.txt"))?;
        save_and_end(&mut job("two.txt"))?;
        let images = files(&place, ".ckpt")?;
        ensure!(images.len() == 2, "{images:?}");
        for file in ["one.txt", "two.txt"] {
            let ended = Job::start(&mut job(file))?.end()?;
            ended.expect_pass()?;
            ensure!(ended.err.contains("goes on from it, saved ") && !ended.out.contains("count 1\n"), "{ended:#?}");
            ensure!(fs::read_to_string(place.file(file))? == counted(200), "{file} is not whole");
        }
        // Both are done, and begin anew.
        ensure!(files(&place, ".ckpt")?.is_empty() && files(&place, ".ckpt.done")?.len() == 2);
        ensure!(files(&place, ".lock")?.is_empty());
        let ended = Job::start(&mut job("one.txt"))?.end()?;
        ensure!(ended.out.starts_with("count 1\n") && ended.err.contains(": starts `"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn another_command_is_refused_by_name() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (guest, image) = (place.guest("counter")?, place.file("job.ckpt"));
        let guest = guest.to_string_lossy();
        let job = |options: &[&str], file: &str| {
            run(&place, &[&["-o", "job.ckpt"], options].concat(), &[&guest, "200", file, "10"])
        };
        save_and_end(&mut job(&[], "one.txt"))?;
        let (before, counted_before) = (Mark::of(&image), fs::read(place.file("one.txt"))?);
        let ended = Job::start(&mut job(&[], "two.txt"))?.end()?;
        ended.expect_code(ExitCode::OtherJob as i32)?;
        for word in ["one.txt", "two.txt", "-o", "--fresh"] {
            ensure!(ended.err.contains(word), "{word}: {ended:#?}");
        }
        ensure!(ended.out.is_empty() && ended.err.lines().count() == 1, "{ended:#?}");
        ensure!(Mark::of(&image) == before && fs::read(place.file("one.txt"))? == counted_before);
        ensure!(!place.file("two.txt").exists() && files(&place, ".lock")?.is_empty());
        // What the user wants all the same, and the first job still has its image.
        let ended = Job::start(&mut job(&["--fresh"], "two.txt"))?.end()?;
        ended.expect_pass()?;
        ensure!(fs::read_to_string(place.file("two.txt"))? == counted(200) && !image.exists(), "{ended:#?}");
        fs::rename(place.file("job.ckpt.aside.1"), &image)?;
        Job::start(&mut job(&[], "one.txt"))?.end()?.expect_pass()?;
        ensure!(fs::read_to_string(place.file("one.txt"))? == counted(200));
        Ok(())
    })
}

#[test]
fn an_image_tells_its_job() -> Result<()> {
    let place = Place::new(User::Own)?;
    let guest = place.guest("counter")?;
    let words = [&guest.to_string_lossy(), "200", "a file.txt", "10"];
    save_and_end(&mut run(&place, &["-o", "job.ckpt"], &words))?;
    let shown = place.ckpt().args(["show", "--json", "job.ckpt"]).output()?;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    let command: Vec<_> = words.iter().map(|word| serde_json::Value::from(*word)).collect();
    ensure!(shown["job"]["command"] == serde_json::Value::from(command), "{shown:#}");
    ensure!(shown["job"]["directory"] == place.work().canonicalize()?.to_string_lossy().as_ref());
    ensure!(shown["job"]["host"].as_str().is_some_and(|host| !host.is_empty()));
    let shown = place.ckpt().args(["show", "job.ckpt"]).output()?;
    // Long values go on in the next line.
    let words: Vec<_> = shown.stdout.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    ensure!(String::from_utf8_lossy(&words.join(&b' ')).contains("200 'a file.txt' 10, in "));
    Ok(())
}

/// An image that `ckpt save` has made says no job: its process's command line must be the same.
#[test]
fn an_image_of_ckpt_save_is_taken_for_its_own_command_line() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let guest = place.guest("counter")?;
        let script = place.write("script", format!("#!{} 200\n", guest.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let plain = [guest.to_string_lossy().into_owned(), "200".into(), "out".into(), "10".into()];
        let by_script = ["./script".to_owned(), "10".into()];
        for (words, other) in [(&plain[..], &by_script[..]), (&by_script, &plain)] {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let other: Vec<&str> = other.iter().map(String::as_str).collect();
            let job = Job::start(place.command(words[0]).args(&words[1..]))?;
            job.wait_line("count 3")?;
            place.save(job.pid(), &place.file("job.ckpt"), &[])?;
            job.kill()?;
            let ended = Job::start(&mut run(&place, &["-o", "job.ckpt"], &other))?.end()?;
            ended.expect_code(ExitCode::OtherJob as i32)?;
            ensure!(ended.err.contains("does not say to which job it belongs"), "{ended:#?}");
            let ended = Job::start(&mut run(&place, &["-o", "job.ckpt"], &words))?.end()?;
            ended.expect_pass()?;
            ensure!(!ended.out.contains("count 1\n"), "it began anew: {ended:#?}");
        }
        Ok(())
    })
}

#[test]
fn the_same_command_in_another_directory_is_another_job() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let guest = place.guest("counter")?;
        let other = place.file("other");
        fs::create_dir(&other)?;
        place.give(&other)?;
        let image = place.file("job.ckpt");
        let image = image.to_string_lossy();
        let mut job = run(&place, &["-o", &image], &[&guest.to_string_lossy(), "200", "out.txt", "10"]);
        save_and_end(&mut job)?;
        let ended = Job::start(job.current_dir(&other))?.end()?;
        ended.expect_code(ExitCode::OtherJob as i32)?;
        ensure!(ended.err.contains("in another directory") && ended.err.contains("--map-path"), "{ended:#?}");
        ensure!(!other.join("out.txt").exists());
        // Under another name it is the same one.
        std::os::unix::fs::symlink(place.work(), other.join("link"))?;
        Job::start(job.current_dir(other.join("link")))?.end()?.expect_pass()
    })
}

/// Descriptors of a process that lead to the image's lock.
fn has_lock(pid: u32) -> Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        found |= fs::read_link(entry?.path()).is_ok_and(|to| to.to_string_lossy().ends_with(".lock"));
    }
    Ok(found)
}

#[test]
fn one_run_for_an_image() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let guest = place.guest("counter")?;
        let job = |file: &str| run(&place, &["-o", "job.ckpt"], &[&guest.to_string_lossy(), "100000", file, "10"]);
        let refused = |first: &Job, file: &str| -> Result<()> {
            let ended = Job::start(&mut job(file))?.end()?;
            ended.expect_code(ExitCode::InUse as i32)?;
            ensure!(ended.err.contains(&format!("process {} on ", first.process())), "{ended:#?}");
            ensure!(ended.err.lines().count() == 1 && ended.out.is_empty(), "{ended:#?}");
            Ok(())
        };
        let image = place.file("job.ckpt");
        // Before the first image, after it, and after a restart from it; the same command or another.
        for first_time in [true, false] {
            let first = Job::start(&mut job("out.txt"))?;
            first.wait_text("count ")?;
            ensure!(first.out().contains("count 1\n") == first_time, "{}", first.story());
            refused(&first, "out.txt")?;
            refused(&first, "other.txt")?;
            let before = Mark::of(&image);
            first.send(Signal::USR1)?;
            wait::until(|| Ok((Mark::of(&image) != before).then_some(())), || first.story())?;
            refused(&first, "out.txt")?;
            ensure!(has_lock(first.process())? && !has_lock(first.pid())?, "{}", first.story());
            // The kernel gives the lock up for who cannot do it any more.
            first.kill_process()?;
            ensure!(place.file("job.ckpt.lock").exists());
        }
        let mut last = Job::start(&mut job("out.txt"))?;
        last.wait_text("count ")?;
        last.send(Signal::TERM)?;
        last.end()?.expect_code(85)?;
        ensure!(!place.file("job.ckpt.lock").exists() && !place.file("other.txt").exists());
        Ok(())
    })
}

#[test]
fn of_many_at_once_one_runs() -> Result<()> {
    let place = Place::new(User::Own)?;
    let guest = place.guest("counter")?;
    let mut command = run(&place, &["-o", "job.ckpt"], &[&guest.to_string_lossy(), "100000", "out.txt", "10"]);
    let jobs = (0..8).map(|_| Job::start(&mut command)).collect::<Result<Vec<_>>>()?;
    let mut running = Vec::new();
    for mut job in jobs {
        let decided = || {
            Ok((job.out().contains("count 2\n") || !job.err().is_empty() && !job.err().contains("starts"))
                .then_some(()))
        };
        wait::until(decided, || job.story())?;
        if job.out().is_empty() {
            job.end()?.expect_code(ExitCode::InUse as i32)?;
        } else {
            running.push(job);
        }
    }
    ensure!(running.len() == 1, "{} run", running.len());
    running.into_iter().try_for_each(|job| job.kill().map(drop))
}

#[test]
fn after_another_status_it_goes_on_again() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        // Ends with 3 until it may end well.
        let script =
            "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo count $i; sleep 0.02; done; [ -e well ] && exit 0; exit 3";
        let bash = tool("bash", "bash")?;
        let mut command = run(&place, &["-o", "job.ckpt"], &[&bash.to_string_lossy(), "-c", script]);
        save_and_end(&mut command)?;
        for _ in 0..2 {
            let ended = Job::start(&mut command)?.end()?;
            ended.expect_code(3)?;
            ensure!(ended.err.contains("goes on from it") && !ended.out.contains("count 1\n"), "{ended:#?}");
            ensure!(place.file("job.ckpt").exists() && !place.file("job.ckpt.done").exists());
        }
        place.write("well", "")?;
        Job::start(&mut command)?.end()?.expect_code(0)?;
        ensure!(!place.file("job.ckpt").exists() && place.file("job.ckpt.done").exists());
        let verify = place.ckpt().args(["verify", "job.ckpt.done"]).status()?;
        ensure!(verify.success(), "what is done is an image still");
        Ok(())
    })
}

#[test]
fn what_is_no_file_is_no_image() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        fs::write(place.file("true"), "")?;
        std::os::unix::fs::symlink("true", place.file("link"))?;
        fs::create_dir(place.file("dir"))?;
        for name in ["link", "dir", "/dev/null"] {
            let before = fs::symlink_metadata(place.work().join(name))?;
            let ended = Job::start(&mut run(&place, &["-o", name], &["/bin/true"]))?.end()?;
            ended.expect_code(ExitCode::SaveFailed as i32)?;
            ensure!(ended.err.contains("is no regular file"), "{ended:#?}");
            let after = fs::symlink_metadata(place.work().join(name))?;
            ensure!((after.permissions(), after.file_type()) == (before.permissions(), before.file_type()));
        }
        ensure!(!Path::new("/dev/null.lock").exists());
        Ok(())
    })
}
