//! What a thread's seccomp filters say of a call, asked before the call is injected. The filters are suspended while the thread is
//! traced, and live again the instant the tracer is killed, which may be just before the call.
//!
//! Must never let a call pass that would then end the thread, and no call that resumes it unless that is allowed for sure.

mod bpf;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

use image_format::record::seccomp::{How, Instruction, PROGRAM_MAX, Seccomp};
use state::{Error, Result};
use sys::abi::ptrace::PTRACE_O_SUSPEND_SECCOMP;
use sys::fs::Fd;
use sys::text::Text;
use sys::{Errno, Sysno, ptrace};
use zerocopy::IntoBytes;

use self::bpf::run;
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

/// All filters of a thread, the oldest first; or strict mode, in which there are none.
#[derive(Debug)]
pub struct FilterChain {
    filters: Vec<Filter>,
    no_new_privs: bool,
    /// The number of the first call that was withheld as it might harm the thread, plus one.
    withheld: AtomicUsize,
}

fn refused(tid: i32, why: &'static str, remedy: &'static str) -> Error {
    Error::refused(format_args!("seccomp filter of thread {tid}"), why, remedy)
}

/// Filters of a thread that the kernel tells nobody here of.
fn not_told(tid: i32) -> Error {
    const WHY: &str = "can be saved by root alone, from outside of containers and with no filter of its own";
    refused(tid, WHY, "use `ckpt save PID` as root (CAP_SYS_ADMIN in the first user namespace)")
}

/// Refuses a thread that runs if it has filters which cannot be read; what they consist of is read when it stands still.
///
/// # Errors
/// It has; it cannot be asked.
pub fn check(proc: Fd, tid: i32) -> Result<()> {
    let failed = |e| Error::failed(format_args!("thread {tid}"), "cannot be read", e);
    let mut buffer = [0; 16];
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mode = state::target::status_value(proc, path.as_c_str(), b"Seccomp", &mut buffer).map_err(failed)?;
    if mode.is_some_and(|mode| mode != b"0") && !can_read() { Err(not_told(tid)) } else { Ok(()) }
}

