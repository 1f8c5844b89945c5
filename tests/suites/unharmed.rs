//! What a save by pid must never do to the process: not when the saver is killed at any moment, not while the process makes
//! threads, children or other programs of itself all the time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::{Mark, expect_sound};
use ckpt_tests::programs::Link;
use ckpt_tests::remote::{ends_within, random};
use ckpt_tests::traces::{Still, Traces};
use ckpt_tests::{Ended, Job, Place, READY, User, left_out, proc, wait};
use image_format::ExitCode;

/// How often a saver is killed, for each way of saving.
const MOMENTS: u32 = 50;

/// One storm at a time: each keeps the machine busy, and moments are shares of the time that a save takes.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No save may take longer, whatever the process does.
const LIMIT: Duration = Duration::from_secs(10);

/// Kills savers of `pid` at random moments of their lives; the process must each time become again as it was. Ends early when
/// the process does. Returns how many were killed.
fn kill_savers(place: &Place, pid: u32, image: &Path, freeze: bool, moments: u32, still: Still) -> Result<u32> {
    let before = match Traces::of(pid, still) {
        Err(_) if ends_within(pid, Duration::from_millis(200))? => return Ok(0),
        before => before?,
    };
    let options: &[&str] = if freeze { &["--freeze"] } else { &[] };
    let saver = || {
        let mut command = place.ckpt();
        command.arg("save").arg(pid.to_string()).arg("-o").arg(image).args(options);
        Job::start(&mut command)
    };
    let mut undisturbed = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let mut job = saver()?;
        ends_within(job.pid(), LIMIT)?;
        undisturbed = undisturbed.min(start.elapsed());
        let ended = job.end()?;
        if ended.code() != Some(0) {
            ensure!(ends_within(pid, Duration::from_millis(200))?, "not saved: {ended:#?}");
            return Ok(0);
        }
    }
    let mut killed = 0;
    for moment in 0..moments {
        let job = saver()?;
        let within = undisturbed.mul_f64(1.2 * random());
        ends_within(job.pid(), within)?;
        killed += u32::from(job.kill()?.code().is_none());
        if ends_within(pid, Duration::ZERO)? {
            break;
        }
        if let Err(error) = before.wait_again(pid, still) {
            // Its first thread may be seen to have ended before the last one has: how it ended is the caller's to judge.
            if ends_within(pid, Duration::from_millis(200))? {
                break;
            }
            return Err(error.context(format!("saver {moment}, killed after {within:?} of {undisturbed:?}")));
        }
        expect_sound(image)?;
    }
    Ok(killed)
}

/// A guest that waits for the word to go on: its savers are killed, then it is saved, and both it and its image must pass.
fn survives(name: &str, arguments: &[&str], link: Link, freeze: bool, moments: u32) -> Result<()> {
    User::each(|user| survives_as(user, (name, arguments, link), freeze, moments))
}

fn survives_as(user: User, guest: (&str, &[&str], Link), freeze: bool, moments: u32) -> Result<()> {
    let (place, image) = goes_on_as(user, guest, freeze, moments)?;
    Job::start(place.ckpt().arg("restart").arg(&image))?.end()?.expect_pass()
}

/// The process alone; and its image.
fn goes_on_as(
    user: User,
    (name, arguments, link): (&str, &[&str], Link),
    freeze: bool,
    moments: u32,
) -> Result<(Place, PathBuf)> {
    let _turn = turn();
    let place = Place::new(user)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(place.command(place.linked_guest(name, link)?).args(arguments))?;
    job.wait_line(READY)?;
    let before = Traces::of(job.pid(), Still::All)?;
    let start = Instant::now();
    let killed =
        kill_savers(&place, job.pid(), &image, freeze, moments, Still::AllButMemory).with_context(|| job.story())?;
    ensure!(killed > moments / 10, "only {killed} of {moments} savers were killed");
    println!("{name}: {killed} of {moments} savers killed, {:?}", start.elapsed());
    place.save(job.pid(), &image, &[])?;
    before.wait_again(job.pid(), Still::All)?;
    place.go()?;
    job.end()?.expect_pass()?;
    Ok((place, image))
}

#[test]
fn a_killed_saver_of_threads_at_work() -> Result<()> {
    survives("threads8", &[], Link::Dynamic, false, MOMENTS)
}

#[test]
fn a_killed_saver_of_threads_that_stand_still() -> Result<()> {
    survives("threads8", &[], Link::Dynamic, true, MOMENTS)
}

