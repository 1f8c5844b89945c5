//! The seal: the checksums of all that was written, as the last note of the file.
//!
//! ```text
//! note head (12) │ "CKPT\0" + 3 │ Seal │ u64 checksum of each PT_LOAD's bytes, in order │ u64 of all before
//! ```
//!
//! All checksums are XXH3-64 with seed 0. No seal, no image: a writer that died leaves none.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::note::{self, HEAD, NoteIter};
use crate::{Fault, NoteType, Part};

/// First eight bytes of a seal's contents.
pub const MAGIC: [u8; 8] = *b"CKPTSEAL";

/// The fixed part of the seal; all sizes in bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Seal {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Size of the whole file.
    pub file_len: U64,
    /// Size of the prefix (headers and notes).
    pub prefix_len: U64,
    /// Checksum of the prefix.
    pub prefix_sum: U64,
    /// Number of segment checksums that follow.
    pub segments: U64,
}

const FIXED: usize = size_of::<Seal>();
static_assertions::const_assert_eq!(FIXED, 40);

/// Bytes before the fixed part: the note's head and the owner's name with its padding.
const LEAD: usize = HEAD + 8;

/// Least checksums of segments in a seal; what is not used is zero. So its own checksum is always of more than 240 bytes:
/// for fewer XXH3 has other ways, 1 KiB of code in the stub.
pub const SUMS_MIN: u64 = 26;

/// Size in the file of a seal over `segments` segments, in bytes.
#[must_use]
pub const fn size(segments: u64) -> u64 {
    (LEAD + FIXED) as u64 + if segments < SUMS_MIN { SUMS_MIN } else { segments } * 8 + 8
}

/// Writes the seal over `sums`, the checksums of the segments in order, into `out`; returns its bytes.
///
/// # Errors
/// `out` is smaller than [`size`] says, or the note would not fit its 32-bit length.
pub fn write<'o>(
    out: &'o mut [u8],
    file_len: u64,
    prefix: &[u8],
    sums: &[u64],
) -> Result<&'o [u8], crate::fault::Full> {
    use crate::fault::Full;
    let seal = Seal {
        magic: MAGIC,
        file_len: file_len.into(),
        prefix_len: (prefix.len() as u64).into(),
        prefix_sum: sum(prefix).into(),
        segments: (sums.len() as u64).into(),
    };
    let total = usize::try_from(size(sums.len() as u64)).map_err(|_| Full)?;
    let desc_len = u32::try_from(total - LEAD).map_err(|_| Full)?;
    let out = out.get_mut(..total).ok_or(Full)?;
    let (head, body) = out.split_at_mut(LEAD);
    note::head_bytes(head, note::CKPT, desc_len, NoteType::Seal as u32);
    let (body, own) = body.split_at_mut(body.len() - 8);
    let (fixed, table) = body.split_at_mut(FIXED);
    fixed.copy_from_slice(seal.as_bytes());
    table.fill(0);
    for (slot, sum) in table.chunks_exact_mut(8).zip(sums) {
        slot.copy_from_slice(&sum.to_le_bytes());
    }
    own.copy_from_slice(&sum(body).to_le_bytes());
    Ok(out)
}

/// XXH3-64 with seed 0, of bytes that come in pieces. Not inlined: whoever needs a checksum shares one copy of it.
///
/// Must never be used in the stub: it would cost it 2 KiB beside [`sum`].
#[derive(Clone)]
pub struct Sum(Xxh3Default);

impl Sum {
    /// The checksum of nothing yet.
    #[must_use]
    #[inline(never)]
    pub const fn new() -> Self {
        Self(Xxh3Default::new())
    }

    /// Adds bytes.
    #[inline(never)]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all that was added.
    #[must_use]
    #[inline(never)]
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self::new()
    }
}

/// The checksum of `bytes`.
#[must_use]
#[inline(never)]
pub fn sum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Reads a seal that lies at `at` in the file: its fixed part and the segments' checksums.
///
/// # Errors
/// No seal there, or its own checksum does not match.
pub fn read(bytes: &[u8], at: u64) -> Result<(Seal, &[U64]), Fault> {
    let note = NoteIter::new(bytes, at).next().ok_or(Fault::Unsealed)?.map_err(|_| Fault::Unsealed)?;
    // The whole head, padding too: it is the one part that no checksum covers.
    let len = u32::try_from(note.desc.len()).unwrap_or(0);
    let head = [note::CKPT.len() as u32 + 1, len, NoteType::Seal as u32].map(u32::to_le_bytes);
    if !bytes.starts_with(head.as_flattened()) || bytes.get(HEAD..LEAD) != Some(b"CKPT\0\0\0\0") {
        return Err(Fault::Unsealed);
    }
    let (body, own) = note.desc.split_last_chunk::<8>().ok_or(Fault::Unsealed)?;
    let (fixed, table) = body.split_at_checked(FIXED).ok_or(Fault::Unsealed)?;
    let seal = Seal::read_from_bytes(fixed).map_err(|_| Fault::Unsealed)?;
    if seal.magic != MAGIC {
        return Err(Fault::Unsealed);
    }
    if sum(body) != u64::from_le_bytes(*own) {
        return Err(Fault::Checksum(Part::Seal));
    }
    // One that is longer than its sums need is not of this size; the image's headers say so, too.
    let (sums, rest) = usize::try_from(seal.segments.get())
        .ok()
        .and_then(|count| <[U64]>::ref_from_prefix_with_elems(table, count).ok())
        .ok_or(Fault::Checksum(Part::Seal))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Fault::Checksum(Part::Seal));
    }
    Ok((seal, sums))
}
