//! One save of this process, and what happens in the process that is restarted from it.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use image_format::record::thread::ThreadFlags;
use state::posix_timer::Owners;
use state::{Error, Result, Target};
use sys::Errno;
use sys::abi::signal::{SIGXFSZ, Siginfo, Ucontext};
use sys::arch::{Context, Entered};
use sys::fs::Fd;

use super::arm::owner;
use super::stop::{self, BACK, ROUND, STOP_SIGNAL, Stop};
use super::target::Local;
use super::vdso;
use super::window::{Kept, PENDING_MAX, Window};
use crate::core_notes::Frame;
use crate::origin::Origin;
use crate::output::{Output, PATH_MAX, Placing};
use crate::session::{self, Facts, Stopped, Threads};
use crate::traces::Place;

/// The process in which a save runs, as [`owner`] tells it, one at a time; 0: none does. Part of the image, so the restarted
/// process sets it back. A child that was forked meanwhile finds another's pid.
static BUSY: AtomicI32 = AtomicI32::new(0);
/// Threads besides the saving one, at the save. Part of the image.
static OTHERS: AtomicU32 = AtomicU32::new(0);
/// How often this process was restarted. Part of the image.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How often this process was restarted.
#[must_use]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Acquire)
}

/// The two returns of a save, as with setjmp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The image is written; this is the process that wrote it.
    Saved,
    /// This is the process that was restarted from the image.
    Restarted,
}

/// The absolute path of an image.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// This one.
    Given(&'a [u8]),
    /// That on which armed signals save: read on the window's stack, as the program's may be small.
    Armed,
}

/// How a save is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where the image goes.
    pub path: Path<'a>,
    /// The signal that asked; 0 for a call.
    pub signal: i32,
    /// The frame that it interrupted; null for a call.
    pub interrupted: *const Ucontext,
    /// End the process with this status when the image is durable.
    pub exit: Option<i32>,
}

/// What the leader works on.
struct Work<'a> {
    request: Request<'a>,
    window: &'a Window,
    error: Option<Error>,
    /// All threads had stopped: none can be on its way into the window any more.
    clean: bool,
}

/// Saves this process. All signals must be blocked on this thread. `None`: another thread is saving just now.
///
/// # Errors
/// The save failed: the process is as it was, the old image too.
pub fn save(request: Request<'_>) -> Option<Result<Outcome>> {
    claim().then(|| save_claimed(request))
}

/// Makes the calling thread the one that saves, with all signals blocked from now on; false: another one is.
pub fn claim() -> bool {
    let own = owner();
    BUSY.swap(own, Ordering::AcqRel) != own
}

/// Saves this process, on the thread that has [`claim`]ed it.
///
/// # Errors
/// The save failed: the process is as it was, the old image too.
pub fn save_claimed(request: Request<'_>) -> Result<Outcome> {
    let window = match Window::map() {
        Ok(window) => window,
        Err(e) => {
            vdso::done();
            BUSY.store(0, Ordering::Release);
            return Err(Error::failed(format_args!("the saver's memory"), "cannot be mapped", e));
        }
    };
    let round = ROUND.load(Ordering::Acquire);
    // A handler's frame has them.
    let rights = request.interrupted.is_null().then(sys::arch::key_rights).flatten();
    let mut work = Work { request, window: &window, error: None, clean: true };
    let slot = window.slot(0);
    // SAFETY: slot and stack are this thread's own; after a restart only this frame and statics are used.
    let entered = unsafe {
        (*slot).kept.interrupted = request.interrupted;
        sys::arch::enter(&raw mut (*slot).context, lead, (&raw mut work).cast(), window.leader_stack())
    };
    if entered.stub_start != 0 {
        if let Some(rights) = rights.filter(|_| sys::arch::key_rights().is_some()) {
            sys::arch::set_key_rights(rights);
        }
        restarted(entered, round);
        return Ok(Outcome::Restarted);
    }
    let Work { error, clean, .. } = work;
    if clean {
        vdso::done();
        // SAFETY: all threads are out of it, and the leader's stack is left.
        unsafe { window.unmap() };
    }
    BUSY.store(0, Ordering::Release);
    error.map_or(Ok(Outcome::Saved), Err)
}

