//! The process around its memory: mm fields, signal actions, umask, descriptors, locks.
//!
//! Legal here: the region, and the program's memory, which is complete.

use image_format::Checked;
use image_format::note::{self, standard};
use image_format::record::descriptor::Descriptor;
use image_format::record::lock::Lock;
use image_format::record::mm::Mm;
use image_format::record::pipe::Pipe;
use image_format::record::sigaction::Sigaction;
use image_format::record::terminal::Terminal;
use sys::Errno;

use super::die;
use crate::prepare::{Plan, is_fragile};

/// mm fields, umask, signal actions.
pub fn process(plan: &Plan, image: &Checked<'_>) {
    let auxv = image.note_of(note::CORE, standard::NT_AUXV);
    if let Err(e) = state::mm::restore(&image.single::<Mm>(), auxv, plan.exe) {
        die("setting the mm fields", e);
    }
    state::umask::restore(image);
    for (signal, action) in (1..).zip(image.table::<Sigaction>()) {
        if let Err(e) = state::sigaction::restore(signal, action) {
            die("setting a signal action", e);
        }
    }
}

/// The program's descriptors take their numbers; all others are closed.
pub fn descriptors(plan: &Plan, image: &Checked<'_>) {
    let wanted = image.table::<Descriptor>();
    for (descriptor, open) in wanted.iter().zip(plan.descriptors) {
        if let Err(e) = state::descriptor::restore(descriptor, *open) {
            die("putting a descriptor in place", e);
        }
    }
    let first = |id: u32| wanted.iter().find(|d| d.file.get() == id).map(|d| d.fd.get() as i32);
    for terminal in image.table::<Terminal>() {
        if let Some(fd) = first(terminal.id.get()) {
            state::terminal::restore(terminal, fd);
        }
    }
    for pipe in image.table::<Pipe>() {
        if let Some(fd) = first(pipe.id.get()) {
            state::terminal::restore_flags(pipe.flags.get(), fd);
        }
    }
    close_others(plan, wanted);
}

/// Takes the locks again that closing descriptors has lost: the last close of this process is behind.
pub fn locks(image: &Checked<'_>) {
    for lock in image.table::<Lock>().iter().filter(|l| is_fragile(l)) {
        if let Err(e) = state::lock::restore(lock, lock.fd.get() as i32) {
            die("taking a lock again", e.errno().unwrap_or(Errno::EAGAIN));
        }
    }
}

/// Closes all but the program's descriptors and the two for messages.
fn close_others(plan: &Plan, wanted: &[Descriptor]) {
    let mut from = 0;
    let ours = [plan.error_fd, plan.ready].into_iter().filter_map(|fd| u32::try_from(fd).ok());
    let keep = wanted.iter().map(|d| d.fd.get()).chain(ours).chain([u32::MAX]);
    for fd in keep {
        if fd > from
            && let Err(e) = sys::fs::close_range(from, fd - 1)
        {
            die("closing the stub's descriptors", e);
        }
        from = fd.saturating_add(1);
    }
}
