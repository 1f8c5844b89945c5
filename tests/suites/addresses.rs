//! Images that occupy addresses which a restart would like to have for itself.

use std::fs;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Bytes;
use ckpt_tests::{Job, Place, READY, User, dist};
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Saves a guest that occupies something, kills it, restarts it twice over, and expects it to pass.
fn restarts(user: User, guest: &str, arguments: &[String], look: impl Fn(&Bytes) -> Result<()>) -> Result<()> {
    let place = Place::new(user)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(place.armed(place.guest(guest)?, &image).args(arguments))?;
    job.wait_line(READY)?;
    for _ in 0..2 {
        job.save_and_kill(&image)?;
        look(&Bytes::read(&image)?)?;
        job = Job::start(&mut place.stub(&image))?;
        job.wait_armed()?;
    }
    place.go()?;
    job.end()?.expect_pass()
}

#[test]
fn the_lowest_page() -> Result<()> {
    User::each(|user| restarts(user, "lowpage", &[], |_| Ok(())))
}

/// First address and length of the stub's link window, in whole pages.
fn stub_window() -> Result<(u64, u64)> {
    let bytes = fs::read(dist::dir()?.join("restart-stub"))?;
    let header = FileHeader64::<object::Endianness>::parse(bytes.as_slice())?;
    let endian = header.endian()?;
    let loads = header.program_headers(endian, bytes.as_slice())?.iter().filter(|p| p.p_type(endian) == PT_LOAD);
    let spans: Vec<_> = loads.map(|p| (p.p_vaddr(endian), p.p_vaddr(endian) + p.p_memsz(endian))).collect();
    let start = spans.iter().map(|s| s.0).min().context("no segment")? & !4095;
    let end = spans.iter().map(|s| s.1).max().context("no segment")?.next_multiple_of(4096);
    Ok((start, end - start))
}

#[test]
fn the_stubs_own_window() -> Result<()> {
    let (start, len) = stub_window()?;
    ensure!(len >= 4096, "the stub's window is {len} bytes");
    User::each(|user| restarts(user, "stubwindow", &[format!("{start:x}"), format!("{len:x}")], |_| Ok(())))
}

#[test]
fn all_around_the_stubs_window() -> Result<()> {
    let (start, len) = stub_window()?;
    let wider = (start.saturating_sub(64 << 20).max(1 << 20), len + (128 << 20));
    User::each(|user| restarts(user, "stubwindow", &[format!("{:x}", wider.0), format!("{:x}", wider.1)], |_| Ok(())))
}

#[test]
fn nearly_the_whole_address_space() -> Result<()> {
    User::each(|user| {
        restarts(user, "nearlyall", &[], |bytes| {
            let len = bytes.as_slice().len();
            ensure!(len < 64 << 20, "reservations take room in the image: {len} bytes");
            Ok(())
        })
    })
}

#[test]
fn more_segments_than_an_elf_header_counts() -> Result<()> {
    User::each(|user| {
        restarts(user, "manysegs", &[], |bytes| {
            let count = bytes.image()?.segments().count();
            ensure!(count > 65_534, "only {count} segments: the test shows nothing");
            Ok(())
        })
    })
}
