//! Everything that can still say no: the image is read and checked, files are opened, room is found.
//!
//! Until the last line nothing of this process has changed that anybody could miss, and no file was written, except
//! by `--files rollback`, which comes last and keeps what it cuts.

mod contents;
pub mod deadline;
pub mod descriptors;
mod files;
mod given;
pub mod inherited;
mod input;
pub mod kernel;
mod region;
mod sysv;
mod tasks;
pub mod tree;
mod vdso;

use image_format::checked::Renames;
use image_format::record::memory::Backing;
use image_format::{Checked, ExitCode};
use loader::limits;
use loader::options::Options;
use state::FilesPolicy;
use state::restart::{self, Error, Result};
use sys::text::Line;

use self::files::Files;
use self::tasks::Waiting;
use self::tree::Tree;
use crate::heap;
use crate::launch::{Launched, standby};
use crate::start::tell;

pub use descriptors::{is_fragile, is_in_transit};
pub use input::{Input, memory, start as image_start};
pub use region::{Plan, WORKER_STACK, WORKERS_MAX};
pub use vdso::Special;

/// Opens the image that the options name, and reads and checks it. `privileged`: the stub's file gives it rights that its caller has not.
///
/// # Errors
/// What is wrong with it; rights that nobody is to have.
pub fn open(options: &Options<'static>, privileged: bool) -> Result<Input> {
    if privileged {
        let what = "will not run with rights of its own: remove its set-uid bit or capabilities";
        return Err(Error::about(ExitCode::Untrusted, what, 0u32, b"", None));
    }
    input::open(options)
}

/// Goes from the image to a plan, in the process that is to be the program.
///
/// # Errors
/// What is wrong, with the object and the remedy; nothing was started.
pub fn prepare(options: &Options<'static>, input: Input, launched: &Launched) -> Result<&'static Plan> {
    let pairs = heap::list(options.maps.len(), None)?;
    for (to, from) in pairs.iter_mut().zip(&options.maps) {
        *to = *from;
    }
    let (mut tree, mut files) = (Tree::default(), Files::default());
    let mut waiting = Waiting::default();
    let mut input = input;
    let base = descriptors::first_free_above(input.image());
    // Twice in a process of a tree that is not its root: that begins as a copy of the root, which has opened everything.
    loop {
        let image = input.image().renamed(Renames { pairs, room: heap::bytes });
        waiting.make_threads(&mut tree, &image, launched)?;
        if tree.place() != 0 {
            kernel::check(&image, options)?;
        }
        tree.changes = limits::rights(&image, options.as_root)?;
        state::guard::check(&image)?;
        state::pkey::check(&image)?;
        state::memory::check(&image)?;
        state::seccomp::check(&image)?;
        let vdso = vdso::plan(&image, &input)?;
        let xstate = kernel::xstate(&image);
        if tree.place() == 0 {
            files.contents = contents::make(&image, &input, options, base)?;
            restart::opens_for(image.table());
            descriptors::open(&image, options, base, &mut files)?;
        }
        // Names of Unix sockets may be relative.
        state::cwd::restore(&image)?;
        if tree.place() == 0 {
            descriptors::connect(&image, options, base, &mut files)?;
            restart::opens_for(&[]);
            // What was opened is the whole tree's: each process gets all of it, and keeps its own.
            tree::grow(&mut tree, &input, options, launched, (&files, &mut waiting))?;
            if tree.place() != 0 {
                input = input.member(options, tree.place())?;
                continue;
            }
        }
        files.backings = heap::descriptors(image.each::<Backing>().len())?;
        files::open_backings(&image, &input, options, base, &mut files)?;
        if options.files == FilesPolicy::Rollback && tree.place() == 0 {
            for file in image.each().filter(|file| !given::replaces(&image, files.descriptors, file)) {
                state::regular::rollback(&image, file)?;
            }
        }
        if options.verbose {
            say(&image, &files);
        }
        let plan = region::build(&input, &image, files, vdso, xstate, (launched, base), tree)?;
        if plan.is_another_boot {
            deadline::warn(&image);
        }
        // Threads that wait leave the stub's own memory, which goes with the old mappings.
        let mut threads = 0;
        for thread in waiting.each() {
            threads += 1;
            let stack = plan.thread_stacks + u64::from(thread.place()) * plan.thread_stack;
            thread.move_to(plan.delta, stack as usize, (stack + plan.thread_stack) as usize);
        }
        standby::wait_until_moved(threads, plan.delta);
        // Closing what is not the program's goes by rising numbers.
        let ready = if tree.place() == 0 { launched.ready } else { -1 };
        plan.ready = sys::fs::dup_above(ready, plan.error_fd.max(base) + 1).unwrap_or(-1);
        // The last that can fail here: what is made for the system stays. The page to tell the others has just been moved.
        if plan.tree.place() == 0 {
            tree::meets_at(&plan.tree);
            state::semaphore::restore(&image, options.files == FilesPolicy::Ignore)?;
        }
        tree::meet(&plan.tree, 1);
        return Ok(plan);
    }
}

fn say(image: &Checked<'_>, files: &files::Files) {
    let kept = files.backings.iter().filter(|b| **b >= 0).count();
    let mut line = Line::filled("process # goes on as ", image.header().pid.into(), b"", 0);
    line.fill("#; ", sys::process::pid() as u64, b"", 0);
    line.fill("# mapped files from disk, the others from the image", kept as u64, b"", 0);
    tell(2, "@", 0, line.as_bytes(), 0);
}
