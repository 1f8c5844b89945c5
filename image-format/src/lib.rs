//! The checkpoint image: what lies in the file, byte by byte, and nothing about how it got there.
//!
//! An image is a valid ELF core. In file order:
//!
//! ```text
//! ELF header │ [section header 0] │ program headers │ notes │ pad │ segments … │ seal
//!  64 bytes   only with PN_XNUM      PT_NOTE first     core's    to   page-aligned  last PT_NOTE,
//!                                    seal last         and ours  page PT_LOADs      checksums
//! ```
//!
//! Everything before the first segment is the *prefix*: a reader needs it whole, and its checksum is in the
//! seal. `docs/image-format.md` describes each byte for people who write another reader.
//!
//! This crate must never: contain `unsafe`, allocate, make a system call, or trust a number that it read.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod check;
pub mod checked;
pub mod elf;
pub mod exit;
pub mod fault;
pub mod note;
pub mod reader;
pub mod record;
pub mod rows;
pub mod rule;
pub mod seal;
pub mod segment;
pub mod texts;
mod word;
pub mod writer;

pub use checked::{Checked, OpenFile};
pub use exit::ExitCode;
pub use fault::{Fault, Part};
pub use reader::{Image, Need};
pub use record::{NoteType, Record, StrRef};
pub use rule::Rule;
pub use segment::{Segment, Segments};
pub use writer::{Layout, Notes};

/// Bytes in a page: the alignment of every segment, in the file and in memory.
pub const PAGE: u64 = 4096;

/// First address that no user mapping reaches with 4-level page tables (`TASK_SIZE_MAX`, arch/x86/include/asm/page_64_types.h).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// The most bytes that one segment carries: long runs of pages are cut, so that several threads can read and check them.
pub const SEGMENT_MAX: u64 = 16 << 20;

/// The most bytes of prefix that a reader accepts: 1 GiB holds the headers of 16 million segments.
pub const PREFIX_MAX: u64 = 1 << 30;

/// Rounds `n` up to the next multiple of `to`, a power of two; saturates instead of wrapping.
#[must_use]
pub const fn align_up(n: u64, to: u64) -> u64 {
    n.saturating_add(to - 1) & !(to - 1)
}
