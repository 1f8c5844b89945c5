//! Another box has the files elsewhere, lacks them, or has others: they are found, brought back, or named.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, programs};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A program that has its files in this directory, and will look for them in that one.
fn start(place: &Place, home: &Path, later: &Path) -> Result<Job> {
    fs::create_dir(home)?;
    place.give(home)?;
    fs::write(home.join("data"), "ABCDEF")?;
    place.give(&home.join("data"))?;
    let program = place.write("places.py", fs::read(programs::sources().join("places.py"))?)?;
    let mut command = place.command(tool("python3", "python3")?);
    let job = Job::start(command.arg(program).arg(home).arg(later))?;
    job.wait_line(READY)?;
    Ok(job)
}

fn saved(place: &Place, mut job: Job, options: &[&str]) -> Result<PathBuf> {
    let image = place.file("job.ckpt");
    place.save(job.pid(), &image, &[&["--kill"], options].concat())?;
    drop(job.end()?);
    Ok(image)
}

#[test]
fn a_prefix_moves() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (home, later) = (place.file("old"), place.file("a longer name"));
        let image = saved(&place, start(&place, &home, &later)?, &[])?;
        fs::rename(&home, &later)?;
        let missing = Job::start(&mut place.stub(&image))?.end()?;
        missing.expect_code(81)?;
        let named = missing.err.contains(&format!("directory {}/", home.display()));
        ensure!(named, "{missing:#?}");
        // Neither a part of a name, nor another directory, is the prefix.
        let wrong = format!("{}={}", place.file("ol").display(), later.display());
        Job::start(place.stub(&image).args(["--map-path", &wrong]))?.end()?.expect_code(81)?;
        place.go()?;
        let right = format!("{}/={}/", home.display(), later.display());
        for stub in [true, false] {
            let mut command = if stub { place.stub(&image) } else { place.ckpt() };
            if !stub {
                command.arg("restart").arg(&image);
            }
            let right = if stub { right.replace("/=", "=").trim_end_matches('/').to_owned() } else { right.clone() };
            let ended =
                Job::start(command.args(["--files", "ignore", "--map-path", &wrong, "--map-path", &right]))?.end()?;
            ended.expect_pass()?;
            fs::write(later.join("log"), "before\n")?;
            fs::write(later.join("map"), "m".repeat(8192))?;
            fs::remove_file(later.join("new"))?;
        }
        Ok(())
    })
}

#[test]
fn wrong_prefixes() -> Result<()> {
    let place = Place::new(User::Own)?;
    for wrong in ["x", "a=b", "/a", "=/b", "/a=b"] {
        Job::start(place.ckpt().args(["restart", "--map-path", wrong, "x.ckpt"]))?.end()?.expect_code(64)?;
    }
    Ok(())
}

/// Files that are missing come back from the image, with contents, mode and time; those that are there are never touched.
#[test]
fn files_come_along() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let home = place.file("home");
        let job = start(&place, &home, &home)?;
        fs::set_permissions(home.join("data"), fs::Permissions::from_mode(0o640))?;
        let before = fs::metadata(home.join("data"))?;
        // Written ones only: the other is missed.
        let image = place.file("written.ckpt");
        place.save(job.pid(), &image, &["--with-files"])?;
        let carried = saved(&place, job, &["--with-files=all"])?;
        let shown = Job::start(place.ckpt().arg("show").arg(&image))?.end()?;
        ensure!(shown.out.contains("carried-files"), "{shown:#?}");
        fs::rename(home.join("data"), home.join("data.away"))?;
        fs::remove_file(home.join("log"))?;
        let missing = Job::start(&mut place.stub(&image))?.end()?;
        missing.expect_code(81)?;
        ensure!(missing.err.contains("/data") && fs::read(home.join("log"))? == b"before\n", "{missing:#?}");
        fs::remove_file(home.join("data.away"))?;
        fs::remove_file(home.join("log"))?;
        place.go()?;
        let ended = Job::start(&mut place.stub(&carried))?.end()?;
        ensure!(ended.code() == Some(0) && ended.out.lines().last() == Some("PASS"), "{ended:#?}");
        ensure!(ended.err.matches("was missing: restored").count() == 2, "{ended:#?}");
        let after = fs::metadata(home.join("data"))?;
        let facts = |m: &fs::Metadata| (m.mode(), m.len(), m.mtime(), m.mtime_nsec());
        ensure!(facts(&before) == facts(&after), "{before:?} {after:?}");
        // Another file under the name stays, and is named.
        fs::write(home.join("data"), "abcdef")?;
        fs::remove_file(home.join("log"))?;
        let other = Job::start(&mut place.stub(&carried))?.end()?;
        other.expect_code(83)?;
        ensure!(other.err.contains("/data") && fs::read(home.join("data"))? == b"abcdef", "{other:#?}");
        // Without its directory nothing can be brought back.
        fs::remove_dir_all(&home)?;
        let nowhere = Job::start(&mut place.stub(&carried))?.end()?;
        nowhere.expect_code(81)?;
        let named = format!("directory {}/: is missing, and cannot be restored", home.display());
        ensure!(nowhere.err.contains(&named), "{nowhere:#?}");
        Ok(())
    })
}

/// Small files that are only mapped are carried always: what somebody took for a leftover is there again. Large ones when asked for.
#[test]
fn mapped_files_come_along() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let home = place.file("home");
        let image = saved(&place, start(&place, &home, &home)?, &[])?;
        fs::remove_file(home.join("counters"))?;
        place.go()?;
        let ended = Job::start(&mut place.stub(&image))?.end()?;
        ensure!(ended.code() == Some(0) && ended.out.lines().last() == Some("PASS"), "{ended:#?}");
        ensure!(ended.err.contains("/counters was missing: restored"), "{ended:#?}");
        Ok(())
    })
}

/// A restart that is killed in the middle leaves no file that is not whole.
#[test]
fn a_killed_restart_leaves_no_half_of_a_file() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let home = place.file("home");
        let image = saved(&place, start(&place, &home, &home)?, &["--with-files"])?;
        fs::remove_file(home.join("map"))?;
        let mut command = place.stub(&image);
        // SAFETY: a system call alone.
        unsafe {
            command.pre_exec(|| {
                let limit = Rlimit { current: Some(4096), maximum: Some(4096) };
                Ok(setrlimit(Resource::Fsize, limit)?)
            });
        }
        let killed = Job::start(&mut command)?.end()?;
        ensure!(!killed.status.success() && !home.join("map").exists(), "{killed:#?}");
        place.go()?;
        let ended = Job::start(&mut place.stub(&image))?.end()?;
        ensure!(ended.code() == Some(0) && ended.out.lines().last() == Some("PASS"), "{ended:#?}");
        Ok(())
    })
}
