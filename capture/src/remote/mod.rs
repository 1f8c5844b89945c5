//! Saves any process by its pid, with its children and theirs, from outside: no root, no preparation, no library in it.
//!
//! ```text
//! seize ─► stop all threads ─► registers ─► objects ─► copy-on-write copy ─► let go ─► the copy, memory ─► seal
//!          └───────────────────────────── the pause ─────────────────────────────┘
//! ```
//!
//! Must never change the process for good: what is put into it for a moment is taken out again, and if this process is
//! killed meanwhile, leads back by itself.

mod ahead;
mod arena;
mod connections;
mod copy;
mod family;
mod glance;
mod judge;
mod kind;
mod look;
mod member;
mod outside;
mod patience;
mod place;
mod puppet;
mod request;
mod resume;
mod stop;
mod target;
mod thread;
mod tree;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;
use std::vec::Vec;

use state::inotify::UNREAD;
use state::memory::WIPED;
use state::{Error, Result};

use self::arena::Arena;
pub use self::look::blockers;
use self::patience::Patience;
use self::place::NO_ROOM;
pub use self::request::{Options, Report, Tcp};
use self::target::Pause;
use self::tree::Found;
use crate::origin::Origin;
use crate::output::Output;
use crate::session::tree::Member;
use crate::session::{self, Facts};

/// How often a process is tried that keeps calling exec, or making threads.
const ATTEMPTS: u32 = 20;

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

/// Saves process `pid` with all processes that descend from it; they go on.
///
/// # Errors
/// It may not be traced, it holds something that cannot be carried, or the image cannot be written. It goes on, and an
/// older image is whole.
pub fn save(pid: i32, mut to: Destination<'_>, options: Options) -> Result<Report> {
    let started = Instant::now();
    let mut output = match &to {
        Destination::File(path) => {
            let path = std::path::absolute(path).map_err(|_| Error::from(image_format::writer::Full))?;
            Output::create(path.as_os_str().as_bytes())?
        }
        Destination::Stream(fd) | Destination::Arrives(fd, _) => Output::stream(std::os::fd::AsRawFd::as_raw_fd(fd)),
    };
    let mut pause = if options.freeze || options.kill { Pause::Frozen } else { Pause::Live };
    let patience = Patience::since(started);
    let (mut frozen, mut executed) = (None, 0);
    while executed < ATTEMPTS {
        match attempt(pid, pause, options, &mut output, &mut to) {
            Ok(Attempt::Done(mut report)) => {
                report.total = started.elapsed();
                report.frozen = report.frozen.or(frozen);
                return Ok(report);
            }
            Ok(Attempt::Executed) => executed += 1,
            Ok(Attempt::Restarting) => patience.with_restart(pid)?,
            // Whatever a copy lacks, the process itself has; but a stream cannot begin anew.
            Ok(Attempt::CopyFailed(lacking, _)) if output.restart().is_ok() => {
                (pause, frozen) = (Pause::Frozen, Some(lacking));
                continue;
            }
            Err(e) if e.is(NO_ROOM) => patience.with_exec(e)?,
            Err(e) if e.is(UNREAD) => patience.with_reader(e)?,
            Ok(Attempt::CopyFailed(_, why)) | Err(why) => return Err(why),
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
}

fn attempt(pid: i32, pause: Pause, options: Options, output: &mut Output, to: &mut Destination<'_>) -> Result<Attempt> {
    let proc = member::directory(pid)?;
    kind::check(pid, &proc)?;
    if kind::is_restarting(proc.fd()) {
        return Ok(Attempt::Restarting);
    }
    // All that can be done while it runs.
    let seized = member::Seized::new(pid, proc)?;
    let mut common = Arena::map()?;
    common.warm(seized.threads());
    let origin = Origin::now()?;
    glance::prepare();

    let paused = Instant::now();
    let Some(Found { mut family, known, relations }) = tree::halt(seized, &origin, (pause, paused), options)? else {
        return Ok(Attempt::Executed);
    };
    // It may have come so far between the look and the stop.
    if known.first().is_some_and(|root| kind::restarts_as(root.name(), state::Target::proc(&family))) {
        return Ok(Attempt::Restarting);
    }
    let mut members: Vec<_> = known
        .iter()
        .map(|one| {
            let facts = Facts {
                origin,
                shared_pending: &one.shared,
                timers: one.timers,
                posix_timers: one.posix_timers,
                replaced: None,
                signal: 0,
                generation: 0,
                full_frames: true,
                programs: &one.threads.programs,
            };
            Member { threads: &one.threads, facts }
        })
        .collect();
    let saved = match relations.len() {
        0 => members
            .pop()
            .map_or(Ok(0), |one| session::save(&mut family, one.threads, &one.facts, common.memory(), output)),
        _ => {
            let mut arenas = members.iter().map(|_| Arena::map()).collect::<Result<Vec<_>>>()?;
            let memory = arenas.iter_mut().map(Arena::memory).collect();
            session::tree::save(&mut family, &members, &relations, (memory, common.memory()), output)
        }
    };
    let saved = family.objection().and(saved).inspect(|bytes| family.end_copies(*bytes));
    let saved = saved.and_then(|bytes| output.finish().and_then(|()| to.arrives()).map(|()| bytes));
    let (frozen, thawed, lacking) = (family.held(), family.thawed(), family.lacking());
    let bytes = match saved {
        Ok(bytes) => bytes,
        // What a fork wipes, and what somebody has killed, the process itself still has.
        Err(e) if lacking.is_some() || thawed.is_some() && (e.is(WIPED) || !family.copies_live()) => {
            return Ok(Attempt::CopyFailed(lacking.unwrap_or("its copy could not be saved"), e));
        }
        Err(e) => return Err(e),
    };
    family.finish(options.kill)?;
    let pause = thawed.unwrap_or_else(|| paused.elapsed());
    let threads = known.iter().map(|one| session::Threads::count(&one.threads)).sum();
    Ok(Attempt::Done(Report { bytes, pause, total: pause, threads, processes: known.len(), frozen }))
}
