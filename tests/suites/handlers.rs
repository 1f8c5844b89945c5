//! Processes that are saved while signal handlers run: what these have interrupted goes on with all its registers, whatever form
//! the kernel gave their frames, or the restart says which of them it has no place for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::forge::Forgery;
use ckpt_tests::image::Bytes;
use ckpt_tests::{Job, Place, READY, User};
use image_format::NoteType;
use image_format::record::frame::SignalFrame;

/// Exit code of a restart on a CPU that lacks something.
const CPU: i32 = 79;

/// Frames that the guest has on its stacks.
const FRAMES: usize = 3;

fn frames(place: &Place, image: &Path) -> Result<Vec<serde_json::Value>> {
    let shown = Job::start(place.ckpt().args(["show", "--json"]).arg(image))?.end()?;
    shown.expect_code(0)?;
    let report: serde_json::Value = serde_json::from_str(&shown.out)?;
    let frames = &report["processes"][0]["signal_frames"];
    Ok(frames.as_array().context("no signal_frames")?.clone())
}

#[test]
fn saved_from_outside() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.command(place.guest("handler")?))?;
        job.wait_line(READY)?;
        for options in [&[][..], &["--freeze"], &["--kill"]] {
            place.save(job.pid(), &image, options)?;
            let found = frames(&place, &image)?;
            let avx =
                found.iter().all(|frame| frame["components"].as_array().is_some_and(|all| all.contains(&2.into())));
            ensure!(found.len() == FRAMES && avx, "{options:?}: {found:?}");
        }
        drop(job.end()?);
        // A generation later, too.
        let mut job = Job::start(&mut place.stub(&image))?;
        let next = place.file("next.ckpt");
        place.save(job.pid(), &next, &["--kill"])?;
        drop(job.end()?);
        ensure!(frames(&place, &next)?.len() == FRAMES);
        place.go()?;
        for image in [&image, &next] {
            Job::start(&mut place.stub(image))?.end()?.expect_pass()?;
        }
        Ok(())
    })
}

#[test]
fn saved_by_themselves() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let job = Job::start(&mut place.armed(place.guest("handler")?, &image))?;
        job.wait_line(READY)?;
        job.save_and_kill(&image)?;
        // And those of the handlers that save.
        let found = frames(&place, &image)?;
        ensure!(found.len() == FRAMES + 3, "{found:?}");
        place.go()?;
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()
    })
}

/// A program that is in no handler has no frames, whatever handlers have left below its stacks.
#[test]
fn none_without_handlers() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let job = Job::start(&mut place.command(place.guest("sigaction")?))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &image, &["--kill"])?;
    ensure!(frames(&place, &image)?.is_empty());
    Ok(())
}

/// The image as another CPU would have made it: each component, and the end of the areas, elsewhere in the frames.
fn from_another_cpu(place: &Place, sound: &Path, change: impl Fn(&Forgery) -> Result<Forgery>) -> Result<PathBuf> {
    let forgery = change(&Forgery::of(&Bytes::read(sound)?)?)?;
    // The last one may be read alone.
    let _ = fs::remove_file(place.file("other.ckpt"));
    let path = place.write("other.ckpt", &forgery.sealed().bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
    Ok(path)
}

#[test]
fn another_cpu() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(&mut place.command(place.guest("handler")?))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &image, &["--kill"])?;
    drop(job.end()?);
    place.go()?;
    // AVX of another size has no place here.
    let wide = from_another_cpu(&place, &image, |forgery| {
        let (at, _) = forgery.note(NoteType::Component)?;
        Ok(forgery.clone().put(at + 8, &128u32.to_le_bytes()))
    })?;
    for command in [&mut place.stub(&wide), place.ckpt().arg("restart").arg(&wide)] {
        let ended = Job::start(command)?.end()?;
        ended.expect_code(CPU)?;
        ensure!(
            ended.err.contains("XSAVE component 2 (AVX): in use, and this CPU has none of their kind")
                && ended.out.is_empty(),
            "{ended:#?}"
        );
    }
    // What the table does not name is not given back: the table is what counts, not what lies in the frame.
    let without = from_another_cpu(&place, &image, |forgery| {
        let (at, len) = forgery.note(NoteType::SignalFrame)?;
        let mut forgery = forgery.clone();
        for frame in (at..at + len).step_by(size_of::<SignalFrame>()) {
            forgery = forgery.put(frame + 8, &3u64.to_le_bytes());
        }
        Ok(forgery)
    })?;
    let lost = Job::start(&mut place.stub(&without))?.end()?;
    ensure!(lost.out.contains("FAIL: byte 16 of register 0"), "{lost:#?}");
    Job::start(&mut place.stub(&image))?.end()?.expect_pass()
}

/// Threads that a process's own signal finds in the kernel's code are stepped out of it before the save.
#[test]
fn none_in_the_kernels_code() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.armed(place.guest("clocks")?, &image))?;
        job.wait_line(READY)?;
        for _ in 0..12 {
            job.save(&image)?;
            let shown = Job::start(place.ckpt().args(["show", "--json"]).arg(&image))?.end()?;
            let report: serde_json::Value = serde_json::from_str(&shown.out)?;
            let process = &report["processes"][0];
            let threads = process["threads"].as_array().context("no threads")?;
            let inside =
                |thread: &serde_json::Value| thread["stopped_in"].as_str().is_none_or(|at| at.starts_with("[vdso]"));
            ensure!(threads.len() == 5 && !threads.iter().any(inside), "{threads:#?}");
            ensure!(!process["caught_signals"].to_string().contains("TRAP"), "{}", process["caught_signals"]);
        }
        let status = fs::read_to_string(format!("/proc/{}/status", job.pid()))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
        ensure!(u64::from_str_radix(caught.trim(), 16)? & 1 << 4 == 0, "SIGTRAP is still caught: {caught}");
        place.go()?;
        job.end()?.expect_pass()?;
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()
    })
}
