//! What a thread's seccomp filters say of a call, asked before the call is injected. Filters that can be read are suspended while the thread is
//! traced, and live again the instant the tracer is killed, which may be just before the call.
//!
//! Must never let a call pass that would then end the thread, and no call that resumes it unless that is allowed for sure.

mod bpf;
mod probe;
mod surroundings;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use image_format::record::seccomp::{How, Instruction, PROGRAM_MAX, Seccomp};
use state::{Error, Result};
use sys::abi::ptrace::PTRACE_O_SUSPEND_SECCOMP;
use sys::{Errno, Sysno, ptrace};
use zerocopy::IntoBytes;

use self::bpf::run;
use self::probe::Verdict;
use self::surroundings::refused;
pub use self::surroundings::{Shared, Surroundings};
use super::status::Status;
use super::stop::OPTIONS;

/// `SECCOMP_FILTER_FLAG_LOG`, the only flag that a filter keeps.
const LOG: u64 = 2;

/// Results of filters (`SECCOMP_RET_*`), by which a call is made, or fails and does no harm.
const ALLOWED: [u32; 2] = [0x7fff_0000, 0x7ffc_0000];
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const KILL: u32 = 0x8000_0000;
const ACTION: u32 = 0xffff_0000;

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;

/// Any address: no filter can look at what is there.
const SOMEWHERE: usize = 1 << 40;

/// A filter.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    how: How,
    program: Vec<Instruction>,
}

/// What restricts a thread.
#[derive(Debug)]
enum Rules {
    /// All of its filters, the oldest first, or strict mode, in which there are none; and whether it has `no_new_privs`.
    Read(Vec<Filter>, bool),
    /// Those of its surroundings, which are not suspended.
    Shared(Arc<Shared>),
}

/// All filters of a thread, or strict mode.
#[derive(Debug)]
pub struct FilterChain {
    rules: Rules,
    /// The number of the first call that was withheld as it might harm the thread, plus one.
    withheld: AtomicUsize,
}

/// Filters of a thread that the kernel tells nobody here of.
fn not_told(tid: i32) -> Error {
    const WHY: &str = "can be saved by root alone, from outside of containers and with no filter of its own";
    refused(tid, WHY, "use `ckpt save PID` as root (CAP_SYS_ADMIN in the first user namespace)")
}

/// Refuses a thread that runs if it has filters which cannot be read and are not those of its surroundings; what they consist of is read when it
/// stands still.
///
/// # Errors
/// It has; it cannot be asked.
pub fn check(tid: i32, surroundings: &Surroundings) -> Result<()> {
    let failed = |e| Error::failed(format_args!("thread {tid}"), "cannot be read", e);
    let status = Status::read(tid).map_err(failed)?;
    if !status.filtered || can_read() || surroundings.shared_by(tid, &status)?.is_some() {
        return Ok(());
    }
    Err(not_told(tid))
}

/// What restricts a thread, to whose calls from now on no filter is applied. `before`: that of another one, which mostly is the same.
///
/// # Errors
/// It cannot be read by this user, or carried.
pub fn read(
    tid: i32,
    status: &Status,
    (surroundings, before): (&Surroundings, Option<&Arc<FilterChain>>),
) -> Result<Option<Arc<FilterChain>>> {
    if !status.filtered {
        return Ok(None);
    }
    if let Some(shared) = surroundings.shared_by(tid, status)? {
        return Ok(Some(FilterChain::of(Rules::Shared(shared), before)));
    }
    let privilege = |_| not_told(tid);
    let mut filters = Vec::new();
    if !status.strict {
        let mut room = Box::new([[0; 8]; PROGRAM_MAX]);
        loop {
            // Number 0 is the oldest (kernel/seccomp.c, `get_nth_filter`).
            let len = match ptrace::filter(tid, filters.len(), &mut room) {
                Ok(len) => len,
                Err(Errno::ENOENT) if !filters.is_empty() => break,
                Err(e @ (Errno::EACCES | Errno::EPERM)) => return Err(privilege(e)),
                Err(e) => {
                    return Err(Error::failed(format_args!("seccomp filter of thread {tid}"), "cannot be read", e));
                }
            };
            let logs = ptrace::filter_flags(tid, filters.len()).map_err(privilege)? & LOG != 0;
            let code = room.get(..len).unwrap_or_default().as_bytes();
            let program = zerocopy::FromBytes::ref_from_bytes(code).map(<[Instruction]>::to_vec).unwrap_or_default();
            let how = how_again(tid, &filters, logs)?;
            if program.iter().any(|one| {
                [0x16, 0x06].contains(&one.code.get()) && (one.code.get() == 0x16 || one.k.get() & ACTION == NOTIFY)
            }) {
                let why = "asks another process about calls (SECCOMP_RET_USER_NOTIF), which cannot be carried";
                return Err(refused(tid, why, "save the whole container, or start the program without it"));
            }
            filters.push(Filter { how, program });
        }
    }
    ptrace::set_options(tid, OPTIONS | PTRACE_O_SUSPEND_SECCOMP).map_err(privilege)?;
    Ok(Some(FilterChain::of(Rules::Read(filters, status.no_new_privs), before)))
}

