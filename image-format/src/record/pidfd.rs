//! pidfd_open(2) of the process itself.

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// An open file description that stands for the process itself.
    Pidfd, Pidfd, 8, {
        /// Its id.
        id: U32,
        /// `O_*` flags; `O_EXCL` for its first thread (`PIDFD_THREAD`).
        flags: U32,
    }
}
