//! The process around its memory: mm fields, signal actions, umask, descriptors, locks.
//!
//! Legal here: the region, and the program's memory, which is complete.

use image_format::Checked;
use image_format::note::{self, standard};
use image_format::record::content::Content;
use image_format::record::descriptor::Descriptor;
use image_format::record::io_uring::IoUring;
use image_format::record::lock::Lock;
use image_format::record::mm::Mm;
use image_format::record::pipe::Pipe;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::record::sigaction::Sigaction;
use image_format::record::sigio::{ROOT_GROUP, Sigio};
use image_format::record::terminal::Terminal;
use image_format::record::timerfd::Timerfd;
use state::setting::When;
use sys::Errno;
use sys::fs::Fd;
use sys::text::Line;
use zerocopy::little_endian::U32;

use super::{Stage, die, error_fd};
use crate::prepare::{Plan, is_fragile, is_in_transit, tree};
use crate::start::tell;

/// mm fields, umask, signal actions.
pub fn process(plan: &Plan, image: &Checked<'_>) {
    let auxv = image.note_of(note::CORE, standard::NT_AUXV);
    if let Err(e) = state::mm::restore(&image.single::<Mm>(), auxv, plan.exe) {
        die(Stage::SettingMmFields, e);
    }
    state::umask::restore(image);
    settings(image, tree::settings_first(plan));
    for (signal, action) in (1..).zip(image.each::<Sigaction>()) {
        if let Err(e) = state::sigaction::restore(signal, action) {
            die(Stage::SettingSignalAction, e);
        }
    }
}

/// What the process has set for itself.
pub fn settings(image: &Checked<'_>, when: When) {
    state::setting::restore(image, when, |which, errno| warn("setting #: it", which, "", errno));
}

/// Says that a thing cannot be had again, and that the process goes on without.
/// `object` is a pattern, see [`Text::fill`].
pub fn warn(object: &'static str, number: u32, what: &str, errno: Errno) {
    let line = Line::filled(object, number.into(), what.as_bytes(), 0);
    tell(error_fd(), "@ cannot be had again (!): it goes on without", 0, line.as_bytes(), errno.into_raw());
}

/// The program's descriptors take their numbers; all others are closed.
pub fn descriptors(plan: &Plan, image: &Checked<'_>) {
    // What is watched is known by its number too, and that may be another's by now: so this comes first.
    if plan.tree.place() == 0
        && let Err((_, e)) = state::epoll::control(image, 0, plan.descriptors)
    {
        die(Stage::WatchingDescriptors, e);
    }
    if plan.tree.place() == 0 {
        timers_in_transit(plan, image);
    }
    if let Err(e) = tree::pidfds(plan, image) {
        die(Stage::OpeningPidfd, e);
    }
    for (descriptor, open) in owned(plan, image) {
        if let Err(e) = state::descriptor::restore(descriptor, *open) {
            die(Stage::PlacingDescriptor, e);
        }
    }
    for ring in image.each::<IoUring>() {
        if let Some(fd) = first(plan, image, ring.id)
            && let Err(e) = state::io_uring::finish(image, ring, fd)
        {
            die(Stage::RegisteringWithIoUring, e);
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
            die(Stage::SealingSharedContents, e);
        }
    }
    if plan.tree.place() == 0 {
        state::sysv::finish(image, plan.contents);
    } else {
        state::semaphore::finish(image, image.header().pid.get());
    }
    close_others(plan, image);
}

/// The first of the program's descriptors that leads to an open file; `None` when that is another process's of the tree.
pub fn first(plan: &Plan, image: &Checked<'_>, id: U32) -> Option<Fd> {
    own(plan, id).filter(|_| state::descriptor::first(image, id.get()).is_some())
}

/// This process's own number behind one of the tree's table.
pub fn own(plan: &Plan, fd: U32) -> Option<Fd> {
    Some((fd.get() & FD_MASK) as Fd).filter(|_| fd.get() >> FD_BITS == plan.tree.place())
}

/// This process's descriptors, and under what they are open: all of a process lie together in their table.
pub fn owned<'i>(plan: &Plan, image: &Checked<'i>) -> impl Iterator<Item = (&'i Descriptor, &'static Fd)> + use<'i> {
    let table = image.table::<Descriptor>();
    let begin = table.partition_point(|one| one.fd.get() >> FD_BITS < plan.tree.place());
    let end = table.partition_point(|one| one.fd.get() >> FD_BITS <= plan.tree.place());
    let owned = table.get(begin..end).unwrap_or_default();
    owned.iter().zip(plan.descriptors.get(begin..).unwrap_or_default())
}

/// Timers that are read like files go on: as late as can be, the program has not run yet.
pub fn timers(plan: &Plan, image: &Checked<'_>) {
    for timer in image.each::<Timerfd>() {
        if let Some(fd) = first(plan, image, timer.id)
            && let Err(e) = state::timerfd::start(timer, fd)
        {
            die(Stage::StartingTimerfd, e);
        }
    }
}

/// Those that nobody has but a message: they can be reached now alone.
fn timers_in_transit(plan: &Plan, image: &Checked<'_>) {
    for timer in image.each::<Timerfd>() {
        let has = |(descriptor, _): &(&Descriptor, &Fd)| descriptor.file == timer.id;
        if let Some((descriptor, open)) = image.table::<Descriptor>().iter().zip(plan.descriptors).find(has)
            && is_in_transit(image, descriptor)
            && let Err(e) = state::timerfd::start(timer, *open)
        {
            die(Stage::StartingTimerfd, e);
        }
    }
}

/// Who gets signals of what descriptors have to tell: all threads of all processes are there. `now`: an id as it is now.
pub fn owners(plan: &Plan, image: &Checked<'_>, now: impl Fn(u32) -> u32) {
    for sigio in image.each::<Sigio>() {
        let owner = if sigio.how.get() & ROOT_GROUP == 0 { now(sigio.owner.get()) } else { plan.tree.group() };
        if let Some(fd) = first(plan, image, sigio.id)
            && let Err(e) = state::sigio::restore(sigio, fd, owner)
        {
            die(Stage::SettingOwner, e);
        }
    }
}

/// Takes the locks again that closing descriptors has lost: the last close of this process is behind.
pub fn locks(plan: &Plan, image: &Checked<'_>) {
    for lock in image.each::<Lock>().filter(|l| is_fragile(l)) {
        if let Some(fd) = own(plan, lock.fd)
            && let Err(e) = state::lock::restore(lock, fd)
        {
            die(Stage::TakingLockAgain, e);
        }
    }
}

/// Closes all but the program's descriptors and the two for messages.
fn close_others(plan: &Plan, image: &Checked<'_>) {
    let mut from = 0;
    let mut close_up_to = |fd: u32| {
        if fd > from
            // SAFETY: the restart's own, of no use to the program.
            && let Err(e) = unsafe { sys::fs::close_range(from, fd - 1) }
        {
            die(Stage::ClosingDescriptors, e);
        }
        from = fd.saturating_add(1);
    };
    owned(plan, image).for_each(|(descriptor, _)| close_up_to(descriptor.fd.get() & FD_MASK));
    // Either may be -1: there is none.
    for fd in [plan.error_fd, plan.ready] {
        if fd >= 0 {
            close_up_to(fd as u32);
        }
    }
    close_up_to(u32::MAX);
}
