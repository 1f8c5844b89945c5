//! What a process of a tree has of the others: pidfds, which can be opened when all are there. And what it alone can make: io_uring instances.

use image_format::Checked;
use image_format::record::io_uring::IoUring;
use image_format::record::pidfd::{Pidfd, PidfdOf};

use super::super::region::Plan;
use crate::commit::finish;

/// Opens the pidfds of other processes in the place of what was opened for them, and adds them to the epoll instances that watch them.
///
/// # Errors
/// The kernel's.
pub fn pidfds(plan: &Plan, image: &Checked<'_>) -> sys::Result<()> {
    for (descriptor, open) in finish::owned(plan, image) {
        let id = descriptor.file.get();
        // The root has added its own.
        let is_ring = plan.tree.place() != 0 && image.each::<IoUring>().place(id).is_some();
        let other = image.each::<PidfdOf>().with(id).next();
        let pidfd = image.each::<Pidfd>().with(id).next();
        let first = state::descriptor::first(image, id).and_then(|at| plan.descriptors.get(at));
        if let (Some(other), Some(pidfd), Some(first)) = (other, pidfd, first.copied()) {
            // All that was opened for the program closes at an exec: what does not was opened here, for a descriptor before this one.
            if sys::fs::closes_at_exec(first)? {
                let made = state::pidfd::open(pidfd, other.pid.get())?;
                sys::fs::dup_to(made, first, false)?;
                sys::fs::close(made);
            }
            if *open != first {
                sys::fs::dup_to(first, *open, false)?;
            }
        } else if !is_ring {
            continue;
        }
        if descriptor.fd == descriptor.file {
            state::epoll::control_one(image, plan.descriptors, id, *open)?;
        }
    }
    Ok(())
}
