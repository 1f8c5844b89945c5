//! The first note: format version, required features, and where and when the image was made.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record;
use crate::writer::Full;

/// First eight bytes of the header note's contents.
pub const MAGIC: [u8; 8] = *b"CKPTIMG\0";

/// The format that this code writes. A greater major is refused; a greater minor only adds what may be ignored.
pub const VERSION: (u16, u16) = (1, 0);

bitflags::bitflags! {
    /// What a reader must understand to restart the image right.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Threads carry a jmp context ([`super::thread::Jmp`]).
        const JMP_CONTEXT = 1 << 0;
        /// File locks are held ([`super::lock::Lock`]).
        const LOCKS = 1 << 1;
        /// Threads were saved from outside and carry full frames ([`super::frame::Frame`]) instead of a jmp context.
        const FULL_FRAME = 1 << 2;
        /// Pipes inside the process ([`super::pipe::PipeData`]).
        const INNER_PIPES = 1 << 3;
        /// Event descriptors ([`super::eventfd::Eventfd`], `Timerfd`, `Signalfd`, `Epoll`).
        const EVENTS = 1 << 4;
        /// Contents without a named file ([`super::content::Content`]), in segments of their own type.
        const CONTENTS = 1 << 8;
        /// Guard regions ([`super::guard::Guard`]).
        const GUARDS = 1 << 9;
        /// Sockets ([`super::socket::Socket`]).
        const SOCKETS = 1 << 12;
        /// inotify instances ([`super::inotify::Inotify`]) and pidfds ([`super::pidfd::Pidfd`]).
        const NOTICES = 1 << 13;
        /// Contents of files that have a name ([`super::content::ContentKind::Named`]).
        const CARRIED_FILES = 1 << 18;
        /// Files that are written through shared mappings must hold what they held ([`super::shared_file::SharedFile`]).
        const SHARED_FILES = 1 << 20;
        /// The image of a tree of processes ([`super::process::Process`]), or of one of them.
        const TREE = 1 << 24;
        /// Frames of signal handlers are to be converted ([`super::frame::SignalFrame`]).
        const SIGNAL_FRAMES = 1 << 21;
        /// Pseudo-terminals with both ends inside the process ([`super::pty::Pty`]).
        const PTYS = 1 << 23;
        /// Memory protection keys ([`super::pkey::Pkey`]).
        const PROTECTION_KEYS = 1 << 25;
        /// Memory is sealed ([`super::memory::VmaFlags::SEALED`]).
        const SEALED = 1 << 26;
        /// Leases on files are held ([`super::lock::LockKind::Lease`]).
        const LEASES = 1 << 27;
        /// Threads are restricted in what they may call ([`super::seccomp::Seccomp`]).
        const SECCOMP = 1 << 29;
        /// System V segments that are attached again ([`super::sysv::Sysv`]).
        const SYSV = 1 << 30;
        /// Processes of a tree have different credentials, which each gets again ([`super::credentials::Credentials`]).
        const CREDENTIALS = 1 << 31;
        /// Descriptors have owners or signals for their news ([`super::sigio::Sigio`]).
        const SIGNAL_DRIVEN = 1 << 32;
        /// pidfds of other processes of a tree ([`super::pidfd::PidfdOf`]).
        const OTHERS_PIDFDS = 1 << 33;
        /// System V semaphores ([`super::semaphore::Semaphore`]). Such an image requires [`Features::SYSV`], too.
        const SEMAPHORES = 1 << 34;
        /// Ends of pipes that were opened again ([`super::pipe::Pipe::again`]).
        const PIPES_AGAIN = 1 << 35;
        /// io_uring instances ([`super::io_uring::IoUring`]).
        const RINGS = 1 << 36;
        /// Descriptors that nobody has but a message in transit: their numbers are of a process behind the last one.
        const IN_TRANSIT = 1 << 40;
        /// Processes of a tree share pages, copy-on-write: those of a child that has some of its parent's
        /// ([`crate::elf::PF_INHERITED`]), or of a parent that has such children.
        const INHERITED = 1 << 41;
    }
}

