//! Every system call, kernel structure and line of assembly of the project; nothing else in it has any.
//!
//! Calls go straight to the kernel: no libc, no errno, no allocation, safe to use inside a signal handler and in
//! a program that has thrown its own memory away. Must never keep state.
#![no_std]

pub mod abi;
pub mod arch;
pub mod child;
pub mod credentials;
pub mod fs;
pub mod memory;
pub mod message;
pub mod namespace;
pub mod probe;
pub mod process;
pub mod ptrace;
pub mod sched;
pub mod signal;
pub mod socket;
pub mod sysv;
pub mod terminal;
pub mod text;
pub mod thread;
pub mod time;
pub mod uring;

#[cfg(feature = "mem")]
mod mem;

pub use syscalls::{Errno, Sysno};

/// What a system call gives.
pub type Result<T, E = Errno> = core::result::Result<T, E>;

/// Makes a system call with as many raw arguments as it takes.
///
/// # Errors
/// The call's own, see its manual page.
///
/// # Safety
/// The arguments must be such that the kernel changes no memory that Rust relies on, see the call's manual page.
#[inline(always)]
pub unsafe fn call<const N: usize>(number: Sysno, args: [usize; N]) -> Result<usize> {
    // SAFETY: the caller vouches for the arguments.
    let value = unsafe {
        match *args.as_slice() {
            [] => syscalls::raw_syscall!(number),
            [a] => syscalls::raw_syscall!(number, a),
            [a, b] => syscalls::raw_syscall!(number, a, b),
            [a, b, c] => syscalls::raw_syscall!(number, a, b, c),
            [a, b, c, d] => syscalls::raw_syscall!(number, a, b, c, d),
            [a, b, c, d, e] => syscalls::raw_syscall!(number, a, b, c, d, e),
            [a, b, c, d, e, f] => syscalls::raw_syscall!(number, a, b, c, d, e, f),
            // There is no system call with more.
            _ => return Err(Errno::ENOSYS),
        }
    };
    // The kernel's addresses and counts are positive, too: a shorter question than which negative numbers are errors.
    let signed = value as isize;
    if signed < 0 { Err(Errno::new(-signed as i32)) } else { Ok(value) }
}
