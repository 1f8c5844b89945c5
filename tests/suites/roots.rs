//! Directories that a process stands in and that are not what they were: another root, one that was removed.

use std::fs;

use anyhow::{Result, ensure};
use ckpt_tests::{Job, Place, READY, User, left_out};

const DEBIANS: &str = "/usr/bin/python3";

/// A program that does this, says that it is ready, waits for a line, and passes.
fn start(place: &Place, what: &str) -> Result<Job> {
    let program = format!(
        "import os, sys\n{what}\nprint('{READY}', flush=True)\nsys.stdin.readline()\nprint('PASS', flush=True)"
    );
    let job = Job::start(place.command(DEBIANS).args(["-c", &program]))?;
    job.wait_line(READY)?;
    Ok(job)
}

/// A live save, and `ckpt check`, both say all of this; the program goes on.
fn refused(place: &Place, mut job: Job, words: &[&str]) -> Result<()> {
    let image = place.file("job.ckpt");
    let saved = place.try_save(job.pid(), &image, &[])?;
    let checked = Job::start(place.ckpt().args(["check", &job.pid().to_string()]))?.end()?;
    for word in words {
        ensure!(saved.code() == Some(88) && saved.err.contains(word), "not '{word}': {saved:#?}");
        ensure!(checked.code() != Some(0) && checked.out.contains(word), "not '{word}': {checked:#?}");
    }
    ensure!(!image.exists(), "an image was left");
    job.type_in("\n")?;
    job.end()?.expect_pass()
}

#[test]
fn another_root() -> Result<()> {
    left_out::unless_root("only root can change its root")?;
    let place = Place::new(User::Own)?;
    let (inside, work) = (place.file("root"), place.work());
    fs::create_dir(&inside)?;
    for (what, name) in [("os.chroot('root'); os.chdir('/')", &inside), ("os.chroot('.')", &work)] {
        let job = start(&place, what)?;
        refused(&place, job, &["root directory", &name.display().to_string(), "chroot"])?;
    }
    Ok(())
}

/// Moved or removed while the program stands in it: it is called as it is called now.
#[test]
fn another_root_that_is_not_where_it_was() -> Result<()> {
    left_out::unless_root("only root can change its root")?;
    let place = Place::new(User::Own)?;
    let (inside, moved) = (place.file("root"), place.file("moved"));
    fs::create_dir(&inside)?;
    let job = start(&place, "os.chroot('root')")?;
    fs::rename(&inside, &moved)?;
    refused(&place, job, &["root directory", &moved.display().to_string(), "chroot"])?;
    let job = start(&place, "os.chroot('moved')")?;
    fs::remove_dir(&moved)?;
    refused(&place, job, &["root directory", &format!("{} (deleted)", moved.display())])
}

/// It is entered by the name that it has now; and one that was moved after the save is missed by its name.
#[test]
fn a_moved_working_directory() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (image, moved, again) = (place.file("job.ckpt"), place.file("moved"), place.file("again"));
        let mut job = start(&place, "os.mkdir('here'); os.chdir('here'); open('file', 'w').close()")?;
        fs::rename(place.file("here"), &moved)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        fs::rename(&moved, &again)?;
        let failed = Job::start(&mut place.stub(&image))?.end()?;
        ensure!(failed.code() == Some(81) && failed.err.contains("/moved") && failed.out.is_empty(), "{failed:#?}");
        let map = format!("{}={}", moved.display(), again.display());
        let mut job = Job::start(place.stub(&image).args(["--map-path", &map]))?;
        job.type_in("\n")?;
        job.end()?.expect_pass()?;
        fs::rename(&again, &moved)?;
        let mut job = Job::start(&mut place.stub(&image))?;
        job.type_in("\n")?;
        job.end()?.expect_pass()
    })
}

#[test]
fn a_removed_working_directory() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        // A relative name that leads nowhere, before and after.
        let mut job = start(&place, "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')")?;
        let image = place.file("gone.ckpt");
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        // Twice, from another directory, the second time where the parent is gone, too.
        for parent in [true, false] {
            let mut command = place.stub(&image);
            if !parent {
                command.args(["--map-path", &format!("{}=/nowhere", place.work().display())]);
            }
            job = Job::start(&mut command)?;
            job.type_in("\n")?;
            job.end()?.expect_pass()?;
        }
        // A name that ends alike is one.
        let mut job = start(&place, "os.mkdir('not (deleted)'); os.chdir('not (deleted)')")?;
        let saved = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        ensure!(saved.code() == Some(0), "{saved:#?}");
        job.type_in("\n")?;
        job.end()?.expect_pass()
    })
}

#[test]
fn a_working_directory_that_is_gone_at_the_restart() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = start(&place, "os.mkdir('gone'); os.chdir('gone')")?;
        let (image, gone) = (place.file("job.ckpt"), place.file("gone"));
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        fs::remove_dir(&gone)?;
        let failed = Job::start(&mut place.stub(&image))?.end()?;
        let named = ["working directory", "/gone", "create it again"].iter().all(|word| failed.err.contains(word));
        ensure!(failed.code() == Some(81) && named && failed.out.is_empty(), "{failed:#?}");
        fs::create_dir(&gone)?;
        let mut job = Job::start(&mut place.stub(&image))?;
        job.type_in("\n")?;
        job.end()?.expect_pass()
    })
}
