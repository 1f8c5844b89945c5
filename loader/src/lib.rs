//! The restart stub's library: all decisions that need no system call, tested on a host.
//!
//! The bin `restart-stub` flows one way, `bytes → Image → checked → Plan → commit(Plan) -> !`; what is here belongs to
//! the part that can still say no. Must never contain `unsafe`, and must believe nothing that an image says.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod cpu;
#[cfg(feature = "embed")]
pub mod embedded;
pub mod hole;
pub mod identity;
pub mod limits;
pub mod options;
pub mod supervise;
pub mod vdso;

#[cfg(test)]
extern crate std;
