//! Programs as children of this command: how they are born, and how this command stands in for them.
//!
//! Must never keep a second thread: children are made by a plain copy of this process.

pub mod birth;
pub mod clocks;
pub mod inbox;
pub mod namespace;
pub mod proxy;
pub mod terminal;
