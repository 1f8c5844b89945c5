//! What depends on the machine: one file per machine, the same names in each.
//!
//! Must never contain anything but assembly, intrinsics and the shapes that they work on.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
