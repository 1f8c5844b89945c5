//! The file mode creation mask.

use zerocopy::little_endian::U32;

use super::record;

record! {
    /// umask(2).
    Umask, Umask, 4, {
        /// The mask's nine bits.
        mask: U32,
    }
}
