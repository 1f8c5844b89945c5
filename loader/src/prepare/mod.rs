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
mod vdso;

use image_format::checked::Renames;
use image_format::{Checked, ExitCode};
use loader::options::Options;
use state::{Error, FilesPolicy, Result};
use sys::packed;
use sys::text::Line;

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
    let mut input = Input::open(options)?;
    let pairs = heap::list(options.maps.len(), None)?;
    for (to, from) in pairs.iter_mut().zip(&options.maps) {
        *to = *from;
    }
    let image = input.image(options)?.renamed(Renames { pairs, room: heap::bytes });
    kernel::check(&image, options)?;
    state::guard::check(&image)?;
    state::pkey::check(&image)?;
    let vdso = vdso::plan(&image, &input)?;
    let xstate = kernel::xstate(&image, options)?;
    if options.keep_pid {
        ids::check(&image)?;
    }
    kernel::raise_limits();
    // What this process was given is found by its number: what it opens itself must not lie among these.
    let base = descriptors::first_free_above(&image);
    input.move_above(base)?;
    let contents = contents::make(&image, &input, options, base)?;
    let mut files = descriptors::open(&image, options, base, contents)?;
    files::open_backings(&image, input.file.fd(), options, &mut files)?;
    if options.files == FilesPolicy::Rollback {
        for file in image.each() {
            state::regular::rollback(&image, file)?;
        }
    }
    if options.verbose {
        say(&image, options, &files);
    }
    let plan = region::build(&input, &image, files, vdso, xstate, (options.keep_pid, base))?;
    if plan.is_another_boot {
        deadline::warn(&image);
    }
    // Closing what is not the program's goes by rising numbers.
    plan.ready = sys::fs::dup_above(options.ready, plan.error_fd.max(base) + 1).unwrap_or(-1);
    Ok(plan)
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