/// What restricts a thread, to whose calls from now on no filter is applied. `before`: that of another one, which mostly is the same.
///
/// # Errors
/// It cannot be read by this user, or carried.
pub fn read(tid: i32, status: &Status, before: Option<&Arc<FilterChain>>) -> Result<Option<Arc<FilterChain>>> {
    if !status.filtered {
        return Ok(None);
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
    let chain = FilterChain { filters, no_new_privs: status.no_new_privs, withheld: AtomicUsize::new(0) };
    Ok(Some(before.filter(|other| other.is_like(&chain)).cloned().unwrap_or_else(|| Arc::new(chain))))
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

impl FilterChain {
    fn is_like(&self, other: &Self) -> bool {
        (&self.filters, self.no_new_privs) == (&other.filters, other.no_new_privs)
    }

    /// How many filters, the oldest ones, all of these threads have, as one installs them for all: the kernel does not tell whether they
    /// are the very same.
    #[must_use]
    pub fn common(all: &[Option<Arc<Self>>]) -> usize {
        let [Some(first), others @ ..] = all else { return 0 };
        let mut count = if others.is_empty() { 0 } else { first.filters.len() };
        for other in others {
            let Some(other) = other.as_ref().filter(|other| other.no_new_privs == first.no_new_privs) else { return 0 };
            count = first.filters.iter().zip(&other.filters).take(count).take_while(|(a, b)| a == b).count();
        }
        let shares = |place: &usize| {
            let (before, how) = (first.filters.get(..*place)?, first.filters.get(*place)?.how.shared()?);
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
        if self.no_new_privs && (is_first || common == 0) {
            steps.push(step(How::NoNewPrivs, 0, 0));
        }
        if self.filters.is_empty() {
            steps.push(step(How::Strict, 0, 0));
        }
        for (place, Filter { how, program }) in self.filters.iter().enumerate() {
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
        if self.filters.is_empty() {
            let known = [Sysno::read, Sysno::write, Sysno::exit, Sysno::rt_sigreturn]
                .iter()
                .any(|call| *call as usize == number);
            return if known { 0x7fff_0000 } else { KILL };
        }
        evaluate(&self.filters, number, ip, args)
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
mod tests {
    use std::vec;

    use super::*;

    fn filter(program: &[(u16, u8, u8, u32)]) -> Filter {
        let program = program.iter();
        let program =
            program.map(|&(code, jt, jf, k)| Instruction { code: code.into(), jt, jf, k: k.into() }).collect();
        Filter { how: How::Filter, program }
    }

    fn of(filters: Vec<Filter>) -> FilterChain {
        FilterChain { filters, no_new_privs: true, withheld: AtomicUsize::new(0) }
    }

    /// An answer to one call; all others are allowed.
    fn on(number: u32, answer: u32) -> Filter {
        filter(&[(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, answer), (0x06, 0, 0, 0x7fff_0000)])
    }

    #[test]
    fn the_strictest_answer_counts() {
        let answers = [0x7fff_0000, 0x7ffc_0000, TRACE, NOTIFY, ERRNO | 1, 0x0003_0000, 0, KILL];
        for (place, stricter) in answers.iter().enumerate() {
            for milder in &answers[..=place] {
                for filters in [vec![on(9, *milder), on(9, *stricter)], vec![on(9, *stricter), on(9, *milder)]] {
                    assert_eq!(evaluate(&filters, 9, 0, [0; 6]), stricter & ACTION, "{milder:#x} {stricter:#x}");
                    assert_eq!(evaluate(&filters, 8, 0, [0; 6]), 0x7fff_0000);
                }
            }
        }
    }

    #[test]
    fn what_would_end_the_thread_is_not_spared() {
        for (answer, tolerates, allows) in [
            (0x7fff_0000, true, true),
            (0x7ffc_0000, true, true),
            (TRACE, true, false),
            (ERRNO | 38, true, false),
            (NOTIFY, false, false),
            (0x0003_0000, false, false),
            (0, false, false),
            (KILL, false, false),
            (0x1234_0000, false, false),
        ] {
            let chain = of(vec![on(15, answer)]);
            assert_eq!(chain.tolerates(15, 0, [0; 6]), tolerates, "{answer:#x}");
            assert_eq!(chain.allows(Sysno::rt_sigreturn, 0, [0; 6]), allows, "{answer:#x}");
        }
        let strict = of(Vec::new());
        assert!(strict.tolerates(15, 0, [0; 6]) && !strict.tolerates(9, 0, [0; 6]));
        assert!(strict.check_withheld().is_ok());
        strict.withhold(9);
        assert!(strict.check_withheld().is_err());
    }

    #[test]
    fn programs_see_what_the_kernel_shows_them() {
        // Each part of the data, compared with what it is to be.
        let data = [(0, 7), (4, ARCH), (8, 0x5566_7788), (12, 0x1122_3344), (16, 1), (20, 2), (56, 11), (60, 12)];
        let args = [1 | 2 << 32, 3, 4, 5, 6, 11 | 12 << 32];
        for (at, value) in data {
            let same = filter(&[(0x20, 0, 0, at), (0x15, 0, 1, value), (0x06, 0, 0, KILL), (0x06, 0, 0, 0x7fff_0000)]);
            assert_eq!(evaluate(&[same], 7, 0x1122_3344_5566_7788, args), KILL, "{at}");
        }
        // 5 * 6 - 2 = 28, by way of a word of memory and X; 28 >> 2 = 7; 7 / 0 ends with 0.
        let sums =
            [(0x00, 0, 0, 5), (0x24, 0, 0, 6), (0x14, 0, 0, 2), (0x02, 0, 0, 3), (0x61, 0, 0, 3), (0x87, 0, 0, 0)];
        let rest = [(0x74, 0, 0, 2), (0x15, 1, 0, 7), (0x06, 0, 0, KILL), (0x06, 0, 0, 0x7fff_0000)];
        assert_eq!(evaluate(&[filter(&[&sums[..], &rest].concat())], 0, 0, [0; 6]), 0x7fff_0000);
        let by_zero = [(0x01, 0, 0, 0), (0x3c, 0, 0, 0), (0x06, 0, 0, 0x7fff_0000)];
        assert_eq!(evaluate(&[filter(&by_zero)], 0, 0, [0; 6]), 0);
        // Code that no filter has, and one that runs off its end.
        for wrong in [&[(0x28, 0, 0, 0)][..], &[(0x05, 0, 0, 7)], &[(0x60, 0, 0, 16)]] {
            assert_eq!(evaluate(&[filter(wrong)], 0, 0, [0; 6]), KILL);
        }
    }

    #[test]
    fn each_program_is_kept_once() {
        let mut programs = Vec::new();
        let chain = of(vec![on(9, KILL), on(8, KILL), on(9, KILL)]);
        let steps = chain.steps(7, (0, true), &mut programs);
        assert_eq!(programs.len(), 8);
        let places: Vec<_> = steps.iter().map(|step| (step.at.get(), step.len.get())).collect();
        assert_eq!(places, [(0, 0), (0, 4), (32, 4), (0, 4)]);
        assert_eq!(steps.len() + 1, chain.steps(8, (0, false), &mut programs).len() + 1);
        assert_eq!(programs.len(), 8);
    }
    #[test]
    fn what_all_threads_have_is_installed_once() {
        let kind = |how: &Seccomp| How::of(how).unwrap_or(How::Strict);
        let one = |filters: Vec<Filter>| Some(Arc::new(of(filters)));
        let chain = |last: u32| vec![on(9, KILL), on(8, KILL), on(last, KILL)];
        let all = [one(chain(1)), one(chain(2)), one(vec![on(9, KILL), on(8, KILL)])];
        assert_eq!(FilterChain::common(&all), 2);
        assert_eq!(FilterChain::common(&all[..1]), 0, "nobody shares with one");
        assert_eq!(FilterChain::common(&[one(chain(1)), None]), 0);
        assert_eq!(FilterChain::common(&[one(vec![on(9, KILL)]), one(vec![on(8, KILL)])]), 0);
        // The first forbids what would install the second for all.
        let forbids = || vec![on(Sysno::seccomp as u32, ERRNO), on(9, KILL)];
        assert_eq!(FilterChain::common(&[one(forbids()), one(forbids())]), 1);
        let (mut programs, of_all) = (Vec::new(), [2; 3]);
        let steps = |place: usize, programs: &mut Vec<_>| {
            let chain = all.get(place).and_then(Option::as_ref);
            let steps =
                chain.map(|chain| chain.steps(7, (of_all.get(place).copied().unwrap_or(0), place == 0), programs));
            steps.unwrap_or_default().iter().map(kind).collect::<Vec<_>>()
        };
        let first = [How::NoNewPrivs, How::SharedFilter, How::SharedFilter, How::Filter];
        assert_eq!(steps(0, &mut programs), first);
        assert_eq!(steps(1, &mut programs), [How::Filter]);
        assert_eq!(steps(2, &mut programs), []);
    }
}
