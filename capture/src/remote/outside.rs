//! Calls about another process that can be made from here: no need to go inside.

use state::Arg;
use sys::abi::F_GETFD;
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

/// Makes a call about thread `tid` of process `pid`, or on a descriptor of it. `None`: it can only be made inside.
pub fn call(
    pid: i32,
    tid: i32,
    pidfd: Fd,
    number: Sysno,
    args: [Arg; 6],
    data: &mut [u8],
) -> Option<sys::Result<usize>> {
    let base = data.as_mut_ptr() as usize;
    let mut numbers = args.map(|arg| match arg {
        Arg::Value(n) => n,
        Arg::Data(offset) => base.wrapping_add(offset),
    });
    let [first, second, ..] = &mut numbers;
    let borrowed;
    match number {
        Sysno::prlimit64 if *first == 0 => *first = pid as usize,
        Sysno::get_robust_list => *first = tid as usize,
        // A flag of the number, not of what is open: a borrowed one has its own.
        Sysno::fcntl if *second == F_GETFD => return None,
        Sysno::ioctl | Sysno::fcntl | Sysno::timerfd_gettime => {
            borrowed = sys::process::borrow_descriptor(pidfd, *first as Fd).map(Owned::new).ok()?;
            *first = borrowed.fd() as usize;
        }
        _ => return None,
    }
    // SAFETY: pointers point into `data`; the objects' code makes only calls that read facts.
    match unsafe { sys::call(number, numbers) } {
        // What may not be asked from here may be asked inside.
        Err(Errno::EPERM | Errno::EACCES) => None,
        result => Some(result),
    }
}
