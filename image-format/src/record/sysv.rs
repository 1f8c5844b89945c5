//! System V shared memory segments, as the system knows them: their bytes are a [`super::content::Content`]'s.

use zerocopy::little_endian::{I64, U16, U32, U64};

use super::record;

record! {
    /// A segment that is to have its id again, or was to end with its last attachment. It begins as the kernel's `struct shmid64_ds`.
    Sysv, Sysv, 128, {
        /// The key; 0 where it has none any more.
        key: U32,
        /// Owner.
        uid: U32,
        /// Owner's group.
        gid: U32,
        /// Who made it.
        cuid: U32,
        /// Group of who made it.
        cgid: U32,
        /// Permission bits, [`Sysv::DEST`] and [`Sysv::LOCKED`].
        mode: U32,
        /// A part of the id.
        seq: U16,
        /// Zero.
        pad: [u8; 22],
        /// Bytes.
        size: U64,
        /// Last attached.
        atime: I64,
        /// Last detached.
        dtime: I64,
        /// Made, or changed by `IPC_SET`.
        ctime: I64,
        /// Who made it.
        cpid: U32,
        /// Who attached or detached it last.
        lpid: U32,
        /// How often it was attached.
        nattch: U64,
        /// Zero.
        unused: [U64; 2],
        /// The id.
        id: U32,
        /// Id of the [`super::content::Content`].
        content: U32,
        /// How the restart looks at it: `SHM_RDONLY`, or 0.
        flags: U32,
        /// Zero.
        reserved: U32,
    }
}

impl Sysv {
    /// In [`Sysv::mode`]: marked for removal.
    pub const DEST: u32 = 0o1000;
    /// In [`Sysv::mode`]: kept out of swap space.
    pub const LOCKED: u32 = 0o2000;
    /// The bytes at its beginning that tell whether a segment is this one: owner, mode, id and size.
    pub const IDENTITY: usize = 56;
    /// The bytes of `struct shmid64_ds`.
    pub const KERNEL: usize = 112;
}
