//! One stopped thread: its registers, what the kernel keeps for it, and the signals that wait for it.

use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

use image_format::record::thread::{Thread, ThreadFlags};
use state::frame::XSTATE_BV;
use state::{Error, Result};
use sys::Errno;
use sys::abi::ptrace::UserRegs;
use sys::abi::signal::{SIGURG, SIGWINCH, Siginfo};
use sys::fs::Fd;
use sys::ptrace;
use sys::signal::bit;

use super::filters::{self, FilterChain, Surroundings};
use super::place::Place;
use super::status::Status;
use super::stop::Stopped;
use crate::core_notes::{Frame, XCR0_IN_CORE};
use crate::cpu::Components;

/// Code segment of 64-bit programs (`__USER_CS`).
const USER_CS: u64 = 0x33;

/// Room for any XSAVE area, bytes: AMX's tiles alone take 8 KiB.
pub const XSAVE_MAX: usize = 32 << 10;

/// How often a thread may be found inside the vdso, after a microsecond more each time, before the save is given up.
const NUDGES: u32 = 400;

/// A thread as it was stopped.
#[derive(Debug)]
pub struct Registers {
    /// Its id as we see it.
    pub tid: i32,
    /// General registers: what it gets back when it goes on here.
    pub regs: UserRegs,
    /// XSAVE area as in a core.
    pub xstate: Vec<u8>,
    /// Bytes of it up to the last component that debuggers know.
    pub core_size: usize,
    /// Its signal mask.
    pub mask: u64,
    /// What it blocks where it stands: inside ppoll(2) and its like that is another mask, while ptrace tells the one that it
    /// will have back (kernel/ptrace.c, PTRACE_GETSIGMASK).
    pub blocked: u64,
    /// What `/proc` says of it.
    pub status: Status,
    /// What it may call.
    pub chain: Option<Arc<FilterChain>>,
}

/// Takes components for unused that hold zeros, as after a reset: not every CPU tells (QEMU's says that all are in use), and
/// what is not in use need not be there where the process goes on.
fn forget_zeros(xstate: &mut [u8], components: &Components) {
    let header = xstate.get(XSTATE_BV..XSTATE_BV + 8).and_then(|b| b.try_into().ok());
    let Some(mut present) = header.map(u64::from_le_bytes) else { return };
    for component in components.as_slice() {
        let (bit, at, len) = (1 << component.number.get(), component.at.get() as usize, component.len.get() as usize);
        if present & bit != 0 && xstate.get(at..at + len).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            present &= !bit;
        }
    }
    if let Some(header) = xstate.get_mut(XSTATE_BV..XSTATE_BV + 8) {
        header.copy_from_slice(&present.to_le_bytes());
    }
}

fn ended(tid: i32) -> Error {
    Error::failed(format_args!("thread {tid}"), "ended while it was being saved", Errno::ESRCH)
}

impl Registers {
    /// Reads a stopped thread. In the kernel's own code (vdso), which compares counters that another boot counts anew, and in
    /// code of a saver that was killed, no thread is saved: it is let run on. `before`: another one of its threads. `room`: for its
    /// XSAVE area. `None`: it has ended.
    ///
    /// # Errors
    /// 32-bit code, AMX tiles in use, what forbids calls inside.
    pub fn read(
        stopped: &mut Stopped,
        tid: i32,
        (place, mem): (&Place, Fd),
        (components, surroundings, before): (&Components, &Surroundings, Option<&Self>),
        room: &mut [u8],
    ) -> Result<Option<Self>> {
        let mut regs;
        let mut nudges = 0;
        loop {
            regs = ptrace::registers(tid).map_err(|_| ended(tid))?.ok_or_else(|| not_64_bit(tid))?;
            if !place.is_in_between(regs.rip) {
                break;
            }
            if nudges == NUDGES {
                let why = "is always found in the kernel's part of its code (vdso)";
                return Err(Error::refused(format_args!("thread {tid}"), why, "try again"));
            }
            nudges += 1;
            if !stopped.nudge(tid, Duration::from_micros(nudges.into()))? {
                return Ok(None);
            }
        }
        if regs.cs != USER_CS {
            return Err(not_64_bit(tid));
        }
        leave_critical_section(tid, &mut regs, mem);
        let status = Status::read(tid).map_err(|_| ended(tid))?;
        // Asked before any call is made in it: a filter may end the process for one.
        let chain = filters::read(tid, &status, (surroundings, before.and_then(|other| other.chain.as_ref())))?;
        if ptrace::dispatches_calls(tid) {
            let object = format_args!("thread {tid} (system call user dispatch)");
            return Err(Error::refused(object, "cannot be carried", "save it when it has switched that off"));
        }
        let len = ptrace::extended_state(tid, room).unwrap_or(0);
        if len == 0 {
            let object = format_args!("thread {tid} (floating-point registers)");
            let why = "cannot be read from outside, as this CPU has no XSAVE";
            return Err(Error::refused(object, why, "save it on another CPU"));
        }
        let mut xstate = room.get(..len).unwrap_or_default().to_vec();
        forget_zeros(&mut xstate, components);
        let word = |at: usize| xstate.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        if word(XSTATE_BV) & sys::abi::XTILEDATA != 0 {
            return Err(Error::refused(
                format_args!("thread {tid} (AMX tiles in use)"),
                "cannot be carried yet",
                "save when it has released its tiles, or start the program so that it does not use AMX",
            ));
        }
        let mask = ptrace::signal_mask(tid).map_err(|_| ended(tid))?;
        let blocked = status.blocked.unwrap_or(mask);
        let core_size = components.core_size(word(XCR0_IN_CORE));
        Ok(Some(Self { tid, regs, core_size, xstate, mask, blocked, status, chain }))
    }

