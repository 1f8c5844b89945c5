//! Everything that can still say no: the image is read and checked, files are opened, room is found.
//!
//! Until the last line nothing of this process has changed that anybody could miss, and no file was written, except
//! by `--files rollback`, which comes last and keeps what it cuts.

mod contents;
pub mod deadline;
mod descriptors;
mod files;
mod ids;
mod input;
mod kernel;
mod region;
#[cfg(feature = "tree")]
mod sysv;
#[cfg_attr(not(feature = "tree"), path = "alone.rs")]
pub mod tree;
mod vdso;

use image_format::checked::Renames;
use image_format::record::memory::Backing;
use image_format::{Checked, ExitCode};
use loader::options::Options;
use state::{Error, FilesPolicy, Result};
use sys::packed;
use sys::text::Line;

use self::files::Files;
use self::tree::Tree;
use crate::heap;
use crate::start::tell;

pub use descriptors::is_fragile;
pub use input::Input;
pub use region::{Plan, WORKER_STACK, WORKERS_MAX};
pub use vdso::Special;

/// Goes from the command line to a plan. `privileged`: the stub's file gives it rights that its caller has not.
///
/// # Errors
/// What is wrong, with the object and the remedy; nothing was started.
pub fn prepare(options: &Options<'static>, privileged: bool) -> Result<&'static Plan> {
    if privileged {
        let what = packed!("restart-stub: will not run with rights of its own: remove its set-uid bit or capabilities");
        return Err(Error::about(what, 0u32, b"", None).code(ExitCode::Untrusted));
    }
    let pairs = heap::list(options.maps.len(), None)?;
    for (to, from) in pairs.iter_mut().zip(&options.maps) {
        *to = *from;
    }
    let (mut file, mut part) = input::open(options)?;
    let (mut tree, mut files, mut base) = (Tree::default(), Files::default(), 0);
    // Twice in a process of a tree that is not its root: that begins as a copy of the root, which has opened everything.
    loop {
        let mut input = Input::read(file, options, part)?;
        let image = input.image(options)?.renamed(Renames { pairs, room: heap::bytes });
        #[cfg(not(feature = "tree"))]
        tree::check(&image)?;
        kernel::check(&image, options)?;
        state::guard::check(&image)?;
        state::pkey::check(&image)?;
        state::memory::check(&image)?;
        #[cfg(feature = "tree")]
        state::seccomp::check(&image)?;
        let vdso = vdso::plan(&image, &input)?;
        let xstate = kernel::xstate(&image, options)?;
        if options.keep_pid {
            ids::check(&image)?;
        }
        if tree.place() == 0 {
            kernel::raise_limits();
            // What this process was given is found by its number: what it opens itself must not lie among these.
            base = descriptors::first_free_above(&image);
            input.move_above(base)?;
            files.contents = contents::make(&image, &input, options, base)?;
            descriptors::open(&image, options, base, &mut files).map_err(|e| tree::told(&image, e))?;
        }
        // Names of Unix sockets may be relative.
        state::cwd::restore(&image)?;
        if tree.place() == 0 {
            descriptors::connect(&image, base, &mut files).map_err(|e| tree::told(&image, e))?;
            // What was opened is the whole tree's: each process gets all of it, and keeps its own.
            tree = tree::grow(&image, options, &files)?;
            if tree.place() != 0 {
                part = input.member(&image, tree.place()).map_err(|fault| Error::of_image(options.image, fault))?;
                file = input.file;
                continue;
            }
        }
        tree = tree.with_rights(&image)?;
        files.backings = heap::descriptors(image.each::<Backing>().len())?;
        files::open_backings(&image, &input, options, &mut files)?;
        if options.files == FilesPolicy::Rollback && tree.place() == 0 {
            for file in image.each() {
                state::regular::rollback(&image, file)?;
            }
        }
        if options.verbose {
            say(&image, options, &files);
        }
        let plan = region::build(&input, &image, files, vdso, xstate, (options.keep_pid, base), tree)?;
        if plan.is_another_boot {
            deadline::warn(&image);
        }
        // Closing what is not the program's goes by rising numbers.
        let ready = if tree.place() == 0 { options.ready } else { -1 };
        plan.ready = sys::fs::dup_above(ready, plan.error_fd.max(base) + 1).unwrap_or(-1);
        // The last that can fail here: what is made for the system stays. The page to tell the others has just been moved.
        #[cfg(feature = "tree")]
        if plan.tree.place() == 0 {
            tree::meets_at(&plan.tree);
            state::semaphore::restore(&image, options.files == FilesPolicy::Ignore)?;
        }
        tree::meet(&plan.tree, 1);
        return Ok(plan);
    }
}

fn say(image: &Checked<'_>, options: &Options<'_>, files: &files::Files) {
    let kept = files.backings.iter().filter(|b| **b >= 0).count();
    let what: &[u8] = if options.keep_pid { b"keep" } else { b"new" };
    let mut line = Line::filled(packed!("process # goes on as "), image.header().pid.into(), b"", 0);
    line.fill(packed!("# (--pid @); "), sys::process::pid() as u64, what, 0);
    line.fill(packed!("# of "), kept as u64, b"", 0);
    line.fill(packed!("# mapped files from disk, the others from the image"), files.backings.len() as u64, b"", 0);
    tell(2, packed!("@"), 0, line.as_bytes(), 0);
}
