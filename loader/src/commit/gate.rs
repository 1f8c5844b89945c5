//! Threads that were saved from outside go on between any two instructions: each by rt_sigreturn(2) from a signal frame in
//! the region, never on its own stack, which may have no room. What stays of the restart is the gate.
//!
//! ```text
//! other threads:  frame in the region ── sigreturn ──► way in the gate: mark, jump ──► the program
//! the leader:     waits for all marks ──► code in the gate: unmaps the region ── sigreturn, frame in the gate ──► the program
//! ```
//!
//! A thread gets its seccomp filters right before its sigreturn: there is no other call between, which they could forbid. They
//! lie in the gate, behind the leader's frame.
//!
//! Legal here: the program's memory, this thread's own slot, the gate. Once a thread is let go, the program runs: nothing of
//! it may be touched any more, and nothing may be unmapped through which a thread may still have to go.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use image_format::record::frame::Frame;
use image_format::record::seccomp::{Instruction, Seccomp};
use image_format::record::thread::Thread;
use image_format::{Checked, PAGE, align_up};
use state::gate::{Gate, MAGIC};
use sys::abi::Timespec;
use sys::abi::ptrace::UserRegs;
use sys::abi::signal::{Altstack, EFLAGS_TF, SS_ONSTACK};
use sys::arch::{CONFINE, LEAVE_LEN, Orders};
use sys::{Errno, packed};
use zerocopy::IntoBytes;

use super::die;
use crate::prepare::Plan;

/// How often the leader looks whether the others have gone, and how much oftener for each: they may have to share a core.
const LOOKS: usize = 2000;
const LOOKS_EACH: usize = 50;
/// The time between two looks.
const PAUSE: Timespec = Timespec { sec: 0, nsec: 100_000 };

/// Bytes that a frame needs with an extended state of this length: 0 when the image has none.
pub fn room(image: &Checked<'_>, xstate: u32) -> u64 {
    image.each::<Frame>().next().map_or(0, |_| align_up(state::frame::size(xstate as usize) as u64, 64))
}

/// Bytes of the gate: 0 when the image has no frames.
pub fn len(image: &Checked<'_>, xstate: u32) -> u64 {
    match room(image, xstate) {
        0 => 0,
        room => align_up(gate(image).frame() + room + filters(image), PAGE),
    }
}

/// Bytes of what restricts the threads: calls, and the programs that these name.
fn filters(image: &Checked<'_>) -> u64 {
    if cfg!(not(feature = "tree")) {
        return 0;
    }
    (size_of_val(image.table::<Seccomp>()) + size_of_val(image.table::<Instruction>())) as u64
}

/// The address of a thread's first restriction in the gate; 0: it has none.
fn restricted(plan: &Plan, image: &Checked<'_>, tid: u32) -> u64 {
    if cfg!(not(feature = "tree")) {
        return 0;
    }
    let place = image.each::<Seccomp>().position(|step| step.tid.get() == tid);
    place.map_or(0, |place| restrictions(plan, image) + (place * size_of::<Seccomp>()) as u64)
}

/// The address of the first one of all.
fn restrictions(plan: &Plan, image: &Checked<'_>) -> u64 {
    plan.gate + gate(image).frame() + room(image, plan.xstate.len)
}

/// Writes what restricts the threads: the steps, which are told where their programs lie, and the programs.
fn restrict(plan: &Plan, image: &Checked<'_>, put: &impl Fn(u64, &[u8])) {
    let (steps, programs) = (image.table::<Seccomp>(), image.table::<Instruction>());
    let at = restrictions(plan, image);
    put(at - plan.gate, steps.as_bytes());
    put(at - plan.gate + size_of_val(steps) as u64, programs.as_bytes());
    // SAFETY: as many were put there just now.
    for step in unsafe { core::slice::from_raw_parts_mut(at as usize as *mut Seccomp, steps.len()) } {
        if step.third.get() != 0 {
            step.third = (step.third.get() + at).into();
            step.at = (step.at.get() + at).into();
        }
    }
}

/// The region's memory at an address.
///
/// # Safety
/// It is this caller's alone, and `len` bytes long.
unsafe fn bytes<'m>(at: u64, len: usize) -> &'m mut [u8] {
    // SAFETY: the caller vouches.
    unsafe { core::slice::from_raw_parts_mut(at as usize as *mut u8, len) }
}

fn gate(image: &Checked<'_>) -> Gate {
    Gate::new(image.table::<Thread>().len() as u64)
}

