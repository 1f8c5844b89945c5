//! The records: tables of fixed little-endian structures, one note type each, one file per kernel object.
//!
//! A table's note holds zero or more records and nothing else. Numbers are the kernel's own where it has
//! numbers (signal masks, `O_*`, `PROT_*`, `RLIMIT_*`). A record must never change its layout: a new
//! shape is a new note type and, where an old reader would restart wrongly without it, a required-feature bit.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub mod content;
pub mod credentials;
pub mod cwd;
pub mod deadline;
pub mod descriptor;
pub mod device;
pub mod directory;
pub mod epoll;
pub mod eventfd;
pub mod frame;
pub mod guard;
pub mod header;
pub mod inotify;
pub mod io_uring;
pub mod itimer;
pub mod job;
pub mod lock;
pub mod memory;
pub mod mm;
pub mod pending;
pub mod pidfd;
pub mod pipe;
pub mod pkey;
pub mod posix_timer;
pub mod process;
pub mod pty;
pub mod regular;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod semaphore;
pub mod setting;
pub mod shared_file;
pub mod sigaction;
pub mod sigio;
pub mod signalfd;
pub mod socket;
pub mod sysv;
pub mod terminal;
pub mod thread;
pub mod timerfd;
pub mod umask;

/// Types of the notes whose owner is `CKPT`: "CK" and a number.
///
/// gdb and readelf tell notes apart by type alone, whoever owns them: a small number would be taken for a
/// standard note (6 for the auxiliary vector) and spoil a debugger's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NoteType {
    /// [`header::Header`], exactly one, the very first note.
    Header = 0x434b_0001,
    /// Bytes that [`StrRef`]s point into.
    Strings = 0x434b_0002,
    /// [`thread::Thread`], in any order; one of them leads, one made the save.
    Thread = 0x434b_0003,
    /// [`memory::Vma`], ascending and disjoint.
    Vma = 0x434b_0004,
    /// [`memory::Backing`]: the files behind mappings.
    Backing = 0x434b_0005,
    /// [`mm::Mm`], exactly one.
    Mm = 0x434b_0006,
    /// [`sigaction::Sigaction`], 64 of them.
    Sigaction = 0x434b_0007,
    /// [`pending::Pending`], in the order of their queues.
    Pending = 0x434b_0008,
    /// [`itimer::Itimer`].
    Itimer = 0x434b_0009,
    /// [`cwd::Cwd`], exactly one.
    Cwd = 0x434b_000a,
    /// [`umask::Umask`], exactly one.
    Umask = 0x434b_000b,
    /// [`rlimit::Rlimit`].
    Rlimit = 0x434b_000c,
    /// [`descriptor::Descriptor`], ascending.
    Descriptor = 0x434b_000d,
    /// [`regular::Regular`], ascending by id.
    Regular = 0x434b_000e,
    /// [`directory::Directory`], ascending by id.
    Directory = 0x434b_000f,
    /// [`device::Device`], ascending by id.
    Device = 0x434b_0010,
    /// [`pipe::Pipe`], ascending by id.
    Pipe = 0x434b_0011,
    /// [`terminal::Terminal`], ascending by id.
    Terminal = 0x434b_0012,
    /// [`lock::Lock`].
    Lock = 0x434b_0013,
    /// [`posix_timer::PosixTimer`], ascending by id.
    PosixTimer = 0x434b_0014,
    /// [`frame::Frame`], one for each thread, in the order of the threads.
    Frame = 0x434b_0015,
    /// [`eventfd::Eventfd`], ascending by id.
    Eventfd = 0x434b_0016,
    /// [`pipe::PipeData`], in the order of their bytes.
    PipeData = 0x434b_0017,
    /// [`timerfd::Timerfd`], ascending by id.
    Timerfd = 0x434b_0018,
    /// [`signalfd::Signalfd`], ascending by id.
    Signalfd = 0x434b_0019,
    /// [`epoll::Epoll`], ascending by id.
    Epoll = 0x434b_001a,
    /// [`epoll::Watch`], ascending by set, number and file.
    Watch = 0x434b_001b,
    /// [`sched::Sched`].
    Sched = 0x434b_001d,
    /// [`sched::Affinity`].
    Affinity = 0x434b_001e,
    /// [`setting::Setting`], ascending.
    Setting = 0x434b_001f,
    /// [`content::Content`], ascending by id.
    Content = 0x434b_0020,
    /// [`content::ContentFile`], ascending by id.
    ContentFile = 0x434b_0021,
    /// [`guard::Guard`], ascending and disjoint.
    Guard = 0x434b_0022,
    /// [`frame::Component`], ascending by number.
    Component = 0x434b_0026,
    /// [`deadline::Deadline`], each address once.
    Deadline = 0x434b_0027,
    /// [`frame::SignalFrame`], ascending.
    SignalFrame = 0x434b_0028,
    /// [`process::Process`], each behind its parent, those that have ended last.
    Process = 0x434b_0029,
    /// [`shared_file::SharedFile`].
    SharedFile = 0x434b_002c,
    /// [`pty::Pty`], ascending by id.
    Pty = 0x434b_002d,
    /// [`pty::PtyStep`], in the order in which they are to be made.
    PtyStep = 0x434b_002e,
    /// [`socket::Socket`], ascending by id.
    Socket = 0x434b_0030,
    /// [`socket::SocketStep`], in the order in which they are to be made.
    SocketStep = 0x434b_0031,
    /// [`inotify::Inotify`], ascending by id.
    Inotify = 0x434b_0032,
    /// [`inotify::InotifyWatch`], ascending by instance and number.
    InotifyWatch = 0x434b_0033,
    /// [`pidfd::Pidfd`], ascending by id.
    Pidfd = 0x434b_0034,
    /// [`seccomp::Instruction`], of all programs.
    Instruction = 0x434b_0035,
    /// [`sysv::Sysv`], ascending by content.
    Sysv = 0x434b_0036,
    /// [`pkey::Pkey`], at most one.
    Pkey = 0x434b_0038,
    /// [`seccomp::Seccomp`], in the order of the threads.
    Seccomp = 0x434b_0039,
    /// [`job::Job`], at most one.
    Job = 0x434b_003b,
    /// [`credentials::Credentials`], at most one.
    Credentials = 0x434b_003c,
    /// [`sigio::Sigio`], ascending by id.
    Sigio = 0x434b_003d,
    /// [`pidfd::PidfdOf`], ascending by id.
    PidfdOf = 0x434b_003e,
    /// [`io_uring::IoUring`], ascending by id.
    IoUring = 0x434b_003a,
    /// [`semaphore::Semaphore`].
    Semaphore = 0x434b_003f,
    /// The seal (`seal.rs`), the very last note of the file.
    Seal = 0x434b_00ff,
}

