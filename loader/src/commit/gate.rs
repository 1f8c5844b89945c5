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
use image_format::record::seccomp::{How, Instruction, Seccomp};
use image_format::record::thread::Thread;
use image_format::{Checked, PAGE, align_up};
use state::gate::{Gate, MAGIC};
use sys::Errno;
use sys::abi::Timespec;
use sys::abi::ptrace::UserRegs;
use sys::abi::signal::{Altstack, EFLAGS_TF, SS_ONSTACK};
use sys::arch::{CONFINE, JUMP, LEAVE_LEN, Orders};
use zerocopy::IntoBytes;

use super::{Stage, die};
use crate::prepare::{Plan, tree};

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
        room => align_up(gate(image).frames_end(room) + filters(image) + goals(image), PAGE),
    }
}

/// Bytes of it that are run, and in the end no longer written; `all`: bytes of the gate.
pub fn code_len(image: &Checked<'_>, all: u64) -> u64 {
    if is_held(image) { gate(image).data() } else { all }
}

/// Whether threads wait in the gate for restrictions that they share: the first thread's, in front of which there is one step at most.
fn is_held(image: &Checked<'_>) -> bool {
    image.each::<Seccomp>().take(2).any(|step| How::of(step).is_some_and(How::is_shared))
}

/// Bytes of what restricts the threads: calls, and the programs that these name.
fn filters(image: &Checked<'_>) -> u64 {
    (size_of_val(image.table::<Seccomp>()) + size_of_val(image.table::<Instruction>())) as u64
}

/// Bytes of the goals that a stopped process gets when it goes on: until then each way leads to itself.
fn goals(image: &Checked<'_>) -> u64 {
    if is_stopped(image) { (size_of::<u64>() * image.table::<Thread>().len()) as u64 } else { 0 }
}

/// Whether the program was stopped, and shall be.
pub fn is_stopped(image: &Checked<'_>) -> bool {
    image.header().stopped.get() != 0
}

/// The address of a thread's first restriction, at this place among all, in the gate; 0: it has none.
fn restricted(plan: &Plan, image: &Checked<'_>, place: Option<u32>) -> u64 {
    place.map_or(0, |place| restrictions(plan, image) + u64::from(place) * size_of::<Seccomp>() as u64)
}

/// The address of the first one of all.
fn restrictions(plan: &Plan, image: &Checked<'_>) -> u64 {
    plan.gate + gate(image).frames_end(room(image, plan.xstate.len))
}

/// The word that held threads wait for; 0: there are none.
fn release(plan: &Plan, image: &Checked<'_>) -> u64 {
    if is_held(image) { plan.gate + gate(image).release() } else { 0 }
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
    Gate::new(image.table::<Thread>().len() as u64, is_held(image))
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
    put(Gate::RESTARTS, &image.header().generation.get().saturating_add(1).to_le_bytes());
    put(Gate::THREADS, &gate.word().to_le_bytes());
    put(Gate::LEN, &code_len(image, plan.gate_len).to_le_bytes());
    put(Gate::ALL, &plan.gate_len.to_le_bytes());
    let code: unsafe extern "C" fn(*const Orders) -> ! = sys::arch::leave;
    // SAFETY: this program's own code, which is as long.
    put(Gate::CODE, unsafe { core::slice::from_raw_parts(code as usize as *const u8, LEAVE_LEN) });
    for (index, frame) in (0..).zip(frames) {
        let (way, goal, mark) = (gate.way(index), gate.goal(index), gate.mark(index));
        let rip = UserRegs::from_words(frame.regs.map(Into::into)).rip.to_le_bytes();
        put(way, &sys::arch::way(way, mark, goal));
        if is_stopped(image) {
            put(goal, &(start + way + JUMP).to_le_bytes());
            put(later(plan, image) + size_of::<u64>() as u64 * index, &rip);
        } else {
            put(goal, &rip);
        }
    }
    restrict(plan, image, &put);
    // The leader has no mark to set: it is the last one.
    put(gate.mark(leader as u64), &[1]);
    if is_held(image) {
        put(gate.arrival(leader as u64), &[2]);
    }
}

