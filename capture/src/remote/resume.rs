//! A thread that was stopped inside a system call: what it shall do when it goes on, here and after a restart.
//!
//! The kernel marks an interrupted call by a result that no program ever sees (`ERESTART*`) and decides when the thread
//! goes on whether to make the call again (arch/x86/kernel/signal.c, `arch_do_signal_or_restart`). Must never let a program
//! see an `EINTR` that a signal of its own did not earn.

use sys::Sysno;
use sys::abi::ptrace::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS, UserRegs};
use sys::fs::Fd;

/// `EINTR` as a result.
const EINTR: i64 = -4;

/// Length of the instruction `syscall`.
const SYSCALL_LEN: u64 = 2;

/// Calls that end with `EINTR` when their thread is stopped by a tracer, and have done nothing then (signal(7)).
const NEVER_RESTARTED: [Sysno; 21] = [
    Sysno::epoll_wait,
    Sysno::epoll_pwait,
    Sysno::epoll_pwait2,
    Sysno::semop,
    Sysno::semtimedop,
    Sysno::rt_sigtimedwait,
    Sysno::io_getevents,
    Sysno::io_uring_enter,
    Sysno::io_pgetevents,
    Sysno::read,
    Sysno::readv,
    Sysno::write,
    Sysno::writev,
    Sysno::accept,
    Sysno::accept4,
    Sysno::recvfrom,
    Sysno::recvmsg,
    Sysno::recvmmsg,
    Sysno::sendto,
    Sysno::sendmsg,
    Sysno::sendmmsg,
];

/// The number of the call in which the thread stands; `None` when it stands in its own code.
fn call_of(regs: &UserRegs) -> Option<u64> {
    (regs.orig_rax as i64 >= 0).then_some(regs.orig_rax)
}

/// Turns an `EINTR` that only the tracer's stop has caused into a mark by which the kernel makes the call again. True: it was one.
pub fn undo_interruption(regs: &mut UserRegs) -> bool {
    let ours = regs.rax as i64 == EINTR
        && call_of(regs).is_some_and(|number| NEVER_RESTARTED.iter().any(|call| *call as u64 == number));
    if ours {
        regs.rax = (-ERESTARTNOHAND) as u64;
    }
    ours
}

/// The registers with which a thread resumes that is detached within injected code: as it was, with an interrupted call made again. By a frame
/// (`mem` is then the program's memory): rt_sigreturn(2) lets the kernel forget how long a sleep has left.
#[must_use]
pub fn resume_regs(regs: &UserRegs, by_frame: Option<Fd>) -> UserRegs {
    let mut regs = *regs;
    if let Some(number) = call_of(&regs) {
        let mark = -(regs.rax as i64);
        regs.orig_rax = u64::MAX;
        match mark {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => regs.rax = number,
            ERESTART_RESTARTBLOCK => match by_frame {
                Some(mem) => regs.rax = restart_block(&mut regs, number, mem),
                // The kernel still knows how long is left.
                None => regs.rax = Sysno::restart_syscall as u64,
            },
            _ => return regs,
        }
        regs.rip -= SYSCALL_LEN;
    }
    regs
}

/// What a signal of the program's own, which waits to be handled, does to an interrupted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No such signal.
    None,
    /// Its handler asks for calls to be made again (`SA_RESTART`).
    Restarts,
    /// Its handler makes the call end with `EINTR`.
    Interrupts,
}

/// The registers as the restarted thread shall have them. `mem` is the program's memory.
#[must_use]
pub fn restarted(regs: &UserRegs, waiting: Waiting, mem: Fd) -> UserRegs {
    let mut regs = *regs;
    let Some(number) = call_of(&regs) else { return regs };
    let (again, mark) = (number, -(regs.rax as i64));
    regs.orig_rax = u64::MAX;
    let again = match mark {
        ERESTARTNOINTR => again,
        ERESTARTSYS if waiting != Waiting::Interrupts => again,
        ERESTARTNOHAND if waiting == Waiting::None => again,
        ERESTART_RESTARTBLOCK if waiting == Waiting::None => restart_block(&mut regs, again, mem),
        ERESTARTSYS | ERESTARTNOHAND | ERESTART_RESTARTBLOCK => {
            regs.rax = EINTR as u64;
            return regs;
        }
        _ => return regs,
    };
    regs.rax = again;
    regs.rip -= SYSCALL_LEN;
    regs
}

/// The moment on a clock that begins anew with each boot until which the call lasts that these registers make again: the
/// clock and the address.
#[must_use]
pub fn deadline(regs: &UserRegs, was: &UserRegs) -> Option<(u32, u64)> {
    const MONOTONIC: u64 = 1;
    /// `TIMER_ABSTIME`.
    const ABSOLUTE: u64 = 1;
    /// `FUTEX_CMD_MASK` and `FUTEX_CLOCK_REALTIME`.
    const COMMAND: u64 = 0x17f;
    /// `FUTEX_WAIT_BITSET`, `FUTEX_WAIT_REQUEUE_PI`, `FUTEX_LOCK_PI2`: the others count the wall clock, or a time.
    const UNTIL: [u64; 3] = [9, 11, 13];
    // Made again, or not in a call at all.
    if regs.rip.wrapping_add(SYSCALL_LEN) != was.rip {
        return None;
    }
    let (clock, at) = match regs.rax {
        n if n == Sysno::clock_nanosleep as u64 && regs.rsi & ABSOLUTE != 0 => (regs.rdi, regs.rdx),
        n if n == Sysno::futex as u64 && UNTIL.contains(&(regs.rsi & COMMAND)) => (MONOTONIC, regs.r10),
        n if n == Sysno::futex_waitv as u64 => (regs.r8, regs.r10),
        _ => return None,
    };
    Some((clock as u32, at)).filter(|(clock, at)| [1, 7].contains(clock) && *at != 0 && at.is_multiple_of(8))
}

