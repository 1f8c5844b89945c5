//! ptrace(2) of a seized thread: stop, registers, signals, memory, let go.
//!
//! A tracer that dies lets its tracees go on with the registers that they have at that moment: whoever sets registers
//! must make sure that the thread resumes (see `capture/src/remote/injected.rs`).

use crate::abi::ptrace::{
    IO_VEC_LEN, NT_PRSTATUS, NT_X86_XSTATE, PEEKSIGINFO_SHARED, PTRACE_CONT, PTRACE_DETACH,
    PTRACE_GET_RSEQ_CONFIGURATION, PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, PTRACE_GETEVENTMSG, PTRACE_GETREGSET,
    PTRACE_GETSIGMASK, PTRACE_INTERRUPT, PTRACE_PEEKSIGINFO, PTRACE_SECCOMP_GET_FILTER, PTRACE_SECCOMP_GET_METADATA,
    PTRACE_SEIZE, PTRACE_SETOPTIONS, PTRACE_SETREGSET, PTRACE_SETSIGMASK, PTRACE_SYSCALL, RseqConfiguration, UserRegs,
    WALL,
};
use crate::abi::signal::Siginfo;
use crate::{Result, Sysno, call};

/// What waitpid(2) said of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has exited, or a signal has ended it.
    Gone,
    /// It stands still: the stop signal (bit 7: a system call's entry or exit) and the `PTRACE_EVENT_*` number, or 0.
    Stopped(i32, i32),
}

fn request(request: usize, tid: i32, addr: usize, data: usize) -> Result<usize> {
    // SAFETY: the callers below pass addresses of their own values, as long as the request needs.
    unsafe { call(Sysno::ptrace, [request, tid as usize, addr, data]) }
}

/// `PTRACE_SEIZE`: traces without stopping.
///
/// # Errors
/// EPERM: not allowed, or traced already; ESRCH: gone.
pub fn seize(tid: i32, options: usize) -> Result<()> {
    request(PTRACE_SEIZE, tid, 0, options).map(drop)
}