/// What the CPU offered: the words of CPUID that programs choose routines by, and the XSAVE layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Cpu {
    /// CPUID 1 ECX, 1 EDX, 7.0 EBX, 7.0 ECX, 7.0 EDX, 7.1 EAX, 0xd.1 EAX, 0x8000_0001 ECX.
    pub words: [U32; 8],
    /// XCR0: state components that the kernel has enabled.
    pub xcr0: U64,
    /// Bytes of the XSAVE area in a signal frame (CPUID 0xd.0 EBX).
    pub xsave_size: U32,
    /// Zero.
    pub reserved: U32,
}

impl Cpu {
    /// What a program needs that was told to keep to x86-64-v3 (AVX2), with what every CPU of that level has besides: AES,
    /// carry-less multiplication, random numbers, the bases of FS and GS. No XSAVEC, which libraries have other ways for.
    const PORTABLE: [u32; 8] = [0x7ed8_3203, u32::MAX, 0x0000_0129, 0, 0, 0, 0, 0x0000_0021];

    /// The state components of such a program: x87, SSE and AVX.
    pub const PORTABLE_STATES: u64 = 0b111;

    /// What a program needs of this CPU that keeps to x86-64-v3.
    #[must_use]
    pub fn portable(mut self) -> Self {
        for (word, mask) in self.words.iter_mut().zip(Self::PORTABLE) {
            *word = (word.get() & mask).into();
        }
        self.xcr0 = (self.xcr0.get() & Self::PORTABLE_STATES).into();
        self
    }
}

record! {
    /// The header of an image.
    Header, Header, 232, {
        /// [`MAGIC`].
        magic: [u8; 8],
        /// Major version.
        major: U16,
        /// Minor version.
        minor: U16,
        /// The process's pid when it was saved.
        pid: U32,
        /// [`Features`] that a reader must know.
        required: U64,
        /// Random id of this image.
        uuid: [u8; 16],
        /// `/proc/sys/kernel/random/boot_id`, as text without dashes in binary.
        boot_id: [u8; 16],
        /// CLOCK_REALTIME at the save, seconds.
        wall_sec: I64,
        /// CLOCK_REALTIME at the save, nanoseconds of the second.
        wall_nsec: U32,
        /// Uid of the process.
        uid: U32,
        /// CLOCK_MONOTONIC at the save, nanoseconds.
        monotonic_nsec: U64,
        /// CLOCK_BOOTTIME at the save, nanoseconds.
        boottime_nsec: U64,
        /// `uname -r`, padded with NUL.
        release: [u8; 64],
        /// The CPU's features.
        cpu: Cpu,
        /// XXH3-64 of the vdso's bytes; 0 when none was mapped.
        vdso_sum: U64,
        /// How many times this process was restarted before.
        generation: U32,
        /// [`Traces`]: whether the process's memory has its ids elsewhere than where a restart puts new ones.
        traces: U32,
        /// Address of the first such trace, or its offset in shared contents; 0 when a register holds it.
        trace: U64,
        /// 1 when the process was stopped, by a signal such as SIGSTOP.
        stopped: U32,
        /// Zero.
        reserved: U32,
    }
}

/// Whether a process's memory holds its process or thread ids elsewhere than where a restart puts new ones: in the tid address, the robust
/// list and the C library's thread descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Traces {
    /// Nobody has looked: a restart keeps the ids.
    Unknown = 0,
    /// There are none.
    None = 1,
    /// Something looks like an id.
    Found = 2,
}

impl Header {
    /// Bytes in front of the first note's record.
    const HEAD: usize = 20;

    /// Writes into a finished prefix, whose headers have `headers` bytes, what the saver has found in memory. The header is the first note.
    ///
    /// # Errors
    /// The prefix has none.
    pub fn tell_traces(prefix: &mut [u8], headers: u64, traces: Traces, at: u64) -> Result<(), Full> {
        let start = usize::try_from(headers).map_err(|_| Full)? + Self::HEAD;
        let bytes = prefix.get_mut(start..).ok_or(Full)?;
        let (header, _) = Self::mut_from_prefix(bytes).map_err(|_| Full)?;
        (header.traces, header.trace) = ((traces as u32).into(), at.into());
        Ok(())
    }

    /// What the saver has found.
    #[must_use]
    pub fn traces(&self) -> Traces {
        match self.traces.get() {
            1 => Traces::None,
            2 => Traces::Found,
            _ => Traces::Unknown,
        }
    }
}
