//! Stopping the other threads: each is sent a signal whose handler saves its context and waits.
//!
//! The signal is 33, which libcs keep for themselves and do not let programs block. Its handler is ours only
//! during a save, and passes on what is not ours. While a thread waits it runs in its [`Slot`]'s stack; it comes
//! back from there either because the save is over, or in a restarted process. Both times it counts itself in
//! [`BACK`] and waits for [`ROUND`] to move on: nobody leaves before all are out of the window. One that the signal finds in the
//! kernel's own code is stepped out of it first (`vdso.rs`).

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use state::itimer::Timers;
use state::thread::Rseq;
use state::{Error, Here, Result, Target};
use sys::Errno;
use sys::abi::Timespec;
use sys::abi::signal::{
    SA_ONSTACK, SA_RESTART, SA_RESTORER, SA_SIGINFO, SI_QUEUE, SIG_DFL, SIG_IGN, Sigaction, Siginfo, Ucontext,
};
use sys::arch::Context;
use sys::text::decimal;

use super::own::{Own, call_handler};
use super::vdso;
use super::window::{Kept, Signs, Slot, Window};

/// `SIGSETXID` of glibc, `SIGCANCEL` of musl.
pub const STOP_SIGNAL: i32 = 33;

/// How long a thread may take to stop, in slices of [`SLICE`]: one that waits for a vfork child or a dead file
/// server cannot run its handler.
const ATTEMPTS: u32 = 100;
const SLICE: Timespec = Timespec { sec: 0, nsec: 100_000_000 };

/// What helps where a thread does not stop.
const AGAIN: &str = "try again later, or save the process from outside";

/// Which save this is; moves on when threads may go on. Part of the image.
pub static ROUND: AtomicU32 = AtomicU32::new(1);
/// Threads that are out of the window, of this round.
pub static BACK: AtomicU32 = AtomicU32::new(0);
/// The program's own action for the stop signal, while ours is in place.
static PASS_ON: Own = Own::new();
/// The slots of the save that runs; null when none does.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());
static SLOT_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Signals that wait for the process, for the first thread to put back.
static SHARED: AtomicPtr<Siginfo> = AtomicPtr::new(core::ptr::null_mut());
static SHARED_LEN: AtomicUsize = AtomicUsize::new(0);

/// Keeps all that its own thread knows; all signals are blocked. The context is filled in, too.
pub fn collect(kept: &mut Kept, context: &mut Context) -> Result<()> {
    let tid = sys::thread::tid();
    let failed = |what| move |e| Error::failed(format_args!("thread {tid}"), what, e);
    (context.fs_base, context.gs_base) =
        sys::process::segment_bases().map_err(failed("its thread pointer cannot be read"))?;
    context.sigmask =
        sys::signal::change_mask(sys::abi::signal::SIG_BLOCK, 0).map_err(failed("its signal mask cannot be read"))?;
    let proc = sys::fs::open(c"/proc/self", sys::abi::O_DIRECTORY, 0).map_err(failed("/proc cannot be read"))?;
    let mut record = state::thread::save(&mut Here, proc.fd(), tid, tid, Rseq::Near(context.fs_base))?;
    record.jmp = state::thread::jmp(context);
    kept.record = record;
    let taken = state::pending::take_own(proc.fd(), tid, &mut kept.pending);
    kept.pending_len = kept.pending.iter().take_while(|i| i.signo != 0).count();
    taken.map(drop).map_err(failed("more signals wait for it than can be carried"))
}

/// What a stopped thread does in its slot.
unsafe extern "C" fn wait_in_slot(context: *mut Context, slot: *mut u8) -> usize {
    let slot = slot.cast::<Slot>();
    // SAFETY: the handler passes its own slot; of these parts this one is this thread's alone until its state says that it stands.
    let (signs, kept) = unsafe { (&(*slot).signs, &mut (*slot).kept) };
    let round = kept.round;
    // SAFETY: another part of the slot, to which only this thread writes.
    let result = collect(kept, unsafe { &mut *context });
    kept.error = result.err();
    let state = if kept.error.is_some() { 2 } else { 1 };
    signs.state.store(state, Ordering::Release);
    sys::thread::wake(&signs.state);
    sys::thread::wait_while(&ROUND, round);
    let (pid, tid) = (sys::process::pid(), sys::thread::tid());
    // SAFETY: the leader has ended its round, or this is another process: it is this thread's again.
    give_back(unsafe { &(*slot).kept }, pid, tid);
    0
}

