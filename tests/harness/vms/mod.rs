//! Virtual machines with Debian's kernels, which have nothing installed but what a test brings along.
//!
//! `qemu-system-x86_64 -accel tcg`, so that nobody needs rights or a certain CPU; a boot takes some seconds and the machine
//! inside is ten to thirty times slower than the one around it. Kernels come as packages, checked by apt as any other, and
//! are kept under `target/vms`. Must never leave a machine behind: one whose test has ended turns itself off.

mod initramfs;
mod kernel;
mod kinds;
mod machine;
mod pipe;
mod travel;

pub use initramfs::Archive;
pub use kernel::{KERNELS, Kernel, fetch};
pub use kinds::{Kind, kinds, needs};
pub use machine::{Done, Machine, Options};
pub use pipe::Stream;
pub use travel::Guest;
