//! Threads: each that waits gets what it had, and none runs an instruction of the program before all are ready.
//!
//! Legal here: the program's memory; of the region each thread uses its own stack and this code until it jumps. The
//! program frees the region when its last thread has left (capture/src/local/save.rs); where threads have full frames there
//! is nothing in the program that could, and the leader does it (`gate.rs`).

use core::sync::atomic::{AtomicU32, Ordering};

use image_format::Checked;
use image_format::record::itimer::Itimer;
use image_format::record::pending::Pending;
use image_format::record::posix_timer::PosixTimer;
use image_format::record::seccomp::Seccomp;
use image_format::record::terminal::Terminal;
use image_format::record::thread::{Thread, ThreadFlags};
use state::setting::When;
use sys::Errno;
use sys::abi::signal::SIGWINCH;

use super::{Stage, die, die_while, finish, gate};
use crate::launch::drop_rights;
use crate::launch::standby::{self, Begin};
use crate::prepare::{Plan, tree};

/// Threads that are ready.
static READY: AtomicU32 = AtomicU32::new(0);
/// 1 when they may go.
static GO: AtomicU32 = AtomicU32::new(0);

/// The arguments of a new thread; they lie at the low end of its stack.
#[repr(C)]
struct Start<'a> {
    /// What it begins with.
    begin: Begin,
    plan: &'a Plan,
    image: &'a Checked<'a>,
    /// Its place in the table.
    index: usize,
    thread: &'a Thread,
    /// Its id of now.
    tid: u32,
    /// How many others there are.
    others: u32,
    /// The place of its first restriction, if it has one.
    restriction: Option<u32>,
}