/// Puts back the signals that were taken off a thread's queue, and as first thread those of the process.
pub fn give_back(kept: &Kept, pid: i32, tid: i32) {
    state::pending::give_own(pid, tid, kept.pending.get(..kept.pending_len).unwrap_or_default());
    let shared = SHARED.load(Ordering::Acquire);
    if pid == tid && !shared.is_null() {
        // SAFETY: the leader published an array of this length and keeps it until all are back.
        let signals = unsafe { core::slice::from_raw_parts(shared, SHARED_LEN.load(Ordering::Acquire)) };
        state::pending::give_shared(pid, signals);
    }
}

/// The stop signal's handler.
unsafe extern "C" fn on_stop(signal: i32, info: *const Siginfo, context: *const Ucontext) {
    // SAFETY: the kernel passes a siginfo.
    let info = unsafe { &*info };
    let slots = SLOTS.load(Ordering::Acquire);
    let round = ROUND.load(Ordering::Acquire);
    let (sent_round, index) = ((info.value >> 32) as u32, info.value as u32 as usize);
    let ours = info.code == SI_QUEUE && info.pid == sys::process::pid();
    if !ours || slots.is_null() || sent_round != round || index >= SLOT_COUNT.load(Ordering::Acquire) {
        if !ours {
            let own = PASS_ON.get();
            if own.handler != SIG_DFL && own.handler != SIG_IGN {
                // SAFETY: the program's own handler of this signal.
                unsafe { call_handler(&own, signal, info, context) };
            }
        }
        return;
    }
    // SAFETY: the leader gave this slot to this thread, and the frame is the kernel's, to which this handler returns at once.
    unsafe {
        let slot = slots.add(index);
        if !vdso::follow_out(slot, context) {
            stand(slot, round, context);
        }
    }
}

/// Records what the calling thread is, and waits for the end of the save.
///
/// # Safety
/// The slot is this thread's own, and the context what a signal has interrupted on it.
pub unsafe fn stand(slot: *mut Slot, round: u32, context: *const Ucontext) {
    // SAFETY: the caller's promise; the window lives until all are back.
    unsafe {
        (*slot).kept.interrupted = context;
        (*slot).kept.round = round;
        let top = Slot::stack_top(slot);
        sys::arch::enter(&raw mut (*slot).context, wait_in_slot, slot.cast(), top);
    }
    // From here on the slot may be gone, and this may be another process.
    BACK.fetch_add(1, Ordering::AcqRel);
    sys::thread::wake(&BACK);
    sys::thread::wait_while(&ROUND, round);
}

/// Waits until this many threads are out of the window.
pub fn wait_for_back(threads: u32) {
    loop {
        let back = BACK.load(Ordering::Acquire);
        if back >= threads {
            return;
        }
        let _ = sys::thread::wait(&BACK, back, None);
    }
}

/// The action with which this library's handlers are installed: all signals blocked, on the alternate stack if any.
#[must_use]
pub fn action(handler: usize) -> Sigaction {
    Sigaction {
        handler,
        flags: SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER,
        restorer: sys::arch::restore_rt as *const () as usize,
        mask: sys::signal::ALL,
    }
}

/// The threads of this process while they stand still.
#[derive(Debug)]
pub struct Stop {
    /// The program's action for the stop signal.
    pub replaced: Sigaction,
    /// How many slots are used; the leader's is the first.
    pub count: usize,
}

