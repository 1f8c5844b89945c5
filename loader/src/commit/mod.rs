//! The point of no return: this process gives up its own memory and becomes the program.
//!
//! From [`commit`] on nothing returns a `Result` to a caller that could do something about it: what fails ends the
//! process with the stage and the kernel's word ([`die`]). Nothing allocates. All signals are blocked until each
//! thread is on its own stack. The image file is never written: a restart that died can be tried again.

pub mod finish;
pub mod gate;
mod memory;
pub mod relocate;
mod stage;
mod threads;

use core::sync::atomic::{AtomicI32, Ordering};

use image_format::{Checked, ExitCode};
use loader::supervise::SAYS_RUNNING;
use sys::Errno;
use sys::text::Line;

use crate::prepare::{Plan, tree};
use crate::start::{MARK, tell};

pub use stage::Stage;

/// Where messages go.
static ERROR_FD: AtomicI32 = AtomicI32::new(2);

/// The descriptor for messages.
#[must_use]
pub fn error_fd() -> i32 {
    ERROR_FD.load(Ordering::Relaxed)
}

/// Gives up the descriptor for messages; what is left to say goes to the program's own standard error.
pub fn close_error_fd() {
    // SAFETY: the restart's own, of which nothing is left to say.
    unsafe { sys::fs::close(ERROR_FD.swap(2, Ordering::Relaxed)) };
}

/// Tells whoever awaits it that the program takes over now: nothing can fail any more.
pub fn say_ready(fd: i32) {
    let _ = sys::fs::write_all(fd, &[SAYS_RUNNING]);
    // SAFETY: the restart's own, of which nothing is left to say.
    unsafe { sys::fs::close(fd) };
    // Nothing is left of the restart that a save could meet.
    MARK.done();
}

/// Ends the process: a stage of the restore failed.
pub fn die(stage: Stage, errno: Errno) -> ! {
    die_while(stage.text(), errno)
}

/// The same of a stage that somebody else has words for.
pub fn die_while(stage: &'static str, errno: Errno) -> ! {
    let mut line = Line::filled("failed while restoring (", 0, b"", 0);
    line.fill(stage, 0, b"", 0);
    tell(error_fd(), "@: !): nothing was run", 0, line.as_bytes(), errno.into_raw());
    tree::fail(i32::from(ExitCode::Restore as u8));
    sys::process::exit(i32::from(ExitCode::Restore as u8))
}

/// Ends the process: some of the memory is not what was saved.
pub fn die_damaged() -> ! {
    tell(error_fd(), "image: damaged: use another copy: nothing was run", 0, b"", 0);
    tree::fail(i32::from(ExitCode::DamagedMemory as u8));
    sys::process::exit(i32::from(ExitCode::DamagedMemory as u8))
}

/// Starts the commit: blocks all signals and goes on in the copy, on the region's stack.
pub fn commit(plan: &'static Plan) -> ! {
    if let Err(e) = sys::signal::set_mask(sys::signal::ALL) {
        die(Stage::BlockingSignals, e);
    }
    tree::join(plan);
    let delta = plan.delta;
    let stack_top = plan.stack_top as usize;
    let entry: unsafe extern "C" fn(*const Plan) -> ! = in_the_copy;
    // SAFETY: the copy is complete, and the plan lies in the region; nothing of the old stack is used again.
    unsafe { sys::arch::leave_to((entry as usize).wrapping_add(delta), &raw const *plan as usize, stack_top) }
}

/// The first function that runs in the copy, on its own stack.
unsafe extern "C" fn in_the_copy(plan: *const Plan) -> ! {
    // SAFETY: it lies in the region, and stays until the program frees the region.
    let plan: &'static Plan = unsafe { &*plan };
    ERROR_FD.store(plan.error_fd, Ordering::Relaxed);
    tree::meets_at(&plan.tree);
    let Ok(image) = Checked::again(plan.prefix, plan.file_len) else { die(Stage::ReadingPlan, Errno::EINVAL) };
    memory::clear(plan, &image);
    memory::map(plan, &image, false);
    memory::load(plan, &image);
    memory::mend_deadlines(plan, &image);
    memory::mend_frames(plan, &image);
    memory::seal_off(plan, &image);
    finish::process(plan, &image);
    finish::descriptors(plan, &image);
    threads::resume_all(plan, &image)
}
