//! Guard regions: pages that nothing may touch, without a mapping of their own (`MADV_GUARD_INSTALL`).

use zerocopy::little_endian::U64;

use super::record;

record! {
    /// One such region, inside one mapping.
    Guard, Guard, 16, {
        /// First address.
        start: U64,
        /// First address behind it.
        end: U64,
    }
}
