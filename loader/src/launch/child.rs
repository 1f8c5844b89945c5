//! A child that becomes the program, and what its parent does meanwhile. Must never return in the parent once the program is under way.

use image_format::ExitCode;
use loader::identity::{Way, words};
use loader::options::Options;
use loader::supervise::{Inbox, Place, SAYS_PID, Terminal, end_with_parent};
use state::restart::Result;
use sys::child::{self, Birth};
use sys::fs::Fd;
use sys::namespace::Kinds;

use super::clocks::Clocks;
use super::count::{self, Deadline};
use super::namespaces::{self, Namespaces};
use super::pidfile::PidFile;
use super::supervisor::Supervisor;
use super::tasks::{Task, What};
use super::{Ids, LATE, Launched, ids_of, pipe_above};
use crate::start::tell;

/// What supervision takes, whichever way the child is made.
pub struct Around {
    base: Fd,
    /// The pipe by which the program says that it runs; the end for reading is -1 where the caller has it.
    pipe: [Fd; 2],
    /// None: the caller supervises.
    inbox: Option<Inbox>,
    terminal: Option<Terminal>,
    /// Whether this process's group was the terminal's foreground.
    foreground: bool,
    place: Place,
    /// The program's parent, as this process sees it.
    parent: i32,
    /// Whether this process has entered a user namespace of its own.
    in_user_namespace: bool,
    /// Whether an id that seemed free was not.
    has_tried: bool,
}

impl Around {
    /// Opens all of it; nothing gets a number below `base` that the program's child keeps.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(options: &Options<'_>, base: Fd) -> Result<Self> {
        let terminal = Terminal::open();
        let foreground = terminal.as_ref().is_some_and(Terminal::is_ours);
        let (pipe, inbox, place, parent) = if options.ready < 0 {
            let inbox = Inbox::open().map_err(|e| namespaces::kernel("signals", "cannot be taken", e))?;
            (pipe_above(base)?, Some(inbox), Place::beside_us(terminal.as_ref()), sys::process::pid())
        } else {
            ([-1, options.ready], None, options.place, child::parent())
        };
        Ok(Self { base, pipe, inbox, terminal, foreground, place, parent, in_user_namespace: false, has_tried: false })
    }

    /// Whether the caller supervises, as the program's parent.
    const fn is_callers(&self) -> bool {
        self.inbox.is_none()
    }
}

/// A child that is to become the program.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The root's saved id.
    pub id: u32,
    /// How it gets it.
    pub way: Way,
    /// The saved clocks.
    pub clocks: Clocks,
    /// They go on.
    pub going_on: bool,
    /// It leads a session whose terminal it has both ends of.
    pub leads_session: bool,
}

impl Plan {
    /// Makes the child, and returns in it. `None`, in the parent: the ids could not be counted up to.
    ///
    /// # Errors
    /// No such child could be made.
    #[inline(never)] // A smaller frame has shorter addresses.
    pub fn make(
        self,
        options: &Options<'_>,
        tasks: &'static [Task],
        around: &mut Around,
        pidfile: &mut Option<PidFile>,
    ) -> Result<Option<Launched>> {
        let mut namespaces = self.namespaces(options, around)?;
        let ids = ids_of(self.way, options.wish);
        let has_threads = !tasks.is_empty() && tasks.iter().all(|task| matches!(task.what, What::Thread(_)));
        // With `--pid keep` there is no other way.
        let counting = match ids {
            Ids::Counted(deadline) if deadline.is_set() => pipe_above(around.base)?,
            // Somebody may be given the id of a thread meanwhile: then a way is chosen again, where that id is not free.
            Ids::Chosen if has_threads => pipe_above(around.base)?,
            _ => [-1; 2],
        };
        let birth = Birth {
            id: matches!(ids, Ids::Chosen).then_some(self.id),
            sibling: around.is_callers(),
            ..Birth::default()
        };
        let made = match ids {
            // SAFETY: one thread; the child relies on nothing of a C library.
            Ids::New | Ids::Chosen => unsafe { child::fork_as(&birth) },
            Ids::Counted(deadline) => around.counted(self.id, deadline, &birth),
        };
        let [counted, ready_to_count] = counting;
        let pid = match made {
            Ok(0) => {
                // SAFETY: an end of the restart's own pipe, of no use any more.
                unsafe { sys::fs::close(around.pipe[0]) };
                // SAFETY: an end of the restart's own pipe, of no use any more.
                unsafe { sys::fs::close(counted) };
                let ready = around.pipe[1];
                begin(around, namespaces.as_ref(), self.leads_session)?;
                let drops_rights = drops(options, around.in_user_namespace);
                return Ok(Some(Launched { ids, tasks, ready, counting: ready_to_count, drops_rights }));
            }
            Ok(pid) => pid,
            Err(sys::Errno::ETIMEDOUT) if counted >= 0 => {
                // SAFETY: an end of the restart's own pipe, of no use any more.
                unsafe { sys::fs::close(counted) };
                // SAFETY: an end of the restart's own pipe, of no use any more.
                unsafe { sys::fs::close(ready_to_count) };
                return Ok(None);
            }
            // Who has it now is seen, and named, when a way is chosen again.
            Err(sys::Errno::EEXIST) if !around.has_tried => {
                around.has_tried = true;
                return Ok(None);
            }
            Err(e) => {
                if let Some(namespaces) = &mut namespaces {
                    namespaces.end();
                }
                return Err(words::no_child(self.id, e));
            }
        };
        // SAFETY: an end of the restart's own pipe, of no use any more.
        unsafe { sys::fs::close(ready_to_count) };
        if counted >= 0 {
            // One that has failed otherwise has said why.
            let mut said = [0];
            let read = sys::fs::read(counted, &mut said);
            // SAFETY: an end of the restart's own pipe, of no use any more.
            unsafe { sys::fs::close(counted) };
            if read == Ok(1) && said == [LATE] {
                child::reap(pid.cast_unsigned());
                return Ok(None);
            }
        }
        if around.place == Place::OwnGroup && !around.is_callers() && !self.leads_session {
            // The child does it too: whoever comes first.
            let _ = sys::process::lead_group(pid);
        }
        around.supervise(pid, pidfile.take(), namespaces)
    }