/// `PTRACE_INTERRUPT`: asks for a stop, which [`wait`] reports.
///
/// # Errors
/// ESRCH: gone.
pub fn interrupt(tid: i32) -> Result<()> {
    request(PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// `PTRACE_CONT` with a signal to deliver, or 0.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn resume(tid: i32, signal: i32) -> Result<()> {
    request(PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_SYSCALL`: as [`resume`], up to the next entry or exit of a system call.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn resume_to_call(tid: i32, signal: i32) -> Result<()> {
    request(PTRACE_SYSCALL, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_DETACH`.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn detach(tid: i32, signal: i32) -> Result<()> {
    request(PTRACE_DETACH, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_SETOPTIONS`.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn set_options(tid: i32, options: usize) -> Result<()> {
    request(PTRACE_SETOPTIONS, tid, 0, options).map(drop)
}

/// `PTRACE_GETEVENTMSG`: the new thread's id after a clone event.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn event_message(tid: i32) -> Result<u64> {
    let mut message = 0u64;
    request(PTRACE_GETEVENTMSG, tid, 0, (&raw mut message) as usize)?;
    Ok(message)
}

/// Reads a register set into `to`; returns the bytes that there are.
///
/// # Errors
/// EINVAL or ENODEV: no such set.
fn regset(tid: i32, kind: usize, to: &mut [u8]) -> Result<usize> {
    let mut vec = [to.as_mut_ptr() as usize, to.len()];
    request(PTRACE_GETREGSET, tid, kind, vec.as_mut_ptr() as usize)?;
    let [_, len] = vec;
    Ok(len.min(to.len()))
}

/// The general registers; `None` for a thread of another kind of machine (32-bit code).
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn registers(tid: i32) -> Result<Option<UserRegs>> {
    let mut regs = UserRegs::default();
    let mut vec = [(&raw mut regs) as usize, IO_VEC_LEN];
    request(PTRACE_GETREGSET, tid, NT_PRSTATUS, vec.as_mut_ptr() as usize)?;
    let [_, len] = vec;
    Ok((len == IO_VEC_LEN).then_some(regs))
}

/// Sets the general registers.
///
/// # Errors
/// ESRCH: gone, or not stopped; EIO: values that no register may have.
///
/// # Safety
/// The thread goes on there, also when the caller dies: it must be code that resumes the thread.
pub unsafe fn set_registers(tid: i32, regs: &UserRegs) -> Result<()> {
    let vec = [(&raw const *regs) as usize, IO_VEC_LEN];
    request(PTRACE_SETREGSET, tid, NT_PRSTATUS, vec.as_ptr() as usize).map(drop)
}

/// The extended state as an XSAVE area in standard format, XCR0 at byte 464; returns its length.
///
/// # Errors
/// ENODEV: a CPU without XSAVE.
pub fn extended_state(tid: i32, to: &mut [u8]) -> Result<usize> {
    regset(tid, NT_X86_XSTATE, to)
}

/// The mask of blocked signals; within sigsuspend(2) and its like the one that will be again afterwards.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn signal_mask(tid: i32) -> Result<u64> {
    let mut mask = 0u64;
    request(PTRACE_GETSIGMASK, tid, 8, (&raw mut mask) as usize)?;
    Ok(mask)
}

/// Sets the mask of blocked signals.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn set_signal_mask(tid: i32, mask: u64) -> Result<()> {
    request(PTRACE_SETSIGMASK, tid, 8, (&raw const mask) as usize).map(drop)
}

/// Copies pending signals, from the thread's own queue or (`shared`) from the process's, beginning with number `from`;
/// returns how many.
///
/// # Errors
/// ESRCH: gone, or not stopped.
pub fn peek_pending(tid: i32, shared: bool, from: u64, to: &mut [Siginfo]) -> Result<usize> {
    /// `struct ptrace_peeksiginfo_args`.
    #[repr(C)]
    struct Args {
        off: u64,
        flags: u32,
        nr: i32,
    }
    let flags = if shared { PEEKSIGINFO_SHARED } else { 0 };
    let args = Args { off: from, flags, nr: i32::try_from(to.len()).unwrap_or(i32::MAX) };
    request(PTRACE_PEEKSIGINFO, tid, (&raw const args) as usize, to.as_mut_ptr() as usize)
}

/// `PTRACE_GET_RSEQ_CONFIGURATION` (Linux 5.13): the thread's rseq area, all zero when it has none.
///
/// # Errors
/// EIO: an older kernel.
pub fn rseq(tid: i32) -> Result<RseqConfiguration> {
    let mut config = RseqConfiguration::default();
    request(PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>(), (&raw mut config) as usize)?;
    Ok(config)
}

/// Whether the thread's system calls are handed to a handler of its own (`PR_SET_SYSCALL_USER_DISPATCH`); false where the
/// kernel does not tell.
#[must_use]
pub fn dispatches_calls(tid: i32) -> bool {
    /// `struct ptrace_sud_config`: mode, selector, offset, length.
    type Config = [u64; 4];
    let mut config: Config = [0; 4];
    let at = (&raw mut config) as usize;
    let told = request(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of::<Config>(), at);
    let [mode, ..] = config;
    told.is_ok() && mode != 0
}

/// `PTRACE_SECCOMP_GET_FILTER`: the program of the thread's filter with this number, the newest first, eight bytes for each
/// instruction; returns their number. `to` has room for any program.
///
/// # Errors
/// ENOENT: no such filter; EACCES: not allowed; EMEDIUMTYPE: the program is none of the process's own.
pub fn filter(tid: i32, number: usize, to: &mut [[u8; 8]; 4096]) -> Result<usize> {
    request(PTRACE_SECCOMP_GET_FILTER, tid, number, to.as_mut_ptr() as usize)
}

/// `PTRACE_SECCOMP_GET_METADATA`: the flags that this filter was installed with.
///
/// # Errors
/// As for [`filter`].
pub fn filter_flags(tid: i32, number: usize) -> Result<u64> {
    // `struct seccomp_metadata`.
    let mut metadata = [number as u64, 0];
    request(PTRACE_SECCOMP_GET_METADATA, tid, size_of_val(&metadata), metadata.as_mut_ptr() as usize)?;
    let [_, flags] = metadata;
    Ok(flags)
}

/// waitpid(2) for one thread or child of any kind; `None` with `block` false: nothing has happened.
///
/// # Errors
/// ECHILD: it is not ours, or gone.
pub fn wait(tid: i32, block: bool) -> Result<Option<Event>> {
    const WNOHANG: usize = 1;
    let mut status = 0i32;
    let options = WALL | if block { 0 } else { WNOHANG };
    // SAFETY: the kernel writes the status.
    let which = unsafe { call(Sysno::wait4, [tid as usize, (&raw mut status) as usize, options, 0]) }?;
    if which == 0 {
        return Ok(None);
    }
    if status & 0xff != 0x7f {
        return Ok(Some(Event::Gone));
    }
    Ok(Some(Event::Stopped(status >> 8 & 0xff, status >> 16)))
}