impl Stop {
    /// Stops all threads but the calling one, whose slot is the first.
    ///
    /// # Errors
    /// A thread that cannot be stopped; those that stand must be let go with [`Stop::release`] all the same.
    pub fn all(window: &Window, target: &impl Target) -> (Self, Result<()>) {
        // In a restarted process these still name the memory of the save that made it.
        SHARED.store(core::ptr::null_mut(), Ordering::Release);
        SHARED_LEN.store(0, Ordering::Release);
        SLOTS.store(window.slot(0), Ordering::Release);
        SLOT_COUNT.store(window.slots(), Ordering::Release);
        BACK.store(0, Ordering::Release);
        let mut stop = Self { replaced: Sigaction::default(), count: 1 };
        // SAFETY: the handler is async-signal-safe and passes on what is not ours.
        match unsafe { PASS_ON.replace(STOP_SIGNAL, &action(on_stop as *const () as usize)) } {
            Ok(own) => stop.replaced = own,
            Err(e) => return (stop, Err(Error::failed(format_args!("signal {STOP_SIGNAL}"), "cannot be handled", e))),
        }
        vdso::prepare();
        let result = stop.rounds(window, target);
        if result.is_ok() {
            vdso::done();
        }
        (stop, result)
    }

    /// Sends and waits until a look at the list of threads finds no new one.
    fn rounds(&mut self, window: &Window, target: &impl Target) -> Result<()> {
        let failed = |e| Error::failed(format_args!("threads"), "/proc/PID/task cannot be read", e);
        let dir = sys::fs::open_at(target.proc(), c"task", sys::abi::O_DIRECTORY, 0).map_err(failed)?;
        let (me, dir_of) = (sys::thread::tid(), target.proc());
        loop {
            let before = self.count;
            sys::fs::for_each_name(dir.fd(), |name| {
                let Some(tid) = decimal(name).and_then(|n| i32::try_from(n).ok()) else { return Ok(()) };
                let known = (1..self.count).any(|i| signs(window, i).tid.load(Ordering::Acquire) == tid);
                if tid == me || known || state::process::is_worker(dir_of, tid) {
                    Ok(())
                } else {
                    self.send(window, target, tid)
                }
            })
            .map_err(failed)??;
            if self.count == before {
                return Ok(());
            }
            for index in before..self.count {
                self.await_one(window, target, index)?;
            }
        }
    }

    fn send(&mut self, window: &Window, target: &impl Target, tid: i32) -> Result<()> {
        if state::process::is_dead(target, tid) {
            if tid == target.pid() {
                let why = "has ended while others go on, which cannot be carried yet";
                return Err(Error::refused(format_args!("first thread {tid}"), why, "keep it waiting (pthread_join)"));
            }
            return Ok(());
        }
        if self.count >= window.slots() {
            return Err(image_format::writer::Full.into());
        }
        signs(window, self.count).tid.store(tid, Ordering::Release);
        let value = u64::from(ROUND.load(Ordering::Acquire)) << 32 | self.count as u64;
        let pid = target.pid();
        let info =
            Siginfo { signo: STOP_SIGNAL, code: SI_QUEUE, pid, uid: sys::process::uid(), value, ..Siginfo::zeroed() };
        match sys::signal::queue_thread(pid, tid, STOP_SIGNAL, &info) {
            Ok(()) => {
                self.count += 1;
                Ok(())
            }
            Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(Error::failed(format_args!("thread {tid}"), "cannot be signalled", e)),
        }
    }

    /// Waits for one thread; the slot of one that is gone stays, without an id.
    fn await_one(&self, window: &Window, target: &impl Target, index: usize) -> Result<()> {
        let signs = signs(window, index);
        let tid = signs.tid.load(Ordering::Acquire);
        for _ in 0..ATTEMPTS {
            match signs.state.load(Ordering::Acquire) {
                0 => {}
                1 => return Ok(()),
                _ => {
                    let unknown = Error::refused(format_args!("thread {tid}"), "could not be examined", AGAIN);
                    // SAFETY: the thread stored its error before its state and does not touch it again.
                    return Err(unsafe { (*window.slot(index)).kept.error }.unwrap_or(unknown));
                }
            }
            let _ = sys::thread::wait(&signs.state, 0, Some(SLICE));
            if signs.state.load(Ordering::Acquire) == 0 && is_gone(target, tid) {
                signs.tid.store(0, Ordering::Release);
                return Ok(());
            }
        }
        let blocked = state::process::blocks(target, tid, STOP_SIGNAL);
        let why = if blocked { "blocks signal 33 and cannot be stopped" } else { "did not stop within ten seconds" };
        Err(Error::refused(format_args!("thread {tid}"), why, AGAIN))
    }