    /// The namespaces that the child is born into.
    fn namespaces(&self, options: &Options<'_>, around: &mut Around) -> Result<Option<Namespaces>> {
        let mut kinds = Kinds::empty();
        kinds.set(Kinds::PID, self.way == Way::Namespace);
        kinds.set(Kinds::TIME, self.going_on);
        if kinds.is_empty() {
            return Ok(None);
        }
        around.in_user_namespace |= namespaces::enter(kinds)?;
        if self.going_on {
            self.clocks.set()?;
            if options.verbose {
                let kinds: &[u8] =
                    if around.in_user_namespace { b"user and time namespaces" } else { b"a time namespace" };
                tell(2, "clocks go on, in @ (--clock new leaves this machine's)", 0, kinds, 0);
            }
        }
        if self.way != Way::Namespace {
            return Ok(None);
        }
        Namespaces::make(self.id, around.place, around.is_callers(), around.base).map(Some)
    }
}

impl Around {
    /// A child with this id, which was counted up to; 0 in the child. A signal ends this process meanwhile, as if it supervised nothing.
    fn counted(&mut self, id: u32, deadline: Deadline, birth: &Birth) -> sys::Result<i32> {
        if let Some(inbox) = &self.inbox {
            inbox.let_go();
        }
        let made = counted(id, deadline, birth);
        if let Some(inbox) = &self.inbox {
            inbox.block();
        }
        made
    }

    /// In the parent: the program is under way.
    fn supervise(&mut self, pid: i32, pidfile: Option<PidFile>, mut namespaces: Option<Namespaces>) -> ! {
        let [pipe, ready] = self.pipe;
        let Some(inbox) = &self.inbox else {
            tell_pid(ready, pid);
            sys::process::exit(0)
        };
        if let Some(namespaces) = &mut namespaces {
            namespaces.program_started();
        }
        // SAFETY: an end of the restart's own pipe, of no use any more.
        unsafe { sys::fs::close(ready) };
        let terminal = self.terminal.as_ref();
        let supervisor = Supervisor { inbox, child: pid, place: self.place, pipe, terminal, pidfile, namespaces };
        sys::process::exit(supervisor.run())
    }
}

/// In the child: takes its place.
fn begin(around: &mut Around, namespaces: Option<&Namespaces>, leads_session: bool) -> Result<()> {
    let foreground = around.terminal.as_ref().filter(|_| around.foreground);
    let taken = if leads_session { child::new_session() } else { around.place.take(foreground) };
    taken.map_err(|e| namespaces::kernel("process group", "cannot be made", e))?;
    if let Some(namespaces) = namespaces {
        namespaces.furnish();
    }
    if around.place != Place::OwnSession && !end_with_parent(around.parent, around.pipe[1]) {
        sys::process::exit(i32::from(ExitCode::Kernel as u8));
    }
    if let Some(inbox) = &around.inbox {
        inbox.let_go();
    }
    (around.inbox, around.terminal) = (None, None);
    Ok(())
}

/// Whether capabilities were had for the restart alone: in a user namespace of the restart's own, or lent. Root has them anyway.
pub fn drops(options: &Options<'_>, user_namespace: bool) -> bool {
    (user_namespace || options.lent) && sys::process::effective_uid() != 0
}

/// This process becomes the program under a supervisor that has started it: tells its id, takes its place.
///
/// # Errors
/// The kernel's.
pub fn stay_in_place(options: &Options<'_>) -> Result<Fd> {
    let terminal = Terminal::open();
    let foreground = terminal.as_ref().filter(|terminal| terminal.is_ours());
    options.place.take(foreground).map_err(|e| namespaces::kernel("process group", "cannot be made", e))?;
    if options.place != Place::OwnSession && !end_with_parent(child::parent(), options.ready) {
        sys::process::exit(i32::from(ExitCode::Kernel as u8));
    }
    tell_pid(options.ready, sys::process::pid());
    Ok(options.ready)
}

fn tell_pid(pipe: Fd, pid: i32) {
    let [a, b, c, d] = pid.to_le_bytes();
    let _ = sys::fs::write_all(pipe, &[SAYS_PID, a, b, c, d]);
}

/// A child with this id, which was counted up to; 0 in the child.
fn counted(id: u32, deadline: Deadline, birth: &Birth) -> sys::Result<i32> {
    let mut here = 0;
    let made = count::make_with_id(
        id,
        None,
        deadline,
        || {
            // SAFETY: one thread: those that used ids up have ended.
            let pid = unsafe { child::fork_as(birth) }?;
            // Not what an earlier one has left, which got another id.
            here = pid;
            if pid != 0 {
                return Ok(pid);
            }
            let own = sys::process::pid();
            if own.cast_unsigned() != id {
                sys::process::exit(0);
            }
            Ok(own)
        },
        |pid| child::reap(pid.cast_unsigned()),
    );
    made.map(|()| here)
}
