//! Descriptors, and which open file descriptions they share.
//!
//! One walk over `/proc/PID/fd` finds each descriptor's name, type, flags and offset; the object files then write
//! one record per description, and this one the table of numbers.

use image_format::record::StrRef;
use image_format::record::descriptor::Descriptor;
use image_format::record::header::Features;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::{Checked, NoteType, writer::Full};
use sys::abi::{O_ASYNC, O_CLOEXEC, O_PATH, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use sys::fs::{Fd, Owned};
use sys::text::{Shown, Text, cut, decimal, octal};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Error, Result, Save, Target, content, device, directory, pidfd, pipe, pty, regular, socket, terminal};

/// What kind of object a description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A device without state.
    Device = 3,
    /// One end of a pipe to the outside.
    Pipe = 4,
    /// A terminal.
    Terminal = 5,
    /// One end of a pipe that lies inside the process.
    InnerPipe = 6,
    /// An eventfd.
    Eventfd = 7,
    /// A timerfd.
    Timerfd = 8,
    /// A signalfd.
    Signalfd = 9,
    /// An epoll set.
    Epoll = 10,
    /// A memfd, or a file without a name.
    Content = 11,
    /// A socket.
    Socket = 32,
    /// An inotify instance.
    Inotify = 33,
    /// A pidfd of the process itself.
    Pidfd = 34,
    /// Either end of a pseudo-terminal whose master is inside.
    Pty = 35,
}

/// One descriptor as it was found.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "stat(2)'s and fcntl(2)'s own names")]
pub struct OpenFile {
    pub fd: u32,
    /// Id of its description: the number of the first descriptor that points to it.
    pub id: u32,
    /// [`Kind`].
    pub kind: u32,
    pub flags: u32,
    pub dev: u64,
    pub ino: u64,
    pub rdev: u64,
    pub size: u64,
    pub mtime_sec: i64,
    pub mtime_nsec: i64,
    pub offset: u64,
    pub mode: u32,
    pub cloexec: u32,
    pub path: StrRef,
    /// 1 when the name is a path.
    pub named: u32,
    /// [`LOCKED`] when some lock is held on the file, [`LEASED`] when there is a lease.
    pub locked: u32,
    /// 1 when it is signal-driven (`O_ASYNC`), which is none of its flags here.
    pub driven: u32,
    /// 1 when it is a pidfd of another process of the tree.
    pub other: u32,
    pub nlink: u64,
}

impl OpenFile {
    /// The program's own number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.fd & FD_MASK
    }

    /// The place of its process.
    #[must_use]
    pub fn place(&self) -> u32 {
        self.fd >> FD_BITS
    }

    /// Whether it is of this kind and the first descriptor of its description.
    #[must_use]
    pub fn is_first(&self, kind: Kind) -> bool {
        self.kind == kind as u32 && self.id == self.fd
    }
}

/// Finds all descriptors of the process; refuses what cannot be carried.
///
/// # Errors
/// A descriptor that cannot be carried, by number, kind and name.
pub fn collect<'b, T: Target>(save: &mut Save<'_, 'b, T>) -> Result<&'b [OpenFile]> {
    let mut count = 0;
    for place in 0..save.target.processes() {
        count += self::count(directory(save.target, place)?.fd())?;
    }
    let table = save.scratch.take::<OpenFile>(count)?;
    let mut used = 0;
    for place in 0..save.target.processes() {
        let dir = directory(save.target, place)?;
        let proc = save.target.proc_of(place);
        let (mut own, text) = ([0; 64], Text::<32>::of(format_args!("/proc/self/fd/{proc}")));
        let own = sys::fs::read_link_at(sys::abi::AT_FDCWD, text.as_c_str(), &mut own).unwrap_or_default();
        sys::fs::for_each_name(dir.fd(), |name| {
            let Some(fd) = decimal(name).and_then(|n| Fd::try_from(n).ok()) else { return Ok(()) };
            if T::IN_PROCESS && fd == dir.fd() || save.target.is_ours(fd) {
                return Ok(());
            }
            if fd as u32 > FD_MASK {
                let error =
                    Error::refused(format_args!("descriptor {fd}"), "has too great a number", "use lesser ones");
                return save.target.blocked(error);
            }
            let (known, rest) = table.split_at_mut(used);
            let file = match find(save, (place << FD_BITS) as Fd | fd, known, own) {
                Ok(file) => file,
                Err(error) => return save.target.blocked(error),
            };
            *rest.first_mut().ok_or(Full)? = file;
            used += 1;
            Ok::<_, Error>(())
        })?;
    }
    let table = table.get_mut(..used).unwrap_or_default();
    for file in &mut *table {
        pty::closes_on_exec(save.target, file)?;
    }
    pipe::pair(save, table)?;
    pty::pair(save, table)?;
    socket::check(save, table)?;
    Ok(table)
}