#[test]
fn a_killed_saver_of_blocked_calls() -> Result<()> {
    survives("blocked", &["stoppable"], Link::Dynamic, false, MOMENTS)?;
    survives("blocked", &["stoppable"], Link::Static, true, MOMENTS)
}

/// What is taken out of terminals, and how sockets are looked into, for a moment: it is put back while the process stands still.
#[test]
fn a_killed_saver_of_terminals_and_sockets() -> Result<()> {
    survives("ptydata", &[], Link::Dynamic, false, MOMENTS)?;
    survives("ptydata", &[], Link::Dynamic, true, MOMENTS)?;
    survives("socket", &[], Link::Dynamic, false, MOMENTS)?;
    // The kernel shows an empty message to whoever looks first alone: not to the last save.
    User::each(|user| goes_on_as(user, ("unix", &[], Link::Dynamic), true, MOMENTS).map(drop))
}

/// A tree of processes, none of which may be left stopped, or traced, by a saver that dies.
#[test]
fn a_killed_saver_of_a_tree() -> Result<()> {
    let _turn = turn();
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.command(place.guest("process")?))?;
        job.wait_line(READY)?;
        let mut all: Vec<(u32, Traces)> = Vec::new();
        for pid in proc::children(job.pid()) {
            // Those that have ended leave no traces.
            all.extend(Traces::of(pid, Still::All).ok().map(|traces| (pid, traces)));
        }
        ensure!(all.len() == 5, "{} children live", all.len());
        let mut killed = 0;
        for freeze in [false, true] {
            killed += kill_savers(&place, job.pid(), &image, freeze, MOMENTS / 5, Still::AllButMemory)
                .with_context(|| job.story())?;
        }
        ensure!(killed > MOMENTS / 10, "only {killed} savers were killed");
        // The saver's own page may be left, which the next one takes away.
        place.save(job.pid(), &image, &[])?;
        for (pid, traces) in &all {
            traces.wait_again(*pid, Still::All).with_context(|| format!("child {pid}"))?;
        }
        place.go()?;
        job.end()?.expect_pass()?;
        Job::start(place.ckpt().arg("restart").arg(&image))?.end()?.expect_pass()
    })
}

/// Filters that are live again the instant the saver is killed, and one that would end the process for some calls.
#[test]
fn a_killed_saver_of_a_filtered_process() -> Result<()> {
    left_out::unless_root("filters are told to root alone")?;
    for freeze in [false, true] {
        survives_as(User::Own, ("seccomp", &[], Link::Dynamic), freeze, MOMENTS)?;
    }
    Ok(())
}

/// A program that does not wait for us is started as often as needed.
#[test]
fn a_killed_saver_of_a_job() -> Result<()> {
    let _turn = turn();
    User::each(|user| {
        let place = Place::new(user)?;
        let program = place.guest("chain")?;
        let expected = Job::start(&mut place.command(&program))?.end()?.out;
        let (mut killed, mut runs, start) = (0, 0, Instant::now());
        while killed < MOMENTS {
            ensure!(runs < 100, "only {killed} savers were killed in {runs} runs");
            let image = place.file(format!("{runs}.ckpt"));
            let mut job = Job::start(&mut place.command(&program))?;
            job.wait_text("step 250 ")?;
            killed += kill_savers(&place, job.pid(), &image, runs % 2 == 1, 25, Still::AllButMemory)?;
            let saved = place.try_save(job.pid(), &image, &[])?.code() == Some(0);
            let ended = job.end()?;
            ensure!(ended.out == expected && ended.err.is_empty() && ended.status.success(), "{ended:#?}");
            if saved {
                let restarted = Job::start(&mut place.stub(&image))?.end()?;
                restarted.expect_pass()?;
                ensure!(expected.ends_with(&restarted.out), "{restarted:#?}");
            }
            runs += 1;
            println!("chain: {killed} savers killed in {runs} runs, {:?}", start.elapsed());
        }
        Ok(())
    })
}

#[test]
fn the_copy_is_never_seen() -> Result<()> {
    User::each(|user| {
        for link in [Link::Dynamic, Link::Static] {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(&mut place.command(place.linked_guest("watcher", link)?))?;
            job.wait_line(READY)?;
            let (mut saved, mut tried) = (0, 0);
            while saved < 50 {
                let said = place.try_save(job.pid(), &image, &[])?;
                // Now and then it is met while it reads in /proc.
                let reads = said.err.contains("/proc") && tried < 1000;
                ensure!(said.code() == Some(0) || reads, "not saved: {said:#?}, {}", job.story());
                ensure!(!said.err.contains("frozen"), "not live: {said:#?}");
                saved += u32::from(said.code() == Some(0));
                tried += 1;
            }
            place.go()?;
            job.end()?.expect_pass()?;
        }
        Ok(())
    })
}