    /// A signal that the kernel drops when it is sent to the thread, unless somebody traces it; 0 when there is none.
    #[must_use]
    pub fn end_signal(&self) -> i32 {
        let busy = self.mask | self.blocked | self.status.caught | self.status.waiting;
        [SIGURG, SIGWINCH].into_iter().find(|signal| busy & bit(*signal) == 0).unwrap_or(0)
    }

    /// What a debugger shall see, and the restart shall restore.
    #[must_use]
    pub fn frame(&self, regs: &UserRegs) -> Frame<'_> {
        let fxsave = self.xstate.get(..512).unwrap_or_default();
        Frame { regs: regs.words(), fxsave, xsave: &self.xstate, xcr0_at: XCR0_IN_CORE }
    }
}

/// Whether one of these signals waits, for the thread or for its process.
#[must_use]
pub fn one_waits(tid: i32, set: u64) -> bool {
    Status::read(tid).is_ok_and(|status| status.waiting & set != 0)
}

fn not_64_bit(tid: i32) -> Error {
    Error::refused(format_args!("thread {tid} (32-bit code)"), "cannot be carried", "use a 64-bit build of the program")
}

/// The kernel aborts a restartable sequence when its thread is stopped; it would not know of it any more when the thread
/// goes on elsewhere (kernel/rseq.c), so it is done here.
fn leave_critical_section(tid: i32, regs: &mut UserRegs, mem: Fd) {
    /// Offset of `rseq_cs` in `struct rseq`.
    const RSEQ_CS: u64 = 8;
    let Ok(config) = ptrace::rseq(tid) else { return };
    let word = |at: u64| {
        let mut bytes = [0; 8];
        sys::fs::pread_exact(mem, &mut bytes, at).ok().map(|()| u64::from_le_bytes(bytes))
    };
    if config.area == 0 {
        return;
    }
    let Some(section) = word(config.area + RSEQ_CS).filter(|s| *s != 0) else { return };
    // struct rseq_cs: version and flags, start_ip, post_commit_offset, abort_ip.
    let (Some(start), Some(len), Some(abort)) = (word(section + 8), word(section + 16), word(section + 24)) else {
        return;
    };
    if regs.rip.wrapping_sub(start) < len {
        regs.rip = abort;
        regs.orig_rax = u64::MAX;
    }
}

/// Signals that wait: the thread's own (`shared` false) or the process's.
///
/// # Errors
/// The thread has ended.
pub fn pending(tid: i32, shared: bool) -> Result<Vec<Siginfo>> {
    let mut all = Vec::new();
    loop {
        let mut some = [Siginfo::zeroed(); 32];
        match ptrace::peek_pending(tid, shared, all.len() as u64, &mut some) {
            Ok(0) => return Ok(all),
            Ok(n) => all.extend(some.iter().take(n)),
            Err(_) => return Err(ended(tid)),
        }
    }
}

/// Completes a record: what is known only by now.
pub fn complete(record: &mut Thread, registers: &Registers, regs: &UserRegs, leads: bool, mem: Fd) {
    record.jmp.rsp = regs.rsp.into();
    record.jmp.rip = regs.rip.into();
    record.jmp.fs_base = regs.fs_base.into();
    record.jmp.gs_base = regs.gs_base.into();
    record.jmp.sigmask = registers.mask.into();
    let flags = if leads { ThreadFlags::LEADER | ThreadFlags::CURRENT } else { ThreadFlags::empty() };
    record.flags = (record.flags.get() | flags.bits()).into();
    state::thread::find_id_words(record, |at, to| sys::fs::pread_exact(mem, to, at));
}