/// The directory with the descriptors of the process at a place.
fn directory<T: Target>(target: &T, place: usize) -> Result<Owned> {
    let failed = |e| Error::failed(format_args!("descriptors"), "/proc/PID/fd cannot be read", e);
    sys::fs::open_at(target.proc_of(place), c"fd", sys::abi::O_DIRECTORY, 0).map_err(failed)
}

/// How many descriptors there are, at most.
fn count(dir: Fd) -> Result<usize> {
    // Linux 6.2 and newer tell; in its own process the directory is one of them.
    let mut count = sys::fs::fstat(dir).map_or(0, |stat| stat.size as usize);
    if count == 0 {
        sys::fs::for_each_name(dir, |_| {
            count += 1;
            Ok::<_, Error>(())
        })?;
    }
    Ok(count)
}

/// In [`OpenFile::locked`].
const LOCKED: u32 = 1;
const LEASED: u32 = 2;

/// Features that an image with these needs.
#[must_use]
pub fn features(files: &[OpenFile]) -> Features {
    const EVENTS: [u32; 4] = [Kind::Eventfd as u32, Kind::Timerfd as u32, Kind::Signalfd as u32, Kind::Epoll as u32];
    let needs = [
        (Features::LOCKS, files.iter().any(|f| f.locked != 0)),
        (Features::OTHERS_PIDFDS, files.iter().any(|f| f.other != 0)),
        (Features::SIGNAL_DRIVEN, files.iter().any(|f| f.driven != 0)),
        (Features::LEASES, files.iter().any(|f| f.locked & LEASED != 0)),
        (Features::PIPES_AGAIN, files.iter().any(|f| crate::pipe::is_again(files, f))),
        (Features::INNER_PIPES, files.iter().any(|f| f.kind == Kind::InnerPipe as u32)),
        (Features::CONTENTS, files.iter().any(|f| f.kind == Kind::Content as u32)),
        (Features::NOTICES, files.iter().any(|f| f.kind == Kind::Inotify as u32 || f.kind == Kind::Pidfd as u32)),
        (Features::PTYS, files.iter().any(|f| f.kind == Kind::Pty as u32)),
        (Features::SOCKETS, files.iter().any(|f| f.kind == Kind::Socket as u32)),
        (Features::EVENTS, files.iter().any(|f| EVENTS.contains(&f.kind))),
    ];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(feature, _)| feature).collect()
}

impl From<sys::Errno> for Error {
    fn from(errno: sys::Errno) -> Self {
        Self::failed(format_args!("directory of /proc"), "cannot be read", errno)
    }
}

fn find<T: Target>(save: &mut Save<'_, '_, T>, fd: Fd, known: &[OpenFile], own: &[u8]) -> Result<OpenFile> {
    let failed = |e| Error::failed(format_args!("descriptor {fd}"), "cannot be examined", e);
    let (proc, number) = save.target.at(fd as u32);
    let link = Text::<32>::of(format_args!("fd/{number}"));
    let mut buffer = [0; 4097];
    let name = sys::fs::read_link_at(proc, link.as_c_str(), &mut buffer).map_err(failed)?;
    let stat = sys::fs::stat_at(proc, link.as_c_str(), 0).map_err(failed)?;
    let mut file = OpenFile {
        fd: fd as u32,
        id: fd as u32,
        kind: 0,
        flags: 0,
        dev: stat.dev,
        ino: stat.ino,
        rdev: stat.rdev,
        size: stat.size as u64,
        mtime_sec: stat.mtime.sec,
        mtime_nsec: stat.mtime.nsec,
        offset: 0,
        mode: stat.mode,
        cloexec: 0,
        path: StrRef::default(),
        named: u32::from(name.starts_with(b"/")),
        locked: 0,
        driven: 0,
        other: 0,
        nlink: stat.nlink,
    };
    read_fdinfo((proc, number), &mut file)?;
    for twin in known {
        if is_same(save.target, twin, &file, name)? {
            return Ok(OpenFile { id: twin.id, kind: twin.kind, path: twin.path, ..file });
        }
    }
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
        regular::own_name(inside.as_ref().map_or(own, Text::as_bytes), name, &mut to).unwrap_or(name)
    };
    file.kind = classify(save, &mut file, name)? as u32;
    file.path = save.notes.string(name)?;
    Ok(file)
}

/// Each line `key: value` of what the kernel tells about a descriptor, see [`Target::at`].
///
/// # Errors
/// It cannot be read, or what `each` returns.
pub fn each_fact((proc, fd): (Fd, u32), mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let failed = |e| Error::failed(format_args!("descriptor {fd}"), "/proc/PID/fdinfo cannot be read", e);
    let path = Text::<32>::of(format_args!("fdinfo/{fd}"));
    let mut buffer = [0; 512];
    let mut lines = sys::fs::Lines::open_at(proc, path.as_c_str(), &mut buffer).map_err(failed)?.whole();
    while let Some(line) = lines.next_line().map_err(failed)? {
        if let Some((key, value)) = cut(line, b':') {
            each(key, value.trim_ascii())?;
        }
    }
    Ok(())
}