/// Writes the gate: its head, the last code, a way and a goal for each thread.
pub fn write(plan: &Plan, image: &Checked<'_>, leader: usize) {
    let (gate, frames) = (gate(image), image.table::<Frame>());
    let start = plan.gate;
    let put = |at: u64, what: &[u8]| {
        // SAFETY: every part lies inside the gate, as `len` has counted; no thread uses it yet.
        unsafe { core::ptr::copy_nonoverlapping(what.as_ptr(), (start + at) as usize as *mut u8, what.len()) };
    };
    put(0, &MAGIC);
    put(Gate::THREADS, &(frames.len() as u64).to_le_bytes());
    put(Gate::LEN, &plan.gate_len.to_le_bytes());
    let code: unsafe extern "C" fn(*const Orders) -> ! = sys::arch::leave;
    // SAFETY: this program's own code, which is as long.
    put(Gate::CODE, unsafe { core::slice::from_raw_parts(code as usize as *const u8, LEAVE_LEN) });
    for (index, frame) in (0..).zip(frames) {
        let (way, goal, mark) = (gate.way(index), gate.goal(index), gate.mark(index));
        put(way, &sys::arch::way(way, mark, goal));
        put(goal, &UserRegs::from_words(frame.regs.map(Into::into)).rip.to_le_bytes());
    }
    if cfg!(feature = "tree") {
        restrict(plan, image, &put);
    }
    // The leader has no mark to set: it is the last one.
    put(gate.mark(leader as u64), &[1]);
}

/// Builds a thread's frame at `at`, to go on at `rip` (or where it was); returns the stack pointer for the sigreturn.
fn build(plan: &Plan, image: &Checked<'_>, index: usize, at: u64, rip: Option<u64>) -> u64 {
    let (Some(frame), Some(thread)) = (image.frame(index), image.table::<Thread>().get(index)) else {
        die(packed!("finding a thread's frame"), Errno::EINVAL)
    };
    let mut regs = UserRegs::from_words(frame.regs.map(Into::into));
    // A step would be one in the gate.
    regs.eflags &= !EFLAGS_TF;
    regs.rip = rip.unwrap_or(regs.rip);
    let stack = Altstack {
        sp: thread.altstack_sp.get() as usize,
        flags: thread.altstack_flags.get() & !SS_ONSTACK,
        size: thread.altstack_size.get() as usize,
        ..Altstack::default()
    };
    let xstate = plan.xstate.as_xstate();
    // SAFETY: `room` was counted for every frame, here and in the gate.
    let to = unsafe { bytes(at, room(image, xstate.len) as usize) };
    let built = state::frame::build(to, at, &regs, thread.jmp.sigmask.get(), stack, image.xstate(frame), &xstate);
    built.unwrap_or_else(|| die(packed!("building a frame"), Errno::EINVAL))
}

/// Prepares a thread's frame in its slot: what [`pass`] takes.
pub fn prepare(plan: &Plan, image: &Checked<'_>, index: usize, at: u64) -> u64 {
    build(plan, image, index, at, Some(plan.gate + gate(image).way(index as u64)))
}

/// A thread goes back into the program, restricted as the one with this id was.
pub fn pass(plan: &Plan, image: &Checked<'_>, tid: u32, frame: u64) -> ! {
    let code = (plan.gate + Gate::CODE) as usize + CONFINE;
    // SAFETY: the gate holds the code; `prepare` has built the frame, whose memory stays until the thread has set its mark.
    unsafe {
        core::mem::transmute::<usize, unsafe extern "C" fn(u64, u64) -> !>(code)(restricted(plan, image, tid), frame)
    }
}

/// The leader waits for the others, gives the region back, and goes back into the program.
pub fn close(plan: &Plan, image: &Checked<'_>, index: usize) -> ! {
    let gate = gate(image);
    let end = plan.gate + plan.gate_len;
    let frame = build(plan, image, index, plan.gate + gate.frame(), None);
    let threads = image.table::<Thread>().len();
    // Whoever is kept from its mark, by a handler that ran first, or by a busy machine, still needs the region: then it stays.
    let all = wait(plan.gate + gate.mark(0), threads);
    let range = |from: u64, to: u64| if all { [from, to - from] } else { [0, 0] };
    let orders = Orders {
        before: range(plan.start, plan.gate),
        // Where the vdso waited is its place now, or a hole, which the program may have filled.
        behind: range(end, plan.parking),
        gate: range(plan.gate, end),
        frame,
        restrictions: restricted(plan, image, image.header().pid.get()),
    };
    if let Some(thread) = image.table::<Thread>().get(index) {
        sys::thread::set_name(&thread.comm);
    }
    let place = (plan.gate + Gate::ORDERS) as usize as *mut Orders;
    let code = (plan.gate + Gate::CODE) as usize;
    // SAFETY: the gate is writable until its own code changes that, and executable; all that the code needs lies in it.
    unsafe {
        place.write(orders);
        let leave = core::mem::transmute::<usize, unsafe extern "C" fn(*const Orders) -> !>(code);
        leave(place)
    }
}

/// Waits until all marks are set; not for ever.
fn wait(marks: u64, threads: usize) -> bool {
    let at = marks as usize as *const AtomicU8;
    // SAFETY: bytes of the gate, which threads set without any of their registers.
    let marks = unsafe { core::slice::from_raw_parts(at, threads) };
    let mut seen = 0;
    let nobody = AtomicU32::new(0);
    for _ in 0..LOOKS + LOOKS_EACH * threads {
        seen += marks.iter().skip(seen).take_while(|mark| mark.load(Ordering::Acquire) == 1).count();
        if seen == threads {
            return true;
        }
        let _ = sys::thread::wait(&nobody, 0, Some(PAUSE));
    }
    false
}
