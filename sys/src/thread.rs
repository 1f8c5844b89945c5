//! Threads: ids, what the kernel keeps for each, waiting and waking.

use core::sync::atomic::AtomicU32;

use crate::abi::{self, Timespec};
use crate::{Errno, Result, Sysno, call};

/// gettid(2).
#[must_use]
pub fn tid() -> i32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::gettid, []) }.unwrap_or(0) as i32
}

/// set_tid_address(2).
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// sys::thread::set_tid_address("text".as_ptr() as u64);
/// ```
///
/// # Safety
/// The kernel writes a zero of four bytes there when the calling thread ends.
pub unsafe fn set_tid_address(at: u64) {
    // SAFETY: the caller vouches for the place.
    let _ = unsafe { call(Sysno::set_tid_address, [at as usize]) };
}

/// set_robust_list(2).
///
/// ```compile_fail
/// #![forbid(unsafe_code)]
/// let _ = sys::thread::set_robust_list([0u64; 3].as_ptr() as u64, 24);
/// ```
///
/// # Errors
/// The call's.
///
/// # Safety
/// The kernel walks the list when the calling thread ends, and writes to each lock that it finds there.
pub unsafe fn set_robust_list(head: u64, len: u64) -> Result<()> {
    // SAFETY: the caller vouches for the list.
    unsafe { call(Sysno::set_robust_list, [head as usize, len as usize]) }.map(drop)
}

/// rseq(2).
///
/// # Errors
/// EBUSY: registered with the same arguments; EINVAL: with others, or not at all; EPERM: another signature.
///
/// # Safety
/// The kernel writes to the area from now on, until it is unregistered.
pub unsafe fn rseq(area: u64, len: u32, flags: usize, signature: u32) -> Result<()> {
    // SAFETY: the caller vouches for the area.
    unsafe { call(Sysno::rseq, [area as usize, len as usize, flags, signature as usize]) }.map(drop)
}

/// `PR_SET_NAME`: at most 15 bytes and a NUL.
pub fn set_name(name: &[u8; 16]) {
    // SAFETY: the kernel reads up to 16 bytes.
    let _ = unsafe { crate::process::prctl(abi::PR_SET_NAME, name.as_ptr() as usize, 0, 0) };
}

/// Waits until `word` is woken, unless it does not hold `expected`; at most `limit`.
///
/// # Errors
/// EAGAIN: another value; ETIMEDOUT; EINTR.
pub fn wait(word: &AtomicU32, expected: u32, limit: Option<Timespec>) -> Result<()> {
    let limit = limit.as_ref().map_or(0, |t| (&raw const *t) as usize);
    // SAFETY: the kernel reads the word and the time.
    unsafe { call(Sysno::futex, [word.as_ptr() as usize, abi::FUTEX_WAIT, expected as usize, limit]) }.map(drop)
}

/// Wakes all waiters of `word`.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn wake(word: &AtomicU32) {
    // SAFETY: the kernel uses the address as a key.
    let _ = unsafe { call(Sysno::futex, [word.as_ptr() as usize, abi::FUTEX_WAKE, i32::MAX as usize, 0]) };
}

/// Waits until `word` no longer holds `value`.
pub fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(core::sync::atomic::Ordering::Acquire) == value {
        if let Err(Errno::EFAULT | Errno::ENOSYS) = wait(word, value, None) {
            crate::arch::pause();
        }
    }
}