/// Whether filters can be read by this process, as far as it can tell without a thread that has one.
fn can_read() -> bool {
    const SYS_ADMIN: u32 = 21;
    let of = |key: &[u8], value: fn(&[u8]) -> Option<u64>| {
        let mut buffer = [0; 64];
        let line = state::target::status_value(sys::abi::AT_FDCWD, c"/proc/self/status", key, &mut buffer);
        line.ok().flatten().and_then(|line| value(line.trim_ascii()))
    };
    of(b"CapEff", sys::text::hex).is_some_and(|all| all >> SYS_ADMIN & 1 != 0)
        && of(b"Seccomp", sys::text::decimal) == Some(0)
}

/// By which call the next filter can be installed: these are live by then.
fn how_again(tid: i32, before: &[Filter], logs: bool) -> Result<How> {
    let allows = |number: Sysno, args| ALLOWED.contains(&evaluate(before, number as usize, 0, args));
    if allows(Sysno::seccomp, [1, if logs { LOG as usize } else { 0 }, SOMEWHERE, 0, 0, 0]) {
        Ok(if logs { How::LoggingFilter } else { How::Filter })
    } else if !logs && allows(Sysno::prctl, [22, 2, SOMEWHERE, 0, 0, 0]) {
        Ok(How::FilterByPrctl)
    } else {
        let why = "was installed before one that it forbids to install, which cannot be done again";
        Err(refused(tid, why, "start the program with one filter"))
    }
}

