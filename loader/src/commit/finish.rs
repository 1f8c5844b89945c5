//! The process around its memory: mm fields, signal actions, umask, descriptors, locks.
//!
//! Legal here: the region, and the program's memory, which is complete.

use image_format::Checked;
use image_format::note::{self, standard};
use image_format::record::content::Content;
use image_format::record::descriptor::Descriptor;
use image_format::record::lock::Lock;
use image_format::record::mm::Mm;
use image_format::record::pipe::Pipe;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::record::sigaction::Sigaction;
use image_format::record::terminal::Terminal;
use image_format::record::timerfd::Timerfd;
use state::setting::When;
use sys::Errno;
use sys::fs::Fd;
use sys::packed;
use sys::text::{Line, Packed};
use zerocopy::little_endian::U32;

use super::{die, error_fd};
use crate::prepare::{Plan, is_fragile, tree};
use crate::start::tell;

/// mm fields, umask, signal actions.
pub fn process(plan: &Plan, image: &Checked<'_>) {
    let auxv = image.note_of(note::CORE, standard::NT_AUXV);
    if let Err(e) = state::mm::restore(&image.single::<Mm>(), auxv, plan.exe) {
        die(packed!("setting the mm fields"), e);
    }
    state::umask::restore(image);
    settings(image, tree::settings_first(plan));
    for (signal, action) in (1..).zip(image.each::<Sigaction>()) {
        if let Err(e) = state::sigaction::restore(signal, action) {
            die(packed!("setting a signal action"), e);
        }
    }
}

/// What the process has set for itself.
pub fn settings(image: &Checked<'_>, when: When) {
    state::setting::restore(image, when, |which, errno| warn(packed!("setting #: it"), which, "", errno));
}

/// Says that a thing cannot be had again, and that the process goes on without.
/// `object` is a pattern, see [`Text::fill`].
pub fn warn(object: Packed, number: u32, what: &str, errno: Errno) {
    let line = Line::filled(object, number.into(), what.as_bytes(), 0);
    tell(error_fd(), packed!("@ cannot be had again (!): it goes on without"), 0, line.as_bytes(), errno.into_raw());
}

/// The program's descriptors take their numbers; all others are closed.
pub fn descriptors(plan: &Plan, image: &Checked<'_>) {
    let wanted = image.table::<Descriptor>();
    // What is watched is known by its number too, and that may be another's by now: so this comes first.
    if plan.tree.place() == 0
        && let Err((_, e)) = state::epoll::control(image, 0, plan.descriptors)
    {
        die(packed!("watching descriptors"), e);
    }
    if let Err(e) = tree::pidfds(plan, image) {
        die(packed!("opening a pidfd"), e);
    }
    for (descriptor, open) in wanted.iter().zip(plan.descriptors) {
        if own(plan, descriptor.fd).is_some()
            && let Err(e) = state::descriptor::restore(descriptor, *open)
        {
            die(packed!("placing a descriptor"), e);
        }
    }
    for terminal in image.each::<Terminal>() {
        if let Some(fd) = first(plan, image, terminal.id) {
            state::terminal::restore(terminal, fd);
        }
    }
    for pipe in image.each::<Pipe>() {
        if let Some(fd) = first(plan, image, pipe.id) {
            state::terminal::restore_flags(pipe.flags.get(), fd);
        }
    }
    // All have mapped what may not be mapped any more once it is sealed.
    tree::meet(&plan.tree, 3);
    for (content, made) in image.each::<Content>().zip(plan.contents).filter(|_| plan.tree.place() == 0) {
        if let Err(e) = state::content::finish(content, *made) {
            die(packed!("sealing shared contents"), e);
        }
    }
    if cfg!(feature = "tree") && plan.tree.place() == 0 {
        state::sysv::finish(image, plan.contents);
    } else if cfg!(feature = "tree") {
        state::semaphore::finish(image, image.header().pid.get());
    }
    close_others(plan, wanted);
}

/// The first of the program's descriptors that leads to an open file; `None` when that is another process's of the tree.
pub fn first(plan: &Plan, image: &Checked<'_>, id: U32) -> Option<Fd> {
    image.each::<Descriptor>().find(|d| d.file == id).and_then(|d| own(plan, d.fd))
}

/// This process's own number behind one of the tree's table.
pub fn own(plan: &Plan, fd: U32) -> Option<Fd> {
    Some((fd.get() & FD_MASK) as Fd).filter(|_| fd.get() >> FD_BITS == plan.tree.place())
}

/// Timers that are read like files go on: as late as can be, the program has not run yet.
pub fn timers(plan: &Plan, image: &Checked<'_>) {
    for timer in image.each::<Timerfd>() {
        if let Some(fd) = first(plan, image, timer.id)
            && let Err(e) = state::timerfd::start(timer, fd)
        {
            die(packed!("starting a timerfd"), e);
        }
    }
}

/// Takes the locks again that closing descriptors has lost: the last close of this process is behind.
pub fn locks(plan: &Plan, image: &Checked<'_>) {
    for lock in image.each::<Lock>().filter(|l| is_fragile(l)) {
        if let Some(fd) = own(plan, lock.fd)
            && let Err(e) = state::lock::restore(lock, fd)
        {
            die(packed!("taking a lock again"), e.errno().unwrap_or(Errno::EAGAIN));
        }
    }
}

/// Closes all but the program's descriptors and the two for messages.
fn close_others(plan: &Plan, wanted: &[Descriptor]) {
    let mut from = 0;
    let mut close_up_to = |fd: u32| {
        if fd > from
            && let Err(e) = sys::fs::close_range(from, fd - 1)
        {
            die(packed!("closing descriptors"), e);
        }
        from = fd.saturating_add(1);
    };
    wanted.iter().filter_map(|descriptor| own(plan, descriptor.fd)).for_each(|fd| close_up_to(fd as u32));
    // Either may be -1: there is none.
    for fd in [plan.error_fd, plan.ready] {
        if fd >= 0 {
            close_up_to(fd as u32);
        }
    }
    close_up_to(u32::MAX);
}
