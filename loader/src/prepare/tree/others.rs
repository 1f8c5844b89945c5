//! What a process of a tree has of the others: pidfds, which can be opened when all are there.

use image_format::Checked;
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
        let Some(other) = image.each::<PidfdOf>().with(id).next() else { continue };
        let pidfd = image.each::<Pidfd>().with(id).next();
        let first = state::descriptor::first(image, id).and_then(|at| plan.descriptors.get(at));
        let (Some(pidfd), Some(first)) = (pidfd, first.copied()) else { continue };
        // All that was opened for the program closes at an exec: what does not was opened here, for a descriptor before this one.
        if sys::fs::closes_at_exec(first)? {
            let made = state::pidfd::open(pidfd, other.pid.get())?;
            // SAFETY: numbers that wait for the program, and what was made for one of them.
            unsafe { sys::fs::dup_to(made, first, false) }?;
            // SAFETY: numbers that wait for the program, and what was made for one of them.
            unsafe { sys::fs::close(made) };
        }
        if *open != first {
            // SAFETY: numbers that wait for the program, and what was made for one of them.
            unsafe { sys::fs::dup_to(first, *open, false) }?;
        }
        if descriptor.fd == descriptor.file {
            state::epoll::control_one(image, plan.descriptors, id, *open)?;
        }
    }
    Ok(())
}
