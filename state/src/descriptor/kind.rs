//! What a descriptor leads to: its name, and which of the objects it is. What is none of them is refused by name.

use core::ffi::CStr;

use sys::abi::{O_ASYNC, O_PATH, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use sys::text::{Shown, Text};

use super::{Kind, OpenFile};
use crate::{Error, Object, Result, Save, Target, content, device, directory, pidfd, pipe, pty, regular, terminal};

/// Finds the name and the kind of a description; `own`: its process's directory in `/proc`.
///
/// # Errors
/// It cannot be examined, or not be carried.
pub(super) fn tell<T: Target>(save: &mut Save<'_, '_, T>, file: &mut OpenFile, own: &[u8]) -> Result<()> {
    let failed = |e| Error::failed(Object::bare(file.fd), "cannot be examined", e);
    let (proc, number) = save.target.at(file.fd);
    let link = Text::<32>::of(format_args!("fd/{number}"));
    let mut buffer = [0; 4097];
    let name = sys::fs::read_link_at(proc, link.as_c_str(), &mut buffer).map_err(failed)?;
    file.named = u32::from(name.starts_with(b"/"));
    let mut to = Text::new();
    let name = if file.nlink != 0 && name.ends_with(content::DELETED) {
        let other = regular::other_name(file.dev, file.ino, name, &mut to);
        let opened = sys::fs::open_at(proc, link.as_c_str(), O_PATH, 0);
        if other.is_none() && opened.is_ok_and(|opened| regular::is_below(file.flags, opened.fd())) {
            file.nlink = 0;
        }
        other.unwrap_or(name)
    } else {
        let inside = regular::inner_name(proc, (file.dev, file.ino), name);
        let own = inside.as_ref().map_or(own, Text::as_bytes);
        match regular::own_namespace(proc, file, name) {
            Some(namespace) => {
                file.named = 1;
                to.add(format_args!("/proc/self/{}", Shown(namespace.as_bytes())));
                to.as_bytes()
            }
            None => regular::own_name(own, name, &mut to).unwrap_or(name),
        }
    };
    let kind = classify(save, file, link.as_c_str(), name)?;
    file.kind = kind as u32;
    // It was opened so, has no news to tell, and is opened so again.
    if file.driven != 0 && matches!(kind, Kind::Regular | Kind::Directory | Kind::Device | Kind::Content) {
        file.flags |= O_ASYNC;
        file.driven = 0;
    }
    file.path = if file.kind == Kind::Directory as u32 && file.gone != 0 {
        save.notes.string(directory::removed_name(name).as_bytes())?
    } else {
        save.notes.string(name)?
    };
    Ok(())
}

fn classify<T: Target>(save: &mut Save<'_, '_, T>, file: &mut OpenFile, link: &CStr, name: &[u8]) -> Result<Kind> {
    let fd = file.fd;
    let refuse = |kind: &str| {
        Error::refused(
            Object::descriptor(fd, format_args!("{kind} {}", Shown(name))),
            "cannot be carried yet",
            "close it before the save",
        )
    };
    match file.mode & S_IFMT {
        S_IFLNK | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK if file.flags & O_PATH != 0 && file.named != 0 => {
            regular::check(save.target.at(fd).0, file, name)
        }
        S_IFREG => regular::check(save.target.at(fd).0, file, name),
        S_IFDIR => directory::check(save.target.at(fd).0, link, file, name).map(|removed| {
            file.gone = u32::from(removed);
            Kind::Directory
        }),
        S_IFCHR if device::check(file.rdev) => Ok(Kind::Device),
        S_IFCHR if pty::is_master(file) => Ok(Kind::Pty),
        S_IFCHR if terminal::check(save.target, file) => Ok(Kind::Terminal),
        S_IFCHR if terminal::is_hung_up(save.target, file) => {
            (file.gone, file.offset) = (1, pty::number_of(file));
            Ok(Kind::Pty)
        }
        S_IFCHR => Err(refuse("device")),
        S_IFIFO if file.flags & O_PATH != 0 => Err(refuse("O_PATH of a pipe")),
        S_IFIFO => pipe::check(save.target.at(fd).0, file, name).map(|()| Kind::Pipe),
        S_IFSOCK if file.flags & O_PATH != 0 => Err(refuse("O_PATH of a socket")),
        S_IFSOCK => Ok(Kind::Socket),
        S_IFBLK => Err(refuse("block device")),
        S_IFLNK => Err(refuse("symbolic link")),
        _ => match name {
            b"anon_inode:[eventfd]" => Ok(Kind::Eventfd),
            b"anon_inode:[timerfd]" => Ok(Kind::Timerfd),
            b"anon_inode:[signalfd]" => Ok(Kind::Signalfd),
            b"anon_inode:[eventpoll]" => Ok(Kind::Epoll),
            b"anon_inode:inotify" => Ok(Kind::Inotify),
            b"anon_inode:[io_uring]" => Ok(Kind::IoUring),
            b"anon_inode:[pidfd]" => pidfd::check(save.target, file).map(|other| {
                file.other = u32::from(other);
                Kind::Pidfd
            }),
            _ => Err(refuse(anonymous_kind(name))),
        },
    }
}

/// The kind of a descriptor that is neither file nor socket: the kernel names it `anon_inode:[kind]`.
fn anonymous_kind(name: &[u8]) -> &'static str {
    let has = |what: &[u8]| name.windows(what.len()).any(|w| w == what);
    [
        ("fanotify", "fanotify"),
        ("pidfd", "pidfd"),
        ("userfaultfd", "userfaultfd"),
        ("perf_event", "perf event"),
        ("bpf", "bpf object"),
        ("kvm", "KVM"),
    ]
    .iter()
    .find(|(word, _)| has(word.as_bytes()))
    .map_or("kernel object", |(_, kind)| kind)
}
