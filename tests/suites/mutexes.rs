//! Locks that name their holder by its thread id are its own after a restart, and so is all that a C library derives from ids: they are kept.

use anyhow::{Context, Result};
use ckpt_tests::programs::Link;
use ckpt_tests::{Job, Place, READY, User};

/// Ways to restart.
const WAYS: [&[&str]; 2] = [&[], &["--namespace"]];

/// Saves the guest by pid; its image, and that of its restarted self, must pass.
fn held(link: Link) -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (first, second) = (place.file("first.ckpt"), place.file("second.ckpt"));
        let restart = |image, way: &[&str]| {
            let mut command = place.ckpt();
            command.arg("restart").args(way).arg(image);
            Job::start(&mut command)
        };
        let mut job = Job::start(&mut place.command(place.linked_guest("mutexes", link)?))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &first, &["--kill"])?;
        drop(job.end()?);
        let mut job = restart(&first, WAYS[0])?;
        place.save(job.pid(), &second, &["--kill"])?;
        drop(job.end()?);
        place.go()?;
        for image in [&first, &second] {
            for way in WAYS {
                let ended = restart(image, way)?.end()?;
                ended.expect_pass().with_context(|| format!("{way:?} of {}", image.display()))?;
            }
        }
        Ok(())
    })
}

#[test]
fn of_glibc() -> Result<()> {
    held(Link::Dynamic)
}

#[test]
fn of_static_glibc() -> Result<()> {
    held(Link::Static)
}

#[test]
fn of_static_musl() -> Result<()> {
    held(Link::StaticMusl)
}
