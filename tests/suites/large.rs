//! Processes that are large in one way: many areas, a huge reservation, many threads, gigabytes with holes. Saved by pid, live
//! and standing still, and restarted twice from the same image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::{Job, Place, READY, User, left_out};

/// Saves the guest, lets it end, and restarts its image twice. `most`: bytes that the image may have.
fn large(kind: &str, number: u64, most: u64) -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(place.command(place.guest("large")?).args([kind, &number.to_string()]))?;
    job.wait_line(READY)?;
    for options in [&["--freeze"][..], &[]] {
        place.save(job.pid(), &image, options)?;
        let len = fs::metadata(&image)?.len();
        ensure!(len <= most, "the image has {len} bytes, more than {most}");
    }
    place.go()?;
    job.end()?.expect_pass()?;
    for _ in 0..2 {
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()?;
    }
    Ok(())
}

#[test]
fn sixty_thousand_areas() -> Result<()> {
    large("areas", 60_000, 200 << 20)
}

#[test]
fn sixteen_tebibytes_reserved() -> Result<()> {
    large("reserved", 16, 16 << 20)
}

#[test]
fn five_hundred_threads() -> Result<()> {
    // Stacks, and several pages of notes for each thread.
    large("threads", 500, 64 << 20)
}

/// What a fork leaves out, wipes or does not lock does not hold up a live save; how it comes back the suite of objects shows.
#[test]
fn what_a_fork_leaves_out_is_saved_live() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        for (guest, arguments) in [("memory", &[][..]), ("lockall", &["all"])] {
            let mut job = Job::start(place.command(place.guest(guest)?).args(arguments))?;
            job.wait_line(READY)?;
            let said = place.save(job.pid(), &place.file("job.ckpt"), &["-v"])?;
            ensure!(!said.out.contains("frozen"), "{guest}: {said:#?}");
            place.go()?;
            job.end()?.expect_pass()?;
            place.halt()?;
        }
        Ok(())
    })
}

/// Bytes of memory that can be had.
fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

#[test]
fn four_gibibytes_with_holes() -> Result<()> {
    let size = 4u64 << 30;
    let touched = size / 2;
    let disk = rustix::fs::statvfs(Path::new(&std::env::temp_dir()))?;
    let room = disk.f_bavail * disk.f_frsize;
    // The process, its page tables, its restart, and the image twice: the old one and the new one.
    if available()? < touched * 5 / 2 || room < touched * 5 / 2 {
        let why = format!("{} bytes of memory and {room} of disk do not suffice", available()?);
        return Err(left_out::whole(Needs::Machine, why));
    }
    // Each page is a segment of its own: 64 bytes of header and checksum.
    large("holes", size >> 20, touched + touched / 50)
}