impl Rules {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Read(own, plain), Self::Read(others, its)) => (own, plain) == (others, its),
            (Self::Shared(own), Self::Shared(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl FilterChain {
    /// `before`: that of another thread, which mostly is the same.
    fn of(rules: Rules, before: Option<&Arc<Self>>) -> Arc<Self> {
        let same = before.filter(|other| other.rules.is_like(&rules)).cloned();
        same.unwrap_or_else(|| Arc::new(Self { rules, withheld: AtomicUsize::new(0) }))
    }

    /// Filters that were read, and whether the thread has `no_new_privs`. `None`: there is nothing to carry.
    fn read(&self) -> Option<(&[Filter], bool)> {
        match &self.rules {
            Rules::Read(filters, no_new_privs) => Some((filters, *no_new_privs)),
            Rules::Shared(_) => None,
        }
    }

    /// How many filters, the oldest ones, all of these threads have, as one installs them for all: the kernel does not tell whether they
    /// are the very same.
    #[must_use]
    pub fn common(all: &[Option<Arc<Self>>]) -> usize {
        let mut all = all.iter().map(|one| one.as_ref().and_then(|one| one.read()));
        let (Some(Some((first, plain))), others) = (all.next(), all) else { return 0 };
        let mut count = if others.len() == 0 { 0 } else { first.len() };
        for other in others {
            let Some((other, _)) = other.filter(|(_, its)| *its == plain) else { return 0 };
            count = first.iter().zip(other).take(count).take_while(|(a, b)| a == b).count();
        }
        let shares = |place: &usize| {
            let (before, how) = (first.get(..*place)?, first.get(*place)?.how.shared()?);
            let [number, mode, flags] = how.call().map(|word| word as usize);
            let args = [mode, flags, SOMEWHERE, 0, 0, 0];
            ALLOWED.contains(&evaluate(before, number, 0, args)).then_some(())
        };
        (0..count).take_while(|place| shares(place).is_some()).count()
    }

    /// What is to be done again, for a thread with this id; `programs` gets those that are not there yet. The first `common` filters are
    /// those of all threads: the first thread's steps install them.
    pub fn steps(&self, tid: u32, (common, is_first): (usize, bool), programs: &mut Vec<Instruction>) -> Vec<Seccomp> {
        let step = |how: How, at: usize, len: usize| {
            let [number, first, second] = how.call().map(Into::into);
            let (at, len) = ((at * size_of::<Instruction>()) as u64, len as u64);
            Seccomp { number, first, second, tid: tid.into(), third: 0.into(), len: len.into(), at: at.into() }
        };
        let mut steps = Vec::new();
        let Some((filters, no_new_privs)) = self.read() else { return steps };
        if no_new_privs && (is_first || common == 0) {
            steps.push(step(How::NoNewPrivs, 0, 0));
        }
        if filters.is_empty() {
            steps.push(step(How::Strict, 0, 0));
        }
        for (place, Filter { how, program }) in filters.iter().enumerate() {
            let how = match how.shared().filter(|_| place < common) {
                Some(_) if !is_first => continue,
                Some(shared) => shared,
                None => *how,
            };
            let known = programs.windows(program.len().max(1)).position(|part| part == program);
            let at = known.unwrap_or(programs.len());
            if known.is_none() {
                programs.extend(program);
            }
            steps.push(step(how, at, program.len()));
        }
        steps
    }

    fn action(&self, number: usize, ip: u64, args: [usize; 6]) -> u32 {
        let filters = match &self.rules {
            Rules::Read(filters, _) => filters,
            Rules::Shared(shared) => {
                return match shared.ask(number, args) {
                    Verdict::Allowed => ALLOWED[0],
                    Verdict::Fails => ERRNO,
                    Verdict::Harms => KILL,
                };
            }
        };
        if filters.is_empty() {
            let known = [Sysno::read, Sysno::write, Sysno::exit, Sysno::rt_sigreturn]
                .iter()
                .any(|call| *call as usize == number);
            return if known { 0x7fff_0000 } else { KILL };
        }
        evaluate(filters, number, ip, args)
    }

    /// Whether the call is made with the filters live.
    #[must_use]
    pub fn allows(&self, number: Sysno, ip: u64, args: [usize; 6]) -> bool {
        ALLOWED.contains(&self.action(number as usize, ip, args))
    }

    /// Whether it does no harm, made or not.
    #[must_use]
    pub fn tolerates(&self, number: usize, ip: u64, args: [usize; 6]) -> bool {
        let action = self.action(number, ip, args);
        ALLOWED.contains(&action) || [ERRNO, TRACE].contains(&action)
    }

    /// A call is not made: it would harm the thread if the tracer were killed.
    pub fn withhold(&self, number: usize) {
        let _ = self.withheld.compare_exchange(0, number + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What must end the save: a call that was not made.
    ///
    /// # Errors
    /// That one.
    pub fn check_withheld(&self) -> Result<()> {
        let Some(number) = self.withheld.load(Ordering::Relaxed).checked_sub(1) else { return Ok(()) };
        let name = Sysno::new(number).map_or("unknown", |call| call.name());
        Err(Error::refused(
            format_args!("seccomp filter ({name}(2))"),
            "would end the process for a call that the saver has to make in it, if that were killed just then",
            "let the filter answer with an error (SECCOMP_RET_ERRNO) instead",
        ))
    }
}

/// Makes sure that filters let code at `ip` resume a thread without the tracer, by these calls.
///
/// # Errors
/// They forbid one of them.
pub fn allow_resume(chain: Option<&Arc<FilterChain>>, ip: u64, calls: &[(Sysno, [usize; 6])]) -> Result<()> {
    let Some(chain) = chain else { return Ok(()) };
    let forbidden = calls.iter().find(|(number, args)| !chain.allows(*number, ip, *args));
    forbidden.into_iter().for_each(|(number, _)| chain.withhold(*number as usize));
    chain.check_withheld()
}

/// What these filters say of a call: the strictest word counts.
fn evaluate(filters: &[Filter], number: usize, ip: u64, args: [usize; 6]) -> u32 {
    let mut data = [0u32; 16];
    let words = [number as u32 as u64 | u64::from(ARCH) << 32, ip].into_iter().chain(args.map(|arg| arg as u64));
    for (halves, word) in data.chunks_exact_mut(2).zip(words) {
        halves.copy_from_slice(&[word as u32, (word >> 32) as u32]);
    }
    let actions = filters.iter().map(|filter| run(&filter.program, &data).unwrap_or(KILL) & ACTION);
    actions.min_by_key(|action| *action as i32).unwrap_or(ALLOWED[0])
}

#[cfg(test)]
mod tests;
