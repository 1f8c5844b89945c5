//! Saves any process by its pid, with its children and theirs, from outside: no root, no preparation, no library in it.
//!
//! ```text
//! seize ─► stop all threads ─► registers ─► objects ─► copy-on-write copy ─► let go ─► the copy, memory ─► seal
//!          └───────────────────────────── the pause ─────────────────────────────┘
//! ```
//!
//! Must never change the process for good: what is put into it for a moment is taken out again, and if this process is
//! killed meanwhile, resumes the thread by itself.

mod ahead;
mod arena;
mod confined;
mod connections;
mod copy;
mod dry_run;
mod filters;
mod frozen;
mod injected;
mod kind;
mod member;
mod outside;
mod place;
mod procfs;
mod request;
mod resume;
mod spin;
mod status;
mod stop;
mod stopped_tree;
mod target;
mod thread;
mod tracer;
mod tree;
mod untouched;
mod waits;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::vec::Vec;

use state::process::restarting::Part;
use state::{Error, ErrorKind, Result};

use self::arena::Arena;
pub use self::connections::Shielded;
pub use self::dry_run::{blockers, shows_descriptors};
use self::filters::Surroundings;
pub use self::request::{Ending, Options, Report, Tcp};
use self::target::Pause;
use self::tree::Found;
use self::waits::Waits;
use crate::origin::Origin;
use crate::output::{Output, Placing};
use crate::session::tree::Member;
use crate::session::{self, Facts};
pub use crate::session::{Job, command};

/// How often a process is tried that keeps calling exec, or making threads, or of which something is gone when it is looked at.
const ATTEMPTS: u32 = 20;

/// How often of these it is let go on meanwhile.
const LIVE_ATTEMPTS: u32 = 4;

/// Between two attempts.
const MOMENT: Duration = Duration::from_millis(1);

/// Where an image goes.
pub enum Destination<'a> {
    /// A file, replaced by rename when the image is whole and durable.
    File(&'a Path),
    /// A pipe or a socket, written in one forward pass.
    Stream(OwnedFd),
    /// The same; when all is written it is closed, and whoever took the bytes says whether the image has arrived. Only
    /// then has it been saved, and only then does `kill` end the process, which stands still until then with it.
    Arrives(OwnedFd, &'a mut dyn FnMut() -> Result<()>),
}

impl Destination<'_> {
    /// Waits until the bytes are where they shall be.
    fn arrives(&mut self) -> Result<()> {
        let Self::Arrives(..) = self else { return Ok(()) };
        match core::mem::replace(self, Self::File(Path::new(""))) {
            Self::Arrives(fd, taken) => {
                drop(fd);
                taken()
            }
            _ => Ok(()),
        }
    }
}

/// The program that process `pid` supervises after a restart, or that process itself. Who restarts a program by the stub knows the stub's process.
///
/// # Errors
/// There is no such process, or its program has ended.
pub fn program(pid: i32) -> Result<i32> {
    let Part::Supervisor(program) = Part::of(member::directory(pid)?.fd()) else { return Ok(pid) };
    let parent = member::directory(program).and_then(|proc| {
        state::target::parent(proc.fd())
            .map_err(|e| Error::failed(format_args!("process {program}"), "cannot be read", e))
    });
    if parent.is_ok_and(|parent| parent == pid.cast_unsigned()) {
        return Ok(program);
    }
    let why = "supervises a program of another pid namespace, or one that has ended";
    Err(Error::refused(format_args!("process {pid}"), why, "save the program by its own id"))
}

/// Saves process `pid` with all processes that descend from it; they go on.
///
/// # Errors
/// It may not be traced, it holds something that cannot be carried, or the image cannot be written. It goes on, and an
/// older image is whole.
pub fn save(pid: i32, mut to: Destination<'_>, options: Options<'_>) -> Result<Report> {
    let started = Instant::now();
    let mut output = match &to {
        Destination::File(path) => {
            let path = std::path::absolute(path).map_err(|_| Error::from(image_format::writer::Full))?;
            let placing = Placing { guarded: true, ..options.placing };
            Output::create(path.as_os_str().as_bytes(), placing)?
        }
        Destination::Stream(fd) | Destination::Arrives(fd, _) => Output::stream(std::os::fd::AsRawFd::as_raw_fd(fd)),
    };
    output.asks(options.given_up, options.progress);
    let mut pause = if options.freeze || options.kill { Pause::Frozen } else { Pause::Live };
    let waits = Waits::since(started);
    let (mut frozen, mut executed, mut raced) = (None, 0, 0);
    while executed < ATTEMPTS {
        output.check()?;
        // Whoever is being restarted may turn out to be a supervisor.
        let pid = program(pid)?;
        match attempt(pid, pause, options, &mut output, &mut to) {
            Ok(Attempt::Done(mut report)) => {
                report.total = started.elapsed();
                report.frozen = report.frozen.or(frozen);
                return Ok(report);
            }
            Ok(Attempt::Executed) => executed += 1,
            Ok(Attempt::Restarting) => waits.for_restart(pid)?,
            // Whatever a copy lacks, the process itself has; but a stream cannot begin anew.
            Ok(Attempt::CopyFailed(_, why))
                if why.is(ErrorKind::Wiped) && pause == Pause::Live && output.restart().is_ok() =>
            {
                pause = Pause::Whole;
                continue;
            }
            Ok(Attempt::CopyFailed(lacking, _)) if output.restart().is_ok() => {
                (pause, frozen) = (Pause::Frozen, Some(lacking));
                continue;
            }
            Err(e) if e.is(ErrorKind::NoRoomInside) => waits.for_exec(e)?,
            Err(e) if e.is(ErrorKind::EventsWait) || e.is(ErrorKind::InFlight) => waits.for_reader(e)?,
            Ok(Attempt::Raced(e)) | Err(e) if e.is_passing() && raced < ATTEMPTS => {
                raced += 1;
                if raced >= LIVE_ATTEMPTS && pause != Pause::Frozen {
                    (pause, frozen) = (Pause::Frozen, Some("what it maps is gone as soon as it goes on"));
                }
                std::thread::sleep(MOMENT);
            }
            // Who supervises the program need not be told to.
            Err(why) if why.is(ErrorKind::NotTraced) && options.job.is_some() => {
                return Err(why.remedy("`ckpt check` tells what this system allows"));
            }
            Ok(Attempt::CopyFailed(_, why) | Attempt::Raced(why) | Attempt::Ended(why)) | Err(why) => return Err(why),
        }
        output.restart()?;
    }
    Err(Error::refused(
        format_args!("process {pid}"),
        "starts one program, or one thread, after the other",
        "save it when it has settled",
    ))
}

