//! What the demonstration is made of; `cargo xtask`'s other commands use parts of it.
//!
//! Must never depend on much: on a fresh machine all that this needs is built before anything can be shown.

pub mod demo;
pub mod guest;
pub mod product;
pub mod pty;
pub mod watch;
pub mod workspace;
