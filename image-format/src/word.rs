//! Numbers in records whose types are not known.

/// A little-endian word of a record.
#[inline(never)] // A smaller frame has shorter addresses.
pub(crate) fn word(record: &[u8], at: u8) -> u32 {
    let bytes = record.get(usize::from(at)..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