fn read_fdinfo(at: (Fd, u32), file: &mut OpenFile) -> Result<()> {
    each_fact(at, |key, value| {
        match key {
            b"pos" => file.offset = decimal(value).unwrap_or(0),
            b"flags" => {
                let flags = octal(value).unwrap_or(0) as u32;
                file.cloexec = u32::from(flags & O_CLOEXEC != 0);
                file.driven = u32::from(flags & O_ASYNC != 0 && flags & O_PATH == 0);
                file.flags = flags & !(O_CLOEXEC | O_ASYNC);
            }
            // Of a terminal's master, which has no offset: those of two terminals look alike else.
            b"tty-index" => file.offset = decimal(value).unwrap_or(0),
            b"lock" if sys::text::words(value).any(|word| word == b"LEASE") => {
                file.locked |= LEASED;
                // It is a part of having a lease, by which it comes back.
                file.driven = 0;
            }
            b"lock" => file.locked |= LOCKED,
            _ => {}
        }
        Ok(())
    })
}

fn is_same<T: Target>(target: &T, a: &OpenFile, b: &OpenFile, name: &[u8]) -> Result<bool> {
    let alike = (a.dev, a.ino, a.flags, a.offset, a.mode) == (b.dev, b.ino, b.flags, b.offset, b.mode);
    if !alike {
        return Ok(false);
    }
    match target.same_description(a.fd as Fd, b.fd as Fd) {
        Some(told) => Ok(told),
        // What looks shared is taken for shared, as dup'ed descriptors are the rule; but these all look the same.
        None if a.mode & S_IFMT == 0 => Err(Error::refused(
            format_args!("descriptors {} and {} ({})", a.fd, b.fd, Shown(name)),
            "cannot be told apart, as the kernel forbids kcmp(2)",
            "allow it, or use Linux 6.10 or newer",
        )),
        None => Ok(true),
    }
}

fn classify<T: Target>(save: &mut Save<'_, '_, T>, file: &mut OpenFile, name: &[u8]) -> Result<Kind> {
    let fd = file.fd;
    let refuse = |kind: &str| {
        Error::refused(
            format_args!("descriptor {fd} ({kind} {})", Shown(name)),
            "cannot be carried yet",
            "close it before the save",
        )
    };
    // The restart of a single process gives nobody its old id.
    if file.driven != 0 && (file.mode & S_IFMT != S_IFSOCK || save.target.processes() == 1) {
        return Err(refuse("signal-driven"));
    }
    match file.mode & S_IFMT {
        S_IFLNK | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK if file.flags & O_PATH != 0 && file.named != 0 => {
            regular::check(save.target.at(fd).0, file, name)
        }
        S_IFREG => regular::check(save.target.at(fd).0, file, name),
        S_IFDIR => directory::check(file, name).map(|()| Kind::Directory),
        S_IFCHR if device::check(file.rdev) => Ok(Kind::Device),
        S_IFCHR if pty::is_master(file) => Ok(Kind::Pty),
        S_IFCHR if terminal::check(save.target, file) => Ok(Kind::Terminal),
        S_IFCHR => Err(refuse("device")),
        S_IFIFO if file.flags & O_PATH != 0 => Err(refuse("O_PATH of a pipe")),
        S_IFIFO => Ok(Kind::Pipe),
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
        ("io_uring", "io_uring"),
        ("userfaultfd", "userfaultfd"),
        ("perf_event", "perf event"),
        ("bpf", "bpf object"),
        ("kvm", "KVM"),
    ]
    .iter()
    .find(|(word, _)| has(word.as_bytes()))
    .map_or("kernel object", |(_, kind)| kind)
}

/// Writes the table of numbers.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Descriptor)?;
    for file in files {
        let (fd, id, cloexec) = (file.fd.into(), file.id.into(), file.cloexec.into());
        save.notes.push(&Descriptor { fd, file: id, cloexec, reserved: 0.into() })?;
    }
    save.notes.end()?;
    Ok(())
}

/// Where a description is open now; `open`: for each of the program's descriptors the number now, or -1.
#[must_use]
#[inline(never)]
pub fn now(image: &Checked<'_>, open: &[Fd], id: u32) -> Option<Fd> {
    let mut all = image.table::<Descriptor>().iter().zip(open);
    all.find(|(d, open)| d.file.get() == id && **open >= 0).map(|(_, open)| *open)
}

/// Puts an open file under one of the program's numbers.
///
/// # Errors
/// The kernel's.
pub fn restore(descriptor: &Descriptor, open: Fd) -> sys::Result<()> {
    sys::fs::dup_to(open, (descriptor.fd.get() & FD_MASK) as Fd, descriptor.cloexec.get() != 0)
}
