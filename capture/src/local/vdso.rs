//! Leads threads out of the kernel's own code (vdso) before they are saved: a restart under another kernel has another one.
//!
//! A thread that a signal has interrupted there returns from its handler, and runs on in single steps: the trap flag in the
//! frame makes the kernel send SIGTRAP after each instruction. That signal's handler is ours meanwhile; the first one that finds
//! the thread outside goes on with what the first handler had to do. Must never leave the flag set, or SIGTRAP to us.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use sys::abi::signal::{EFLAGS_TF, SIGTRAP, Siginfo, Ucontext};
use sys::signal::bit;
use sys::text::{cut, hex, words};

use super::own::{Own, pass_on};
use super::stop::{self, action};
use super::window::Slot;

/// `si_code` of a single step.
const TRAP_TRACE: i32 = 2;

/// Where the vdso lies; zeros when there is none.
static RANGE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// The program's own action for SIGTRAP, while ours is in place.
static PASS_ON: Own = Own::new();
/// Threads that run in single steps.
static STEPPING: AtomicU32 = AtomicU32::new(0);
/// The thread that will save, while it does; 0 when there is none. Which signal asked it, and what it blocks.
static LEADER: AtomicI32 = AtomicI32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);

/// Looks where the vdso lies now, and takes over SIGTRAP if there is one. By the thread that saves alone.
pub fn prepare() {
    if RANGE.iter().any(|place| place.load(Ordering::Acquire) != 0) {
        return;
    }
    let [from, to] = find().unwrap_or_default();
    for (place, value) in RANGE.iter().zip([from, to]) {
        place.store(value, Ordering::Release);
    }
    if from != to {
        // SAFETY: async-signal-safe, and passes on what is not ours.
        let taken = unsafe { PASS_ON.replace(SIGTRAP, &action(on_trap as *const () as usize)) };
        if taken.is_err() {
            RANGE.iter().for_each(|place| place.store(0, Ordering::Release));
        }
    }
}

/// Gives SIGTRAP back: no thread runs in single steps any more, nor will one.
pub fn done() {
    let [from, to] = RANGE.each_ref().map(|place| place.swap(0, Ordering::AcqRel));
    if from != to {
        // SAFETY: the program's own action.
        let _ = unsafe { sys::signal::set_action(SIGTRAP, &PASS_ON.get()) };
    }
}

/// Waits until nobody runs in single steps.
pub fn wait() {
    loop {
        let count = STEPPING.load(Ordering::Acquire);
        if count == 0 {
            return;
        }
        let _ = sys::thread::wait(&STEPPING, count, None);
    }
}

fn find() -> Option<[u64; 2]> {
    let mut buffer = [0; 512];
    let maps = sys::fs::Lines::open_at(sys::abi::AT_FDCWD, c"/proc/self/maps", &mut buffer).ok()?;
    let mut lines = maps.pass_long();
    while let Ok(Some(line)) = lines.next_line() {
        if line.ends_with(b"[vdso]") {
            let (from, rest) = cut(line, b'-')?;
            return Some([hex(from)?, hex(words(rest).next()?)?]);
        }
    }
    None
}

/// Whether a signal has interrupted a thread in the vdso, and may lead it out. Not one that steps itself: its steps are its own.
///
/// # Safety
/// The frame is the kernel's.
unsafe fn is_inside(context: *const Ucontext, flag: u64) -> bool {
    // SAFETY: the caller's promise.
    let (rip, eflags) = unsafe { ((*context).mcontext.rip, (*context).mcontext.eflags) };
    let [from, to] = RANGE.each_ref().map(|place| place.load(Ordering::Acquire));
    from != 0 && (from..to).contains(&rip) && eflags & EFLAGS_TF == flag
}

/// The thread runs on in single steps when its handler returns. Returns what it blocks.
///
/// # Safety
/// The frame is the kernel's, and the handler returns at once.
unsafe fn step(context: *const Ucontext) -> u64 {
    STEPPING.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the caller's promise; the kernel takes the frame as it is then.
    unsafe {
        let context = &mut *context.cast_mut();
        context.mcontext.eflags |= EFLAGS_TF;
        core::mem::replace(&mut context.sigmask, sys::signal::ALL & !bit(SIGTRAP))
    }
}

/// The thread that shall save comes out first, if it is inside: then its handler returns at once.
///
/// # Safety
/// The frame is the kernel's; the thread has claimed the save.
pub unsafe fn lead_out(signal: i32, context: *const Ucontext) -> bool {
    prepare();
    // SAFETY: the caller's promise.
    unsafe {
        if !is_inside(context, 0) {
            return false;
        }
        MASK.store(step(context), Ordering::Release);
    }
    SIGNAL.store(signal, Ordering::Release);
    LEADER.store(sys::thread::tid(), Ordering::Release);
    true
}

/// A thread that shall stop comes out first, if it is inside: then its handler returns at once.
///
/// # Safety
/// The frame is the kernel's; the slot is this thread's own.
pub unsafe fn follow_out(slot: *mut Slot, context: *const Ucontext) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let inside = is_inside(context, 0);
        if inside {
            (*slot).kept.mask = step(context);
        }
        inside
    }
}

/// After a step.
unsafe extern "C" fn on_trap(signal: i32, info: *const Siginfo, context: *const Ucontext) {
    let tid = sys::thread::tid();
    let leads = LEADER.load(Ordering::Acquire) == tid;
    // SAFETY: the kernel passes a siginfo.
    let stepped = unsafe { (*info).code } == TRAP_TRACE && STEPPING.load(Ordering::Acquire) != 0;
    let follows = if stepped && !leads { stop::asked(tid) } else { None };
    if !stepped || !leads && follows.is_none() {
        pass_on(&PASS_ON.get(), signal, info, context);
        return;
    }
    // SAFETY: the kernel's frame, which it takes as it is; the slot is this thread's own.
    unsafe {
        if is_inside(context, EFLAGS_TF) {
            return;
        }
        let frame = &mut *context.cast_mut();
        frame.mcontext.eflags &= !EFLAGS_TF;
        frame.sigmask = follows.map_or_else(|| MASK.load(Ordering::Acquire), |(slot, _)| (*slot).kept.mask);
        LEADER.compare_exchange(tid, 0, Ordering::AcqRel, Ordering::Relaxed).ok();
        STEPPING.fetch_sub(1, Ordering::AcqRel);
        sys::thread::wake(&STEPPING);
        match follows {
            Some((slot, round)) => stop::stand(slot, round, context),
            None => super::arm::save_at(SIGNAL.load(Ordering::Acquire), context),
        }
    }
}
