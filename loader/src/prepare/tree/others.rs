//! What a process of a tree has of the others, and of itself: pidfds, which can be opened when all are there, and its own files of `/proc`; what it alone
//! can make: io_uring instances.

use image_format::Checked;
use image_format::record::io_uring::IoUring;
use image_format::record::pidfd::{Pidfd, PidfdOf};
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::record::regular::Regular;
use state::FilesPolicy;

use super::super::region::Plan;
use crate::commit::finish;

/// Opens the pidfds of other processes, and what is this process's own in `/proc`, in the place of what the root has opened for them, and adds
/// pidfds to the epoll instances that watch them.
///
/// # Errors
/// The kernel's.
pub fn pidfds(plan: &Plan, image: &Checked<'_>) -> sys::Result<()> {
    for (descriptor, open) in finish::owned(plan, image) {
        let id = descriptor.file.get();
        // The root has added its own.
        let is_ring = plan.tree.place() != 0 && image.each::<IoUring>().place(id).is_some();
        let other = image.each::<PidfdOf>().with(id).next().zip(image.each::<Pidfd>().with(id).next());
        if !is_ring {
            let first = state::descriptor::first(image, id).and_then(|at| plan.descriptors.get(at));
            let Some(first) = first.copied() else { continue };
            let again = || match other {
                Some((other, pidfd)) => Some(state::pidfd::open(pidfd, other.pid.get())),
                // The root's own is there already.
                None if id >> FD_BITS == 0 => None,
                None => {
                    let file = image.each::<Regular>().with(id).next()?;
                    let own = state::regular::is_own(image.string(file.path));
                    // By its own number: the table of processes is gone.
                    let open = || state::regular::restore(image, file, id & FD_MASK, FilesPolicy::Ignore);
                    own.then(|| Ok(open().unwrap_or_else(|e| e.never()).release()))
                }
            };
            // All that was opened for the program closes at an exec: what does not was opened here, for a descriptor before this one.
            if sys::fs::closes_at_exec(first)? {
                let Some(made) = again() else { continue };
                let made = made?;
                // SAFETY: numbers that wait for the program, and what was made for one of them.
                unsafe { sys::fs::dup_to(made, first, false) }?;
                // SAFETY: numbers that wait for the program, and what was made for one of them.
                unsafe { sys::fs::close(made) };
            }
            if *open != first {
                // SAFETY: numbers that wait for the program, and what was made for one of them.
                unsafe { sys::fs::dup_to(first, *open, false) }?;
            }
        }
        if (other.is_some() || is_ring) && descriptor.fd == descriptor.file {
            state::epoll::control_one(image, plan.descriptors, id, *open)?;
        }
    }
    Ok(())
}