/// In the restarted process: waits until all threads have come back, frees what the stub left, counts.
fn restarted(entered: Entered, round: u32) {
    stop::wait_for_back(OTHERS.load(Ordering::Acquire));
    // SAFETY: the stub said that this memory is its own, and all threads have left it.
    let _ = unsafe { sys::memory::unmap(entered.stub_start, entered.value) };
    GENERATION.fetch_add(1, Ordering::AcqRel);
    super::arm::moved();
    crate::hooks::run();
    BUSY.store(0, Ordering::Release);
    ROUND.store(round.wrapping_add(1), Ordering::Release);
    sys::thread::wake(&ROUND);
}

/// The walk, on the window's stack.
unsafe extern "C" fn lead(context: *mut Context, work: *mut u8) -> usize {
    // SAFETY: `save` passes its own work and waits for the return.
    let work = unsafe { &mut *work.cast::<Work<'_>>() };
    // SAFETY: the leader's, used by this thread alone.
    work.error = attempt(work, unsafe { &mut *context }).err();
    0
}

fn attempt(work: &mut Work<'_>, context: &mut Context) -> Result<()> {
    let mut scout = open_target(work.window, [-1, -1])?;
    state::process::check(&mut scout)?;
    let (stop, stopped) = Stop::all(work.window, &scout);
    drop(scout);
    work.clean = stopped.is_ok();
    // What is taken here is given back by `release`, whatever happened.
    let mut shared = [Siginfo::zeroed(); PENDING_MAX];
    let result = stopped.and_then(|()| save_stopped(work, context, &stop, &mut shared));
    if result.is_ok()
        && let Some(status) = work.request.exit
    {
        // SAFETY: nobody else uses it now.
        super::target::leave_sockets(unsafe { work.window.left() });
        // Nobody runs between the image and the end: what the image holds is the last that happened.
        sys::process::exit(status);
    }
    if result.as_ref().err().and_then(state::Error::errno) == Some(Errno::EFBIG) {
        // The limit on file sizes sends a signal that the program did not earn.
        let _ = sys::signal::take_pending(sys::signal::bit(SIGXFSZ));
    }
    stop.release(work.window, work.clean);
    result
}

fn open_target(window: &Window, ours: [Fd; 2]) -> Result<Local> {
    Local::open(ours, window.range()).map_err(|e| Error::failed(format_args!("/proc/self"), "cannot be opened", e))
}

/// The save itself. All descriptors are opened here, where no thread can close them under the saver's hands and
/// open a file of the program under the same number.
fn save_stopped(work: &Work<'_>, context: &mut Context, stop: &Stop, shared: &mut [Siginfo]) -> Result<()> {
    let mut room = [0; PATH_MAX];
    let path = match work.request.path {
        Path::Given(path) => path,
        Path::Armed => super::arm::path(&mut room),
    };
    let mut output = Output::create(path, Placing::default())?;
    let mut target = open_target(work.window, output.descriptors())?;
    // SAFETY: the first use for this save.
    target.notes_in(unsafe { work.window.left() });
    let origin = Origin::now()?;
    // SAFETY: the leader's own, apart from its context.
    stop::collect(unsafe { &mut (*work.window.slot(0)).kept }, context)?;
    let posix_timers = state::posix_timer::read(&mut target, &Owners::default())?;
    let (pending, timers) = stop.take_shared(&mut target, shared)?;
    let facts = Facts {
        // It runs.
        stopped: false,
        origin,
        shared_pending: shared.get(..pending).unwrap_or_default(),
        timers,
        posix_timers,
        replaced: Some((STOP_SIGNAL, stop.replaced)),
        signal: work.request.signal,
        generation: GENERATION.load(Ordering::Acquire),
        job: None,
        full_frames: false,
        same_credentials: None,
        programs: &[],
    };
    walk(work, context, &mut target, stop.count, &facts, &mut output)?;
    output.finish()
}

fn walk(
    work: &Work<'_>,
    context: &Context,
    target: &mut Local,
    count: usize,
    facts: &Facts<'_>,
    output: &mut Output,
) -> Result<()> {
    let pid = target.pid();
    let mut others = 0;
    for i in 0..count {
        // SAFETY: the thread stands still; what it keeps is read and completed by the leader alone.
        let (signs, one) = unsafe { (&(*work.window.slot(i)).signs, &mut (*work.window.slot(i)).kept) };
        if i > 0 && signs.tid.load(Ordering::Acquire) == 0 {
            continue;
        }
        others += u32::from(i > 0);
        let tid = one.record.tid.get() as i32;
        state::process::check_thread(target, tid)?;
        let mut flags = if tid == pid { ThreadFlags::LEADER } else { ThreadFlags::empty() };
        flags |= if i == 0 { ThreadFlags::CURRENT } else { ThreadFlags::empty() };
        one.record.flags = (one.record.flags.get() | flags.bits()).into();
        state::thread::find_id_words(&mut one.record, |at, to| target.read_memory(at, to));
        if i == 0 {
            one.record.jmp = state::thread::jmp(context);
        }
    }
    // What the restarted process will find: all others are still to come back.
    OTHERS.store(others, Ordering::Release);
    BACK.store(0, Ordering::Release);
    let threads = Slots { window: work.window, count };
    // SAFETY: the only call for this window.
    let memory = unsafe { work.window.memory() };
    session::save(target, &threads, facts, memory, output).map(drop)
}

/// The slots as the session sees them; slots of threads that ended meanwhile are left out.
struct Slots<'a> {
    window: &'a Window,
    count: usize,
}