/// The call behind `ERESTART_RESTARTBLOCK`, whose remaining time only the kernel knew: a sleep that was given a place for
/// the time that is left goes on with that; others are made again as they were.
fn restart_block(regs: &mut UserRegs, number: u64, mem: Fd) -> u64 {
    let number = if number == Sysno::restart_syscall as u64 { original_call(regs, mem) } else { number };
    if number == Sysno::nanosleep as u64 && regs.rsi != 0 {
        regs.rdi = regs.rsi;
    } else if number == Sysno::clock_nanosleep as u64 && regs.r10 != 0 {
        regs.rdx = regs.r10;
    }
    number
}

/// A call that was interrupted twice bears the number of restart_syscall(2): which one it was shows the instruction
/// that loaded the number, or else by the shape of the arguments, which are still there.
fn original_call(regs: &UserRegs, mem: Fd) -> u64 {
    const LOOK_BACK: usize = 32;
    let known = [Sysno::nanosleep, Sysno::clock_nanosleep, Sysno::poll, Sysno::futex].map(|n| n as u64);
    let mut code = [0; LOOK_BACK];
    if sys::fs::pread_exact(mem, &mut code, regs.rip - SYSCALL_LEN - LOOK_BACK as u64).is_ok() {
        // mov eax, imm32
        let loads = code.windows(5).rev().filter(|w| w.first() == Some(&0xb8));
        let mut numbers = loads.filter_map(|w| w.last_chunk::<4>()).map(|n| u64::from(u32::from_le_bytes(*n)));
        if let Some(number) = numbers.find(|n| known.contains(n)) {
            return number;
        }
    }
    let mapped = |addr: u64| addr >= 4096 && sys::fs::pread_exact(mem, &mut [0; 16], addr).is_ok();
    let call = if mapped(regs.rdi) && (regs.rsi == 0 || mapped(regs.rsi)) && regs.rsi.wrapping_sub(regs.rdi) < 1 << 20 {
        Sysno::nanosleep
    } else if !mapped(regs.rdi) && mapped(regs.rdx) {
        Sysno::clock_nanosleep
    } else if mapped(regs.rdi) && mapped(regs.r10) {
        Sysno::futex
    } else {
        Sysno::poll
    };
    call as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_call(number: Sysno, result: i64) -> UserRegs {
        UserRegs { rip: 0x1002, orig_rax: number as u64, rax: result as u64, rdi: 1, rsi: 2, ..UserRegs::default() }
    }

    #[test]
    fn calls_are_made_again() {
        for mark in [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND] {
            let regs = restarted(&in_call(Sysno::read, -mark), Waiting::None, -1);
            assert_eq!((regs.rip, regs.rax, regs.orig_rax), (0x1000, Sysno::read as u64, u64::MAX), "{mark}");
        }
        let regs = restarted(&in_call(Sysno::nanosleep, -ERESTART_RESTARTBLOCK), Waiting::None, -1);
        assert_eq!((regs.rip, regs.rax, regs.rdi), (0x1000, Sysno::nanosleep as u64, 2));
    }

    #[test]
    fn moments_of_clocks_that_begin_anew_are_found() {
        let call = |number, rsi, r10| {
            let was = UserRegs { rsi, r10, rdx: 0x7000, ..in_call(number, -ERESTARTSYS) };
            deadline(&restarted(&was, Waiting::None, -1), &was)
        };
        assert_eq!(call(Sysno::clock_nanosleep, 1, 0), Some((1, 0x7000)));
        assert_eq!(call(Sysno::clock_nanosleep, 0, 0), None);
        assert_eq!(call(Sysno::futex, 0x89, 0x8000), Some((1, 0x8000)));
        // The wall clock; a time; none.
        assert_eq!(call(Sysno::futex, 0x189, 0x8000), None);
        assert_eq!(call(Sysno::futex, 0x80, 0x8000), None);
        assert_eq!(call(Sysno::futex, 0x89, 0), None);
        assert_eq!(call(Sysno::read, 1, 0), None);
    }

    #[test]
    fn a_waiting_signal_interrupts() {
        for (mark, waiting, interrupted) in [
            (ERESTARTSYS, Waiting::Interrupts, true),
            (ERESTARTSYS, Waiting::Restarts, false),
            (ERESTARTNOHAND, Waiting::Restarts, true),
            (ERESTARTNOINTR, Waiting::Interrupts, false),
        ] {
            let regs = restarted(&in_call(Sysno::read, -mark), waiting, -1);
            assert_eq!(regs.rax as i64 == EINTR, interrupted, "{mark} {waiting:?}");
        }
    }

    #[test]
    fn our_own_stop_is_no_interruption() {
        let mut regs = in_call(Sysno::epoll_wait, EINTR);
        assert!(undo_interruption(&mut regs));
        assert_eq!(regs.rax as i64, -ERESTARTNOHAND);
        let mut regs = in_call(Sysno::close, EINTR);
        assert!(!undo_interruption(&mut regs));
        assert_eq!(regs.rax as i64, EINTR);
        let mut regs = UserRegs { orig_rax: u64::MAX, rax: EINTR as u64, ..UserRegs::default() };
        assert!(!undo_interruption(&mut regs));
        assert_eq!(regs.rax as i64, EINTR);
    }

    #[test]
    fn results_stay() {
        let regs = in_call(Sysno::read, 5);
        assert_eq!(restarted(&regs, Waiting::None, -1), UserRegs { orig_rax: u64::MAX, ..regs });
    }
}
