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
use sys::text::{Decimal, Plain};

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
        let why = "will not run with rights of its own";
        return Err(Error::refused(format_args!("restart-stub"), why, "remove its set-uid bit or capabilities")
            .code(ExitCode::Untrusted));
    }
    let mut input = Input::open(options)?;
    let pairs = heap::list(options.maps.len(), None)?;
    for (to, from) in pairs.iter_mut().zip(&options.maps) {
        *to = *from;
    }
    let image = input.image(options)?.renamed(Renames { pairs, room: heap::bytes });
    kernel::check(&image, options)?;
    state::guard::check(&image)?;
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
    let pid = image.header().pid;
    let (pid, now) = (Decimal(pid), Decimal(sys::process::pid() as u32));
    let (kept, all) = (Decimal(kept as u64), Decimal(files.backings.len() as u64));
    let what = Plain(if options.keep_pid { "keep" } else { "new" });
    tell(
        2,
        format_args!(
            "process {pid} goes on as {now} (--pid {what}); {kept} of {all} mapped files from disk, the others from the image"
        ),
    );
}
