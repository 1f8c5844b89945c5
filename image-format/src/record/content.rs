//! Contents that no file with a name holds: memfds, deleted files, shared anonymous memory; and what is open on them.

use zerocopy::little_endian::{U32, U64};

use super::{Identity, StrRef, record};

/// What holds the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ContentKind {
    /// memfd_create(2).
    Memfd = 1,
    /// A file without a name: deleted, or made with `O_TMPFILE`.
    Deleted = 2,
    /// Shared anonymous memory.
    Anonymous = 3,
    /// A System V shared memory segment.
    SysV = 4,
    /// A file with a name, for where it is missing.
    Named = 5,
}

/// In [`Content::uid`]: nobody could tell.
pub const UNKNOWN: u32 = u32::MAX;

impl ContentKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Memfd,
            2 => Self::Deleted,
            3 => Self::Anonymous,
            4 => Self::SysV,
            5 => Self::Named,
            _ => return None,
        })
    }
}

record! {
    /// The contents of one such object. Their bytes lie in segments of a type of their own.
    Content, Content, 84, {
        /// Its id: the first is 0, each next one greater by 1.
        id: U32,
        /// [`ContentKind`].
        kind: U32,
        /// Name as the kernel tells it, without ` (deleted)`: of a memfd, or the path that the file had.
        name: StrRef,
        /// Size, permission bits and what told it apart.
        identity: Identity,
        /// `F_GET_SEALS`.
        seals: U32,
        /// Index of its first segment among those of contents.
        first: U32,
        /// Number of its segments, which ascend by offset; what lies in none of them is zero.
        segments: U32,
        /// Key of a System V segment.
        key: U32,
        /// Its id there.
        shmid: U32,
        /// Owner, or [`UNKNOWN`].
        uid: U32,
        /// Group, or [`UNKNOWN`].
        gid: U32,
    }
}

record! {
    /// An open file description on contents.
    ContentFile, ContentFile, 24, {
        /// Its id, unique among all descriptions.
        id: U32,
        /// `O_*` flags as F_GETFL gives them, plus `O_PATH`.
        flags: U32,
        /// Offset in bytes.
        offset: U64,
        /// Id of the [`Content`].
        content: U32,
        /// 1 for what memfd_create(2) itself has opened: others keep the kernel from executing the memfd.
        made: U32,
    }
}
