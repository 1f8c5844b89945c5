//! Every system call, kernel structure and line of assembly of the project; nothing else in it has any.
//!
//! Calls go straight to the kernel: no libc, no errno, no allocation, safe to use inside a signal handler and in
//! a program that has thrown its own memory away. Must never keep state.
#![no_std]

pub mod abi;
pub mod arch;
pub mod child;
pub mod fs;
pub mod memory;
pub mod probe;
pub mod process;
pub mod ptrace;
pub mod signal;
pub mod terminal;
pub mod text;
pub mod thread;
pub mod time;

#[cfg(feature = "mem")]
mod mem;

pub use syscalls::{Errno, Sysno};

/// What a system call gives.
pub type Result<T, E = Errno> = core::result::Result<T, E>;

/// Makes a system call with raw arguments.
///
/// # Errors
/// The call's own, see its manual page.
///
/// # Safety
/// The arguments must be such that the kernel changes no memory that Rust relies on, see the call's manual page.
#[inline(always)]
pub unsafe fn call(number: Sysno, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the arguments.
    unsafe { syscalls::syscall!(number, a, b, c, d, e, f) }
}
