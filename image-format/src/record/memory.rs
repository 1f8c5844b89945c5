//! Mappings. Which of their pages have contents follows from the segments.

use zerocopy::little_endian::{U32, U64};

use super::{Identity, StrRef, record};

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VmaKind {
    /// Private memory without a file.
    Anonymous = 1,
    /// A private mapping of a file.
    FilePrivate = 2,
    /// A shared mapping of a file: its contents are the file's.
    FileShared = 3,
    /// `[vdso]`: the kernel's code, its bytes saved for debuggers.
    Vdso = 4,
    /// `[vvar]` and its like: the kernel's data, never saved.
    Vvar = 5,
}

impl VmaKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Anonymous,
            2 => Self::FilePrivate,
            3 => Self::FileShared,
            4 => Self::Vdso,
            5 => Self::Vvar,
            _ => return None,
        })
    }
}

bitflags::bitflags! {
    /// Properties of a mapping that are set with mmap(2) or madvise(2) (`VmFlags` of smaps).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmaFlags: u32 {
        /// Grows down on a fault (`gd`): a stack.
        const GROWS_DOWN = 1;
        /// Not accounted (`nr`): `MAP_NORESERVE`.
        const NO_RESERVE = 1 << 1;
        /// Locked (`lo`).
        const LOCKED = 1 << 2;
        /// Not inherited by fork (`dc`).
        const DONT_FORK = 1 << 3;
        /// Not in core dumps (`dd`).
        const DONT_DUMP = 1 << 4;
        /// Zeroed in a forked child (`wf`).
        const WIPE_ON_FORK = 1 << 5;
        /// Huge pages wanted (`hg`).
        const HUGE_PAGE = 1 << 6;
        /// Huge pages not wanted (`nh`).
        const NO_HUGE_PAGE = 1 << 7;
        /// Sequential reads expected (`sr`).
        const SEQUENTIAL = 1 << 8;
        /// Random reads expected (`rr`).
        const RANDOM = 1 << 9;
        /// Same-page merging wanted (`mg`).
        const MERGEABLE = 1 << 10;
        /// Shared, and may be made writable (`mw`): the file was open for writing.
        const MAY_WRITE = 1 << 11;
        /// A private mapping that was a shared one for reading alone: it is shared where its file is used.
        const READ_ALONG = 1 << 12;
        /// The kernel may drop its pages at any time (`dp`): it has no contents in the image.
        const DROPPABLE = 1 << 13;
        /// Can be neither unmapped, moved nor protected otherwise (`sl`): mseal(2). Requires
        /// [`Features::SEALED`](super::header::Features::SEALED).
        const SEALED = 1 << 14;
        /// With [`Self::LOCKED`]: each page when it is touched (`lf`), mlock2(2).
        const ON_FAULT = 1 << 15;
        /// Shared memory of an io_uring instance ([`BackingFlags::RING`]), which the kernel maps where there is a hole alone.
        const RING = 1 << 16;
    }
}

/// In [`Vma::backing`]: no file.
pub const NO_BACKING: u32 = u32::MAX;

record! {
    /// One mapping, page-aligned.
    Vma, Vma, 56, {
        /// First address.
        start: U64,
        /// First address behind it.
        end: U64,
        /// `PROT_*` bits.
        prot: U32,
        /// [`VmaFlags`].
        flags: U32,
        /// [`VmaKind`].
        kind: U32,
        /// Index of its [`Backing`], or [`NO_BACKING`].
        backing: U32,
        /// Offset in the file, bytes.
        offset: U64,
        /// `[heap]`, `[stack]`, `[anon:…]` as the kernel printed it, or empty.
        name: StrRef,
        /// The protection key of the process's own ([`super::pkey::Pkey`]) that it has; 0: none.
        key: U32,
        /// Zero.
        reserved: U32,
    }
}

bitflags::bitflags! {
    /// Facts about a mapped file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BackingFlags: u32 {
        /// The path led to another file, or none, already when the image was made: only the copy is right.
        const GONE = 1;
        /// Its shared mappings may be written: it was open for writing when they were made.
        const WRITTEN = 1 << 1;
        /// It has no name any more, and all of it is in the image: [`Backing::content`] says where.
        const CONTENT = 1 << 2;
        /// It is the io_uring instance whose id is [`Backing::content`], and the path what the kernel calls such mappings.
        const RING = 1 << 3;
    }
}

record! {
    /// A file behind one or more mappings.
    Backing, Backing, 56, {
        /// Absolute path.
        path: StrRef,
        /// The file as it was.
        identity: Identity,
        /// [`BackingFlags`].
        flags: U32,
        /// With [`BackingFlags::CONTENT`] the id of the [`super::content::Content`], with [`BackingFlags::RING`] that of the
        /// [`super::io_uring::IoUring`], else zero.
        content: U32,
    }
}
