//! The process around its memory: mm fields, signal actions, umask, descriptors, locks.
//!
//! Legal here: the region, and the program's memory, which is complete.

use image_format::note::{self, standard};
use image_format::record::descriptor::Descriptor;
use image_format::record::lock::Lock;
use image_format::record::mm::Mm;
use image_format::record::pipe::Pipe;
use image_format::record::sigaction::Sigaction;
use image_format::record::terminal::Terminal;
use image_format::{Image, Record};
use sys::Errno;

use super::die;
use crate::prepare::{Plan, is_fragile};

fn table<'i, R: Record>(image: &Image<'i>) -> &'i [R] {
    match image.table() {
        Ok(table) => table,
        Err(_) => die("reading a table", Errno::EINVAL),
    }
}

/// mm fields, umask, signal actions.
pub fn process(plan: &Plan, image: &Image<'_>) {
    let (Ok(mm), Ok(auxv)) = (image.single::<Mm>(), image.note_of(note::CORE, standard::NT_AUXV)) else {
        die("reading the mm fields", Errno::EINVAL)
    };
    if let Err(e) = state::mm::restore(mm, auxv, plan.exe) {
        die("setting the mm fields", e);
    }
    if state::umask::restore(image).is_err() {
        die("setting the umask", Errno::EINVAL);
    }
    for (signal, action) in (1..).zip(table::<Sigaction>(image)) {
        if let Err(e) = state::sigaction::restore(signal, action) {
            die("setting a signal action", e);
        }
    }
}

/// The program's descriptors take their numbers; all others are closed; locks that closing has lost are taken again.
pub fn descriptors(plan: &Plan, image: &Image<'_>) {
    let wanted = table::<Descriptor>(image);
    for (descriptor, open) in wanted.iter().zip(plan.descriptors) {
        if let Err(e) = state::descriptor::restore(descriptor, *open) {
            die("putting a descriptor in place", e);
        }
    }
    let first = |id: u32| wanted.iter().find(|d| d.file.get() == id).map(|d| d.fd.get() as i32);
    for terminal in table::<Terminal>(image) {
        if let Some(fd) = first(terminal.id.get()) {
            state::terminal::restore(terminal, fd);
        }
    }
    for pipe in table::<Pipe>(image) {
        if let Some(fd) = first(pipe.id.get()) {
            state::terminal::restore_flags(pipe.flags.get(), fd);
        }
    }
    close_others(plan, wanted);
    for lock in table::<Lock>(image).iter().filter(|l| is_fragile(l)) {
        if let Err(e) = state::lock::restore(lock, lock.fd.get() as i32) {
            die("taking a lock again", e.errno().unwrap_or(Errno::EAGAIN));
        }
    }
}

/// Closes all but the program's descriptors and the one for messages.
fn close_others(plan: &Plan, wanted: &[Descriptor]) {
    let mut from = 0;
    let keep = wanted.iter().map(|d| d.fd.get()).chain(u32::try_from(plan.error_fd).ok()).chain([u32::MAX]);
    for fd in keep {
        if fd > from
            && let Err(e) = sys::fs::close_range(from, fd - 1)
        {
            die("closing the stub's descriptors", e);
        }
        from = fd.saturating_add(1);
    }
}