enum Attempt {
    Done(Report),
    Executed,
    /// The restart stub is still at work in it.
    Restarting,
    /// What it lacks, and how that was noticed.
    CopyFailed(&'static str, Error),
    /// One has ended when all was saved, so that nobody knows whether the image is what was asked for.
    Ended(Error),
    /// Something was gone, or changed, when it was looked at.
    Raced(Error),
}

fn attempt(
    pid: i32,
    pause: Pause,
    options: Options<'_>,
    output: &mut Output,
    to: &mut Destination<'_>,
) -> Result<Attempt> {
    let proc = member::directory(pid)?;
    kind::check(pid, &proc)?;
    kind::is_not_above(pid)?;
    if Part::of(proc.fd()) == Part::Restarting {
        return Ok(Attempt::Restarting);
    }
    // All that can be done while it runs.
    let surroundings = Surroundings::of(pid, options.job.is_some())?;
    let seized = member::Seized::new(pid, proc, options.ending.map(|ending| ending.signal), surroundings)?;
    let mut common = Arena::map()?;
    common.warm(seized.threads());
    let origin = Origin::now()?;
    spin::prepare();

    let paused = Instant::now();
    let Some(Found { mut stopped, known, relations }) = tree::halt(seized, &origin, (pause, paused), options)? else {
        return Ok(Attempt::Executed);
    };
    // It may have come so far between the look and the stop.
    if Part::of(state::Target::proc(&stopped)) == Part::Restarting {
        return Ok(Attempt::Restarting);
    }
    let mut members: Vec<_> = known
        .iter()
        .enumerate()
        .map(|(place, one)| {
            let job = options.job.filter(|_| place == 0);
            let facts = Facts {
                origin,
                shared_pending: &one.shared,
                timers: one.timers,
                posix_timers: one.posix_timers,
                replaced: None,
                signal: 0,
                generation: options.job.map_or(0, |job| job.generation),
                job,
                stopped: one.stopped,
                full_frames: true,
                same_credentials: Some(one.same_credentials),
                programs: &one.threads.programs,
            };
            Member { threads: &one.threads, facts }
        })
        .collect();
    let saved = match relations.len() {
        0 => members
            .pop()
            .map_or(Ok(0), |one| session::save(&mut stopped, one.threads, &one.facts, common.memory(), output)),
        _ => {
            let mut arenas = members.iter().map(|_| Arena::map()).collect::<Result<Vec<_>>>()?;
            let memory = arenas.iter_mut().map(Arena::memory).collect();
            session::tree::save(&mut stopped, &members, &relations, (memory, common.memory()), output)
        }
    };
    let saved = stopped.check_withheld().and(saved).inspect(|bytes| stopped.end_copies(*bytes));
    let saved = saved.and_then(|bytes| untouched::check(options.ending, &stopped, relations.len()).map(|()| bytes));
    // Nobody is ended for what is no image.
    let sound = |bytes| if options.kill { output.check_written().map(|()| bytes) } else { Ok(bytes) };
    let saved = saved.and_then(sound).and_then(|bytes| output.finish().and_then(|()| to.arrives()).map(|()| bytes));
    let (frozen, thawed, lacking) = (stopped.held(), stopped.thawed(), stopped.lacking());
    let bytes = match saved {
        Ok(bytes) => bytes,
        // What a fork wipes, and what somebody has killed, the process itself still has.
        Err(e) if lacking.is_some() || thawed.is_some() && (e.is(ErrorKind::Wiped) || !stopped.copies_live()) => {
            return Ok(Attempt::CopyFailed(lacking.unwrap_or("its copy could not be saved"), e));
        }
        Err(e) if e.is_passing() => return Ok(Attempt::Raced(e)),
        Err(e) => return Err(e),
    };
    // The image is there. Who asked for the end may not be.
    output.check()?;
    let shielded = match stopped.finish(options.kill) {
        Ok(shielded) => shielded,
        Err(e) => return Ok(Attempt::Ended(e)),
    };
    let pause = thawed.unwrap_or_else(|| paused.elapsed());
    let confined = known.iter().filter(|one| one.confined).count();
    let threads = known.iter().map(|one| session::Threads::count(&one.threads)).sum();
    let processes = known.len();
    let replaced = output.take_replaced();
    Ok(Attempt::Done(Report { bytes, pause, total: pause, threads, processes, frozen, confined, shielded, replaced }))
}