/// Whether a save was made; one that was refused must say why, in one line, and both within the limit.
fn saved_or_named(ended: &Ended, took: Duration, image: &Path, before: Mark) -> Result<bool> {
    ensure!(took < LIMIT, "it took {took:?}: {ended:#?}");
    if ended.code() == Some(0) {
        expect_sound(image)?;
        return Ok(true);
    }
    ended.expect_code(ExitCode::SaveFailed as i32)?;
    ensure!(ended.err.starts_with("ckpt: ") && ended.err.lines().count() == 1, "{ended:#?}");
    ensure!(Mark::of(image) == before, "another image in spite of a refusal");
    Ok(false)
}

/// Saves a guest that is never the same `times` times, then lets it and its last images end. Returns the refusals.
fn storm(user: User, kind: &str, number: &str, link: Link, times: usize) -> Result<Vec<String>> {
    let _turn = turn();
    let place = Place::new(user)?;
    let mut job = Job::start(place.command(place.linked_guest("storm", link)?).args([kind, number]))?;
    job.wait_line(READY)?;
    let mut images: Vec<PathBuf> = Vec::new();
    let mut refusals = Vec::new();
    for i in 0..times {
        let image = place.file(format!("{}.ckpt", i % 4));
        let before = Mark::of(&image);
        let start = Instant::now();
        let options: &[&str] = if i % 2 == 1 { &["--freeze"] } else { &[] };
        let ended = place.try_save(job.pid(), &image, options)?;
        if saved_or_named(&ended, start.elapsed(), &image, before).with_context(|| format!("save {i}"))? {
            images.retain(|old| *old != image);
            images.push(image);
        } else {
            refusals.push(ended.err);
        }
        ensure!(!ends_within(job.pid(), Duration::ZERO)?, "after save {i}: {}", job.story());
    }
    place.go()?;
    let ended = job.end()?;
    ended.expect_pass()?;
    ensure!(ended.err.is_empty(), "{ended:#?}");
    for image in &images {
        // It may have been saved with a child, whose id `ckpt` alone can give.
        Job::start(place.ckpt().arg("restart").arg(image))?.end()?.expect_pass()?;
    }
    println!("{kind} {number}: {} of {times} saves refused: {:?}", refusals.len(), refusals.first());
    Ok(refusals)
}

#[test]
fn threads_that_come_and_go() -> Result<()> {
    User::each(|user| {
        for link in [Link::Dynamic, Link::StaticMusl] {
            let refusals = storm(user, "threads", "0", link, 40)?;
            ensure!(refusals.len() < 20, "most saves were refused: {refusals:?}");
        }
        Ok(())
    })
}

#[test]
fn one_program_after_the_other() -> Result<()> {
    User::each(|user| {
        for link in [Link::Dynamic, Link::Static] {
            storm(user, "exec", "0", link, 40)?;
        }
        Ok(())
    })
}

#[test]
fn children_that_come_and_go() -> Result<()> {
    User::each(|user| {
        let refusals = storm(user, "fork", "0", Link::Dynamic, 40)?;
        let named = refusals.iter().all(|line| line.contains("child") || line.contains("is not there"));
        ensure!(named, "{refusals:#?}");
        Ok(())
    })
}

#[test]
fn children_of_vfork() -> Result<()> {
    User::each(|user| {
        storm(user, "vfork", "0", Link::Dynamic, 20)?;
        storm(user, "vfork", "20", Link::Dynamic, 10).map(drop)
    })
}

/// The process cannot be stopped while its child has its memory: the save is given up in time, and so is one that is killed.
#[test]
fn a_child_of_vfork_that_takes_its_time() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(place.command(place.guest("storm")?).args(["vfork", "13000"]))?;
    job.wait_line(READY)?;
    // A saver is faster than that.
    wait::until(|| Ok(proc::children(job.pid()).first().copied()), || format!("no child: {}", job.story()))?;
    let start = Instant::now();
    let refused = place.try_save(job.pid(), &image, &[])?;
    let took = start.elapsed();
    ensure!(took < LIMIT + Duration::from_secs(1), "it took {took:?}: {refused:#?}");
    refused.expect_code(ExitCode::SaveFailed as i32)?;
    ensure!(refused.err.contains("vfork"), "{refused:#?}");
    place.go()?;
    job.end()?.expect_pass()?;
    ensure!(proc::state(job.pid()).is_none(), "it is still there");
    Ok(())
}