    /// Takes the process's pending signals, which the first thread puts back at the release, and reads the timers. A
    /// timer that expires in between is found in one of the two: it is looked again until no signal has come.
    ///
    /// # Errors
    /// More signals than can be carried.
    pub fn take_shared(&self, target: &mut impl Target, into: &mut [Siginfo]) -> Result<(usize, Timers)> {
        let mut timers = Timers::default();
        let mut count = 0;
        // A timer faster than this loop is not waited for: one tick of it more or less cannot be told.
        for turn in 0.. {
            let rest = into.get_mut(count..).unwrap_or_default();
            let taken = state::pending::take_shared(target.proc(), sys::thread::tid(), rest);
            let new = rest.iter().take_while(|i| i.signo != 0).count();
            count += new;
            SHARED.store(into.as_mut_ptr(), Ordering::Release);
            SHARED_LEN.store(count, Ordering::Release);
            taken.map_err(|e| {
                Error::failed(format_args!("pending signals"), "more wait for the process than can be carried", e)
            })?;
            if turn > 0 && (new == 0 || turn == 8) {
                break;
            }
            timers = state::itimer::read(target)?;
        }
        Ok((count, timers))
    }

    /// Lets all go on and waits until they are out of the window. `clean`: all had stopped, so that no stop signal
    /// is still on its way and the program gets its own action back.
    pub fn release(self, window: &Window, clean: bool) {
        vdso::wait();
        if clean {
            // SAFETY: the program's own action.
            let _ = unsafe { sys::signal::set_action(STOP_SIGNAL, &self.replaced) };
        }
        let standing = (1..self.count).filter(|i| signs(window, *i).state.load(Ordering::Acquire) != 0).count() as u32;
        // SAFETY: the leader's own.
        give_back(unsafe { &(*window.slot(0)).kept }, sys::process::pid(), sys::thread::tid());
        // Threads that were asked but did not stop yet find another round, and go on.
        SLOTS.store(core::ptr::null_mut(), Ordering::Release);
        ROUND.fetch_add(1, Ordering::AcqRel);
        sys::thread::wake(&ROUND);
        wait_for_back(standing);
        SHARED.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// The slot of a thread that has been asked to stop; which round that is.
pub fn asked(tid: i32) -> Option<(*mut Slot, u32)> {
    let slots = SLOTS.load(Ordering::Acquire);
    let count = if slots.is_null() { 0 } else { SLOT_COUNT.load(Ordering::Acquire) };
    // SAFETY: inside the window, which lives as long as it is published.
    let mut all = (1..count).map(|i| unsafe { slots.add(i) });
    // SAFETY: as above; only the atomic is looked at.
    all.find(|slot| unsafe { (**slot).signs.tid.load(Ordering::Acquire) == tid })
        .map(|slot| (slot, ROUND.load(Ordering::Acquire)))
}

/// What may be looked at of a slot while its thread runs.
fn signs(window: &Window, index: usize) -> &Signs {
    // SAFETY: atomics inside the window, which outlives the borrow, all zero at first.
    unsafe { &(*window.slot(index)).signs }
}

fn is_gone(target: &impl Target, tid: i32) -> bool {
    let path = sys::text::Text::<32>::of(format_args!("task/{tid}"));
    matches!(sys::fs::stat_at(target.proc(), path.as_c_str(), 0), Err(Errno::ENOENT | Errno::ESRCH))
        || state::process::is_dead(target, tid)
}
