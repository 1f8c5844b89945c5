//! `restart-stub image.ckpt`: reads an image, rebuilds the process, becomes it.
//!
//! ```text
//! start → options → read → check → prepare (files, descriptors, hole) │ commit: move → unmap → map → load → finish → jump
//!                  everything that can fail on bad input fails here    │ no way back: only `die`
//! ```
//!
//! No libc, no allocation after the preparation, no return. `docs/restore.md` tells what is legal at which stage.
#![no_std]
#![no_main]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod commit;
mod heap;
mod launch;
mod prepare;
mod start;
