//! How the program's process comes to be: this process becomes the program, or makes a child that does, and supervises it.
//!
//! ```text
//! image ──► tasks ──► identity::choose ──┬─ in place ─────────────────────────► prepare, commit
//!                                        └─ namespaces, clocks ─ fork ─┬─ child ► prepare, commit
//!                                                                      └─ parent: supervisor, or leaves it to its caller
//! ```
//!
//! Until the fork nothing has changed that anybody could miss. Must never leave a program running that nobody supervises, unless its caller says so.

mod child;
mod clocks;
pub mod count;
mod namespaces;
mod pidfile;
pub mod standby;
mod supervisor;
pub mod tasks;

use image_format::Checked;
use image_format::record::header::Traces;
use image_format::record::process::Process;
use image_format::record::pty::PtyStep;
use loader::identity::system::Here;
use loader::identity::{self, COUNTING_MAX, Saved, Way, Wish, words};
use loader::options::{Clock, Options};
use state::restart::Result;
use sys::abi::TIOCSCTTY;
use sys::credentials;
use sys::fs::{Fd, Owned};

use self::child::{Around, Plan};
use self::clocks::Clocks;
use self::count::Deadline;
use self::pidfile::PidFile;
use self::tasks::{Task, Tasks};
use crate::prepare::{Input, descriptors};
use crate::start::tell;

/// How tasks get their ids.
#[derive(Clone, Copy, Debug)]
pub enum Ids {
    /// As the kernel gives them.
    New,
    /// They are chosen.
    Chosen,
    /// They are counted up to, until this moment.
    Counted(Deadline),
}

/// The program's process, as it goes on to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Launched {
    /// How its tasks get their ids.
    pub ids: Ids,
    /// All tasks of the tree but its first.
    pub tasks: &'static [Task],
    /// The end of a pipe that gets a byte when the program has taken over; or -1.
    pub ready: Fd,
    /// The end of a pipe that gets [`HAVE_IDS`] or [`LATE`] when ids are counted up to; -1: there is no other way that could be tried.
    pub counting: Fd,
    /// Rights that this process has, and the program is not to have.
    pub drops_rights: bool,
}

/// All tasks have their ids.
pub const HAVE_IDS: u8 = b'c';
/// They could not be counted up to in time: nobody goes on, and another way is tried.
pub const LATE: u8 = b'x';

/// Decides whose ids the program gets, and returns in its process. `input` is moved above all numbers of the program's descriptors.
///
/// # Errors
/// There is no way, or it fails; nothing was started.
pub fn launch(options: &Options<'static>, image: &Checked<'static>, input: &mut Input) -> Result<Launched> {
    let base = descriptors::first_free_above(image);
    input.move_above(base)?;
    let mut pidfile = PidFile::prepare(options.pidfile)?;
    let tasks = Tasks::of(image, input, options)?;
    let (mut counts, mut around) = (true, None);
    loop {
        match choose(options, image, tasks, counts)? {
            Start::Here(way) => {
                let ready = if options.ready < 0 { -1 } else { child::stay_in_place(options)? };
                if let Some(pidfile) = &pidfile {
                    pidfile.write(sys::process::pid()).map_err(|e| pidfile.failed(e))?;
                }
                let ids = ids_of(way, options.wish);
                let drops_rights = child::drops(options, false);
                return Ok(Launched { ids, tasks: tasks.all, ready, counting: -1, drops_rights });
            }
            Start::Child(plan) => {
                let around = match &mut around {
                    Some(around) => around,
                    None => around.insert(Around::open(options, base)?),
                };
                if let Some(launched) = plan.make(options, tasks.all, around, &mut pidfile)? {
                    return Ok(launched);
                }
                // Somebody was faster, or the machine is busy.
                counts = false;
            }
        }
    }
}

/// What was decided.
enum Start {
    Here(Way),
    Child(Plan),
}

fn choose(options: &Options<'_>, image: &Checked<'static>, tasks: Tasks, counts: bool) -> Result<Start> {
    let header = image.header();
    let (id, own) = (header.pid.get(), sys::process::pid().cast_unsigned());
    // In a namespace this process has another id, so that all are wanted there; here its own need not be had again.
    let is_own = id == own && options.wish != Wish::Namespace;
    let tree = !image.table::<Process>().is_empty();
    let ids = tasks.ids((!is_own).then_some(id), id)?;
    let saved = Saved { ids, tree, ascending: tasks.ascending, traces: header.traces() };
    let way = identity::choose(options.wish, &saved, &Here { own, counts }).map_err(|why| words::error(id, why))?;
    let clocks = Clocks::of(header);
    // A pid namespace of the program's own takes a time namespace along.
    let going_on = match way {
        Way::Namespace => options.clock != Clock::New,
        _ => clocks.go_on(options.clock)?,
    };
    let kept_here = is_own && matches!(way, Way::Right | Way::Counting);
    if kept_here && going_on {
        clocks::in_place(options.clock)?;
    }
    if options.verbose || matches!(way, Way::New { traces } if traces != Traces::None) {
        tell(2, "@", 0, words::chosen(header, way, is_own).as_bytes(), 0);
    }
    if !kept_here && (going_on || !matches!(way, Way::New { .. })) {
        let leads_session = image.each::<PtyStep>().any(|step| step.request.get() == TIOCSCTTY.number());
        return Ok(Start::Child(Plan { id, way, clocks, going_on, leads_session }));
    }
    Ok(Start::Here(way))
}

fn ids_of(way: Way, wish: Wish) -> Ids {
    match way {
        Way::New { .. } => Ids::New,
        Way::Right | Way::Namespace => Ids::Chosen,
        Way::Counting if wish == Wish::Keep => Ids::Counted(Deadline(u64::MAX)),
        Way::Counting => Ids::Counted(Deadline::within(COUNTING_MAX.as_nanos() as u64)),
    }
}

/// A pipe of which both ends have numbers of at least `base`.
fn pipe_above(base: Fd) -> Result<[Fd; 2]> {
    let failed = |e| namespaces::kernel("a pipe", "cannot be made", e);
    let [one, other] = sys::fs::pipe(sys::abi::O_CLOEXEC).map_err(failed)?;
    let above = |end: &Owned| sys::fs::dup_above(end.fd(), base).map_err(failed);
    Ok([above(&one)?, above(&other)?])
}

/// In each thread of the program, when nothing is left that takes them: gives up the rights that were for the restart alone.
///
/// # Errors
/// The kernel's.
pub fn drop_rights() -> sys::Result<()> {
    credentials::set_capabilities([0; 3])
}