/// Bytes kept for [`Start`]; behind it lies the thread's frame.
const START: u64 = 128;
const _: () = assert!(size_of::<Start<'_>>() <= START as usize);

/// Lets the other threads begin, completes this one as the process's first, and lets all go.
pub fn resume_all(plan: &'static Plan, image: &Checked<'static>) -> ! {
    let threads = image.table::<Thread>();
    let is_leader = |t: &Thread| t.flags.get() & ThreadFlags::LEADER.bits() != 0;
    let found = threads.iter().enumerate().find(|(_, t)| is_leader(t));
    let Some((first, leader)) = found else { die(Stage::FindingFirstThread, Errno::EINVAL) };
    if plan.gate_len != 0 {
        gate::write(plan, image, first);
    }
    let others = threads.len() as u32 - 1;
    let mut restrictions = (0..).zip(image.each::<Seccomp>()).peekable();
    for (index, thread) in threads.iter().enumerate() {
        let first = restrictions.peek().filter(|(_, step)| step.tid == thread.tid).map(|(place, _)| *place);
        while restrictions.next_if(|(_, step)| step.tid == thread.tid).is_some() {}
        if is_leader(thread) {
            continue;
        }
        let stack = plan.thread_stacks + index as u64 * plan.thread_stack;
        let start = stack as usize as *mut Start<'_>;
        let entry: unsafe extern "C" fn(*mut u8) -> ! = begin;
        let begin = Begin::at(entry);
        // SAFETY: the low end of a stack in the region, whose thread waits near the other end (`launch/standby.rs`).
        unsafe { start.write(Start { begin, plan, image, index, thread, tid: 0, others, restriction: first }) };
    }
    standby::begin_all();
    loop {
        let ready = READY.load(Ordering::Acquire);
        if ready == others {
            break;
        }
        let _ = sys::thread::wait(&READY, ready, None);
    }
    let old_pid = image.header().pid.get();
    complete(image, leader);
    for signal in image.each::<Pending>().with(0) {
        if let Err(e) = state::pending::restore(signal, old_pid) {
            die(Stage::QueueingSignal, e);
        }
    }
    if image.each::<Terminal>().next().is_some() {
        // The new terminal may have another size: full-screen programs draw again.
        let _ = sys::process::kill(sys::process::pid(), SIGWINCH);
    }
    for timer in image.each::<PosixTimer>() {
        if let Err(e) = state::posix_timer::restore(timer, |tid| tid_now(plan, threads, tid)) {
            die(Stage::MakingPOSIXTimer, e);
        }
    }
    if let Err(e) = state::rlimit::restore(image) {
        die(Stage::SettingLimits, e);
    }
    tree::rights(plan, image, true);
    give_up_rights(plan);
    finish::settings(image, When::Last);
    super::close_error_fd();
    // Others' locks are free by now; and all are ready, or none goes on.
    tree::meet(&plan.tree, 4);
    finish::owners(plan, image, |id| tid_now(plan, threads, id));
    finish::locks(plan, image);
    tree::stops::await_all(&plan.tree);
    if gate::is_stopped(image) && plan.tree.place() != 0 {
        tree::come(&plan.tree);
    } else {
        tree::meet(&plan.tree, 5);
    }
    finish::timers(plan, image);
    for timer in image.each::<Itimer>() {
        if let Err(e) = state::itimer::restore(timer) {
            die(Stage::StartingIntervalTimer, e);
        }
    }
    super::say_ready(plan.ready);
    GO.store(1, Ordering::Release);
    sys::thread::wake(&GO);
    if plan.gate_len != 0 {
        gate::close(plan, image, first)
    }
    sys::thread::set_name(&leader.comm);
    jump(plan, leader)
}

/// The id of now of the thread that had this id; the same when it is none of this process's.
#[inline(never)] // So that it exists once.
fn tid_now(plan: &Plan, threads: &[Thread], tid: u32) -> u32 {
    let Some(index) = threads.iter().position(|t| t.tid.get() == tid) else { return tid };
    if threads.get(index).is_some_and(|t| t.flags.get() & ThreadFlags::LEADER.bits() != 0) {
        return sys::process::pid() as u32;
    }
    let start = (plan.thread_stacks + index as u64 * plan.thread_stack) as usize as *const Start<'_>;
    // SAFETY: every other thread's record was written before it began, and its id before it was ready.
    unsafe { (*start).tid }
}

/// A new thread's first function.
unsafe extern "C" fn begin(at: *mut u8) -> ! {
    // SAFETY: this thread's own; others read it when this one is ready.
    unsafe { (*at.cast::<Start<'_>>()).tid = sys::thread::tid() as u32 };
    // SAFETY: written by `resume_all` before this thread began.
    let &Start { plan, image, index, thread, others, restriction, .. } = unsafe { &*at.cast::<Start<'_>>() };
    complete(image, thread);
    tree::rights(plan, image, false);
    give_up_rights(plan);
    sys::thread::set_name(&thread.comm);
    let frame = if plan.gate_len == 0 { 0 } else { gate::prepare(plan, image, index, at as u64 + START) };
    if READY.fetch_add(1, Ordering::AcqRel) + 1 == others {
        sys::thread::wake(&READY);
    }
    sys::thread::wait_while(&GO, 0);
    if frame != 0 {
        gate::pass(plan, image, (index, restriction), frame)
    }
    jump(plan, thread)
}

/// Gives the calling thread all that it had, but its registers.
fn complete(image: &Checked<'_>, thread: &Thread) {
    // SAFETY: the program's memory is complete; the stub uses no thread-local storage.
    if let Err((what, e)) = unsafe { state::thread::restore(thread) } {
        die_while(what, e);
    }
    let tid = thread.tid.get();
    state::sched::restore(image, tid, |what, errno| finish::warn("thread #: @", tid, what, errno));
    for signal in image.each::<Pending>().with(tid) {
        if let Err(e) = state::pending::restore(signal, image.header().pid.get()) {
            die(Stage::QueueingSignal, e);
        }
    }
}

/// The calling thread gives up what it had for the restart alone.
fn give_up_rights(plan: &Plan) {
    if plan.drops_rights
        && !plan.tree.has_own_rights()
        && let Err(e) = drop_rights()
    {
        die(Stage::GivingUpRights, e)
    }
}

/// Leaves the stub.
fn jump(plan: &Plan, thread: &Thread) -> ! {
    let context = state::thread::context(&thread.jmp);
    // Where the vdso waited is a hole by now, or still its place.
    let len = (plan.parking - plan.start) as usize;
    // SAFETY: memory, FS and GS base are in place; the context's code frees the region when all have left it.
    unsafe { sys::arch::resume(&raw const context, plan.start as usize, len) }
}