/// A new thread of this process on its own stack, without thread-local storage, that clears and wakes `alive`
/// when it ends. Returns its tid.
///
/// # Errors
/// The call's.
///
/// # Safety
/// `stack_top` ends a writable region that lives as long as the thread; `alive` too; `entry` uses no
/// thread-local storage and never returns.
pub unsafe fn spawn(
    stack_top: usize,
    alive: *mut u32,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32> {
    let clear = if alive.is_null() { 0 } else { abi::CLONE_CHILD_CLEARTID };
    // SAFETY: the caller vouches for stack, word and entry.
    made(unsafe { crate::arch::clone_onto(THREAD | clear, stack_top & !15, core::ptr::null_mut(), alive, entry, arg) })
}

/// As [`spawn`], with a thread id of the caller's choice, on the stack of `len` bytes that ends at `stack_top`.
///
/// # Errors
/// EPERM: this user may not choose; EEXIST: the id is taken; EINVAL: it is beyond the greatest; ENOSYS before Linux 5.3,
/// E2BIG before 5.5.
///
/// # Safety
/// As [`spawn`].
pub unsafe fn spawn_as(
    tid: u32,
    stack_top: usize,
    len: usize,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> Result<i32> {
    let args = abi::CloneArgs {
        flags: THREAD as u64,
        stack: (stack_top - len) as u64,
        stack_size: len as u64,
        set_tid: (&raw const tid) as u64,
        set_tid_size: 1,
        ..abi::CloneArgs::default()
    };
    // SAFETY: the caller vouches for stack and entry.
    made(unsafe { crate::arch::clone3_onto(&raw const args, size_of_val(&args), entry, arg) })
}

/// The id that comes next, taken by a thread that ends at once.
///
/// # Errors
/// clone(2)'s.
pub fn next_id() -> Result<i32> {
    /// `CLONE_VFORK`: this thread goes on when that one has ended.
    const WAITS: usize = 0x4000;
    // SAFETY: as the flags say.
    made(unsafe { crate::arch::clone_empty(THREAD | WAITS) })
}

/// Uses the id up that comes next, without a task: clone(2) deals it before it fails, as it cannot tell the new process's pidfd
/// (`copy_process`, kernel/fork.c).
///
/// # Errors
/// The call failed otherwise: no id was dealt.
pub fn use_up_id() -> Result<()> {
    /// `CLONE_PIDFD`: the pidfd goes to the place for the parent's copy of the id.
    const PIDFD: usize = 0x1000;
    const NOWHERE: usize = 1;
    const SHARED: usize = abi::CLONE_VM | abi::CLONE_FS | abi::CLONE_FILES | abi::CLONE_SIGHAND | abi::CLONE_SYSVSEM;
    // SAFETY: fails before there is a child, which would share this stack; were there one, it would end at once, as the parent waits.
    match unsafe { call(Sysno::clone, [SHARED | PIDFD, 0, NOWHERE, 0, 0]) } {
        Err(Errno::EFAULT) => Ok(()),
        Ok(0) => exit(),
        Ok(_) => Err(Errno::EIO),
        Err(e) => Err(e),
    }
}

/// Whether this user may choose ids: asks for one that is taken, so that no thread comes of it.
///
/// # Errors
/// EEXIST: yes; EPERM; ENOSYS before Linux 5.3, E2BIG before 5.5.
pub fn may_choose_ids(taken: u32) -> Result<i32> {
    let mut stack = [0u8; 64];
    let top = stack.as_mut_ptr() as usize + stack.len();
    unsafe extern "C" fn end(_: *mut u8) -> ! {
        exit()
    }
    // SAFETY: the kernel makes no thread under an id that is taken; one would end at once.
    unsafe { spawn_as(taken, top, stack.len(), end, core::ptr::null_mut()) }
}

/// Shares all that threads of a process share.
const THREAD: usize =
    abi::CLONE_VM | abi::CLONE_FS | abi::CLONE_FILES | abi::CLONE_SIGHAND | abi::CLONE_THREAD | abi::CLONE_SYSVSEM;

fn made(n: isize) -> Result<i32> {
    if n < 0 { Err(Errno::new(i32::try_from(-n).unwrap_or(1))) } else { Ok(n as i32) }
}

/// exit(2): this thread only.
pub fn exit() -> ! {
    loop {
        // SAFETY: ends the thread.
        let _ = unsafe { call(Sysno::exit, [0; 6]) };
    }
}

/// Number of CPUs that this thread may run on.
#[must_use]
pub fn cpus() -> usize {
    let mut mask = [0u64; 128];
    // SAFETY: the kernel fills at most the given bytes.
    let n = unsafe { call(Sysno::sched_getaffinity, [0, size_of_val(&mask), mask.as_mut_ptr() as usize]) };
    let words = n.unwrap_or(0) / 8;
    mask.iter().take(words).map(|w| w.count_ones() as usize).sum::<usize>().max(1)
}