impl NoteType {
    /// Its number among this project's own: short in the code that asks for a table.
    #[must_use]
    pub const fn number(self) -> u8 {
        (self as u32 - BASE) as u8
    }
}

/// Number 0 of this project's note types.
const BASE: u32 = NoteType::Header as u32 - 1;

/// How many numbers types have, with gaps.
const TYPES: usize = (NoteType::Semaphore as u32 - BASE + 1) as usize;

/// Bytes of a record of each type. The header may grow at its end, and strings are bytes.
#[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
const SIZES: [u8; TYPES] = {
    let mut sizes = [1; TYPES];
    macro_rules! put {
        ($($record:ty),*) => { $(
            assert!(size_of::<$record>() <= u8::MAX as usize);
            sizes[(<$record>::TYPE as u32 - BASE) as usize] = size_of::<$record>() as u8;
        )* };
    }
    put!(deadline::Deadline, frame::SignalFrame, process::Process);
    put!(
        thread::Thread,
        frame::Frame,
        frame::Component,
        memory::Vma,
        memory::Backing,
        mm::Mm,
        sigaction::Sigaction,
        pending::Pending
    );
    put!(itimer::Itimer, posix_timer::PosixTimer, cwd::Cwd, umask::Umask, rlimit::Rlimit, descriptor::Descriptor);
    put!(regular::Regular, directory::Directory, device::Device, pipe::Pipe, terminal::Terminal, lock::Lock);
    put!(eventfd::Eventfd, pipe::PipeData, timerfd::Timerfd, signalfd::Signalfd, epoll::Epoll, epoll::Watch);
    put!(sched::Sched, sched::Affinity, setting::Setting);
    put!(content::Content, content::ContentFile, guard::Guard, shared_file::SharedFile);
    put!(pty::Pty, pty::PtyStep);
    put!(socket::Socket, socket::SocketStep, inotify::Inotify, inotify::InotifyWatch, pidfd::Pidfd);
    put!(pkey::Pkey, sysv::Sysv);
    put!(seccomp::Instruction, seccomp::Seccomp, credentials::Credentials, sigio::Sigio, pidfd::PidfdOf, job::Job);
    put!(semaphore::Semaphore, io_uring::IoUring);
    sizes
};

/// For a type of this project's own notes the bytes of a record, and a bit of its own; `None` for an unknown one.
pub(crate) fn size_of_type(kind: u32) -> Option<(usize, u64)> {
    let number = kind.checked_sub(BASE)?;
    Some((usize::from(*SIZES.get(number as usize)?), 1 << number))
}

/// Where the contents of this project's own notes lie among all, by type: their first byte and their number. Each thread has notes of its
/// own, and all of them would be passed over for every table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places([(u32, u32); TYPES]);

impl Places {
    pub(crate) const NONE: Self = Self([(0, 0); TYPES]);

    /// The place of a type by its number, if it is known.
    pub(crate) fn of(&self, number: u8) -> Option<(usize, usize)> {
        self.0.get(usize::from(number)).map(|(at, len)| (*at as usize, *len as usize))
    }

    /// Notes the first place of a type.
    pub(crate) fn put(&mut self, kind: u32, at: usize, len: usize) {
        let place = kind.checked_sub(BASE).and_then(|number| self.0.get_mut(number as usize));
        if let (Some(place @ (0, 0)), Ok(at), Ok(len)) = (place, u32::try_from(at), u32::try_from(len)) {
            *place = (at, len);
        }
    }
}
static_assertions::const_assert!(TYPES <= 64);

/// A structure that a table of one note type consists of.
pub trait Record: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// The note that holds it.
    const TYPE: NoteType;
}

/// Bytes in the strings note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StrRef {
    /// Offset of the first byte.
    pub at: U32,
    /// Number of bytes; no NUL is stored.
    pub len: U32,
}

/// What tells whether a file is still the same one (stat(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Identity {
    /// `st_dev`.
    pub dev: U64,
    /// `st_ino`.
    pub ino: U64,
    /// `st_size`, bytes.
    pub size: U64,
    /// `st_mtim.tv_sec`.
    pub mtime_sec: I64,
    /// `st_mtim.tv_nsec`.
    pub mtime_nsec: U32,
    /// `st_mode`: type and permission bits.
    pub mode: U32,
}

/// Declares a record with the derives that all need, and pins its size.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $size:literal, { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes,
                 zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl $crate::record::Record for $name {
            const TYPE: $crate::record::NoteType = $crate::record::NoteType::$kind;
        }
        static_assertions::const_assert_eq!(size_of::<$name>(), $size);
    };
}
pub(crate) use record;