impl Slots<'_> {
    fn used(&self) -> impl Iterator<Item = (&Kept, &Context)> {
        // SAFETY: atomics.
        let is_there = |i: &usize| *i == 0 || unsafe { (*self.window.slot(*i)).signs.tid.load(Ordering::Acquire) } != 0;
        (0..self.count).filter(is_there).map(|i| self.parts(i))
    }

    /// What a thread has left.
    fn parts(&self, index: usize) -> (&Kept, &Context) {
        let slot = self.window.slot(index);
        // SAFETY: the thread stands still: nobody writes to these parts of its slot.
        unsafe { (&(*slot).kept, &(*slot).context) }
    }
}

/// What of a thread's stack the handler uses that stopped it: its own frames below the kernel's, and in that one the siginfo, which lies behind the
/// context (`struct rt_sigframe`, arch/x86/include/asm/sigframe.h).
fn savers((kept, own): (&Kept, &Context)) -> [Place; 2] {
    let context = kept.interrupted as u64;
    if context == 0 {
        return [[0; 2]; 2];
    }
    let info = context + size_of::<Ucontext>() as u64;
    [[own.rsp, context], [info, info + size_of::<Siginfo>() as u64]]
}

impl Threads for Slots<'_> {
    fn count(&self) -> usize {
        self.used().count()
    }

    fn get(&self, index: usize) -> Stopped<'_> {
        // The leader's is always there.
        let (kept, context) = self.used().nth(index).unwrap_or_else(|| self.parts(0));
        let frame = if kept.interrupted.is_null() {
            Frame::of_call(context)
        } else {
            // SAFETY: the kernel's frame on the thread's stack, which stands still.
            unsafe { Frame::of_signal(&(*kept.interrupted).mcontext, &kept.record) }
        };
        let pending = kept.pending.get(..kept.pending_len).unwrap_or_default();
        Stopped { record: &kept.record, frame, pending, deadline: None, seccomp: &[], savers: savers((kept, context)) }
    }
}
