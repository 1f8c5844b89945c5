//! Calls about another process that can be made from here: no need to go inside.

use state::Arg;
use sys::abi::F_GETFD;
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

/// Makes a call about a System V object of the process's IPC namespace, where that is this one's, too. `None`: it can only be made inside.
pub fn call_of_system(proc: Fd, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> Option<sys::Result<usize>> {
    let namespace = |proc| {
        let mut room = [0; 64];
        sys::fs::read_link_at(proc, c"ns/ipc", &mut room).is_ok().then_some(room)
    };
    let own = sys::fs::open(c"/proc/self", sys::abi::O_DIRECTORY, 0).ok()?;
    if number != Sysno::shmctl || namespace(proc)? != namespace(own.fd())? {
        return None;
    }
    make(number, numbers(args, data))
}

fn numbers(args: [Arg; 6], data: &mut [u8]) -> [usize; 6] {
    let base = data.as_mut_ptr() as usize;
    args.map(|arg| match arg {
        Arg::Value(n) => n,
        Arg::Data(offset) => base.wrapping_add(offset),
    })
}

/// Makes the call; what may not be asked from here may be asked inside.
fn make(number: Sysno, numbers: [usize; 6]) -> Option<sys::Result<usize>> {
    // SAFETY: pointers point into the data of the call; the objects' code makes only calls that read facts.
    match unsafe { sys::call(number, numbers) } {
        Err(Errno::EPERM | Errno::EACCES) => None,
        result => Some(result),
    }
}

/// Makes a call about thread `tid` of process `pid`, or on a descriptor of it. `None`: it can only be made inside.
pub fn call(
    pid: i32,
    tid: i32,
    borrow: impl FnOnce(Fd) -> sys::Result<Owned>,
    number: Sysno,
    args: [Arg; 6],
    data: &mut [u8],
) -> Option<sys::Result<usize>> {
    let mut numbers = numbers(args, data);
    let [first, second, ..] = &mut numbers;
    let borrowed;
    match number {
        Sysno::prlimit64 if *first == 0 => *first = pid as usize,
        Sysno::get_robust_list => *first = tid as usize,
        // A flag of the number, not of what is open: a borrowed one has its own.
        Sysno::fcntl if *second == F_GETFD.number() => return None,
        Sysno::ioctl | Sysno::fcntl | Sysno::timerfd_gettime => {
            borrowed = borrow(*first as Fd).ok()?;
            *first = borrowed.fd() as usize;
        }
        _ => return None,
    }
    make(number, numbers)
}