/// Where a stopped process's goals wait, from the gate's start.
fn later(plan: &Plan, image: &Checked<'_>) -> u64 {
    gate(image).frames_end(room(image, plan.xstate.len)) + filters(image)
}

/// Builds a thread's frame at `at`, to go on at `rip` (or where it was); returns the stack pointer for the sigreturn.
fn build(plan: &Plan, image: &Checked<'_>, index: usize, at: u64, rip: Option<u64>) -> u64 {
    let (Some(frame), Some(thread)) = (image.frame(index), image.table::<Thread>().get(index)) else {
        die(Stage::FindingThreadFrame, Errno::EINVAL)
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
    built.unwrap_or_else(|| die(Stage::BuildingFrame, Errno::EINVAL))
}

/// Prepares a thread's frame in its slot, or in the gate if it is held there: what [`pass`] takes.
pub fn prepare(plan: &Plan, image: &Checked<'_>, index: usize, slot: u64) -> u64 {
    let gate = gate(image);
    let own = plan.gate + gate.frame(index as u64, room(image, plan.xstate.len));
    build(plan, image, index, if is_held(image) { own } else { slot }, Some(plan.gate + gate.way(index as u64)))
}

/// A thread goes back into the program, restricted as the one at this place was.
pub fn pass(plan: &Plan, image: &Checked<'_>, (index, restriction): (usize, Option<u32>), frame: u64) -> ! {
    let code = (plan.gate + Gate::CODE) as usize + CONFINE;
    let arrival = plan.gate + gate(image).arrival(index as u64);
    // SAFETY: the gate holds the code; `prepare` has built the frame, whose memory stays until the thread has set its mark.
    unsafe {
        let confine = core::mem::transmute::<usize, unsafe extern "C" fn(u64, u64, u64, u64) -> !>(code);
        confine(
            restricted(plan, image, restriction),
            frame,
            release(plan, image),
            if is_held(image) { arrival } else { 0 },
        )
    }
}

/// The leader waits for the others, gives the region back, and goes back into the program.
pub fn close(plan: &Plan, image: &Checked<'_>, index: usize) -> ! {
    let gate = gate(image);
    let end = plan.gate + plan.gate_len;
    let frame = build(plan, image, index, plan.gate + gate.frame(index as u64, room(image, plan.xstate.len)), None);
    let threads = image.table::<Thread>().len();
    let all = if is_held(image) {
        // They have nothing left to do elsewhere than in the gate.
        while !wait(plan.gate + gate.arrival(0), threads) {}
        true
    } else {
        // Whoever is kept from its mark, by a handler that ran first, or by a busy machine, still needs the region: then it stays.
        wait(plan.gate + gate.mark(0), threads)
    };
    let range = |from: u64, to: u64| if all { [from, to - from] } else { [0, 0] };
    let first = image.each::<Seccomp>().position(|step| step.tid == image.header().pid).map(|place| place as u32);
    let orders = Orders {
        before: range(plan.start, plan.gate),
        // Where the vdso waited is its place now, or a hole, which the program may have filled.
        behind: range(end, plan.parking),
        gate: range(plan.gate, plan.gate + code_len(image, plan.gate_len)),
        frame,
        restrictions: restricted(plan, image, first),
        stops: if is_stopped(image) { sys::process::pid() as u64 } else { 0 },
        goals: [plan.gate + later(plan, image), plan.gate + gate.goal(0), threads as u64],
        word: release(plan, image),
        arrivals: [plan.gate + gate.arrival(0), threads as u64],
    };
    if let Some(thread) = image.table::<Thread>().get(index) {
        sys::thread::set_name(&thread.comm);
    }
    if is_stopped(image) {
        tree::stops::await_own(&plan.tree);
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
        seen += marks.iter().skip(seen).take_while(|mark| mark.load(Ordering::Acquire) != 0).count();
        if seen == threads {
            return true;
        }
        let _ = sys::thread::wait(&nobody, 0, Some(PAUSE));
    }
    false
}
