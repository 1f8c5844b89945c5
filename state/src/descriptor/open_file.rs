//! A descriptor as it was found, and what kind of object it leads to.

use image_format::record::StrRef;
use image_format::record::process::{FD_BITS, FD_MASK};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
    /// An io_uring instance.
    IoUring = 36,
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
    pub uid: u32,
    pub gid: u32,
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
    /// Of an end of a pipe: the id of the first end of the same pipe, that of the next one, and what `how` tells, see
    /// [`image_format::record::pipe::Pipe`].
    pub pipe: u32,
    pub next: u32,
    pub how: u32,
    /// 1 when nobody has it but a message in transit.
    pub in_transit: u32,
    /// 1 when it is a directory that was removed, or a terminal that was hung up.
    pub gone: u32,
    /// Nothing, so that the structure has no hole.
    pub padding: u32,
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
