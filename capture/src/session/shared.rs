//! The part of the walk that is made once for all processes of a tree.
//!
//! Must never know whether somebody writes what it finds: who only asks goes through it, too.

use image_format::record::header::Features;
use state::descriptor::OpenFile;
use state::socket::Queues;
use state::{Result, Save, Target};

/// What descriptors lead to, and what is the system's, of all processes of a tree at once: in the same order for a save and for who only asks
/// what would block one ([`Target::blocked`]).
///
/// # Errors
/// Something that cannot be carried.
pub fn shared_objects<T: Target>(
    save: &mut Save<'_, '_, T>,
    files: &[OpenFile],
    queues: &Queues<'_>,
) -> Result<Features> {
    let mut features = Features::empty();
    save.part(|save| state::regular::save(save, files))?;
    save.part(|save| state::directory::save(save, files))?;
    save.part(|save| state::device::save(save, files))?;
    save.part(|save| state::pipe::save(save, files))?;
    save.part(|save| state::terminal::save(save, files))?;
    save.part(|save| state::pty::save(save, files))?;
    save.part(|save| state::eventfd::save(save, files))?;
    save.part(|save| state::timerfd::save(save, files))?;
    save.part(|save| state::signalfd::save(save, files))?;
    save.part(|save| state::socket::save(save, files, queues))?;
    save.part(|save| state::inotify::save(save, files))?;
    save.part(|save| state::pidfd::save(save, files))?;
    save.part(|save| state::epoll::save(save, files))?;
    save.part(|save| state::io_uring::save(save, files))?;
    save.part(|save| state::sigio::save(save, files).map(|found| features |= found))?;
    save.part(|save| state::lock::save(save, files))?;
    save.part(|save| state::descriptor::save(save, files))?;
    save.part(|save| state::semaphore::save(save).map(|found| features |= found))?;
    Ok(features)
}
