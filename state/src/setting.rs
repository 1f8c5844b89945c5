//! What a process has set for itself by prctl(2), personality(2), membarrier(2) and files of its own in `/proc`.
//!
//! Must never make a restart fail: what cannot be set again is said, and the process goes on without.

use core::ffi::CStr;

use image_format::record::setting::{Setting, Which};
use image_format::{Checked, NoteType};
use sys::abi::mm::{MAP_ANONYMOUS, MAP_PRIVATE, MCL_FUTURE, MCL_ONFAULT, PROT_READ, PROT_WRITE};
use sys::abi::{O_WRONLY, PR_GET_CHILD_SUBREAPER, PR_GET_DUMPABLE};
use sys::text::{Line, Shown};
use sys::{Errno, Sysno};

use crate::inside::{Arg, Question};
use crate::target::status_value;
use crate::{Error, Result, Save, Target};

/// How a value is asked for by prctl(2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// As the call's result.
    Returned,
    /// At an address.
    Written,
}

/// Options in ascending order, by which call each is asked for, and what it is when nobody has set it.
const OPTIONS: [(Which, usize, Told, u64); 10] = [
    (Which::Dumpable, PR_GET_DUMPABLE, Told::Returned, 1),
    (Which::KeepCaps, 7, Told::Returned, 0),
    (Which::Tsc, 25, Told::Written, 1),
    (Which::SecureBits, 27, Told::Returned, 0),
    (Which::Subreaper, PR_GET_CHILD_SUBREAPER, Told::Written, 0),
    (Which::NoNewPrivs, 39, Told::Returned, 0),
    (Which::ThpDisable, 42, Told::Returned, 0),
    (Which::IoFlusher, 58, Told::Returned, 0),
    (Which::Mdwe, 66, Told::Returned, 0),
    (Which::MemoryMerge, 68, Told::Returned, 0),
];

/// Barriers of membarrier(2) for which a process registers: all of them at once, as Linux 6.3 tells, and the barriers themselves, which
/// only who has registered may use.
const BARRIERS: [(Option<Which>, usize); 5] = [
    (None, 1 << 9),
    (Some(Which::BarrierGlobal), usize::MAX), // The barrier itself is for everybody.
    (Some(Which::BarrierPrivate), 1 << 3),
    (Some(Which::BarrierCore), 1 << 5),
    (Some(Which::BarrierRseq), 1 << 7),
];

/// The calls that ask for them.
#[must_use]
pub fn questions() -> [Question; OPTIONS.len() + BARRIERS.len()] {
    // SAFETY: `PR_GET_…` options and commands of membarrier(2): they fill the data, or return a number.
    let question = |number, first, second, len| unsafe { Question::new(number, Arg::Value(first), second, len) };
    let mut all = [question(Sysno::membarrier, 0, Arg::Value(0), 0); OPTIONS.len() + BARRIERS.len()];
    let options = OPTIONS.map(|(_, option, told, _)| {
        let to = if told == Told::Written { Arg::Data(0) } else { Arg::Value(0) };
        question(Sysno::prctl, option, to, 4)
    });
    let barriers = BARRIERS.map(|(_, command)| question(Sysno::membarrier, command, Arg::Value(0), 0));
    for (one, question) in all.iter_mut().zip(options.into_iter().chain(barriers)) {
        *one = question;
    }
    all
}

/// Writes for which barriers the process has registered.
fn barriers<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    let mut told = None;
    for ((which, _), question) in BARRIERS.iter().zip(questions().iter().skip(OPTIONS.len())) {
        let answer = question.ask::<0>(save.target).map(|(result, _)| result);
        let Some(which) = *which else {
            told = answer.ok();
            continue;
        };
        if told.map_or(answer.is_ok(), |told| told & (which as usize & 0xffff) != 0) {
            save.notes.push(&record(which, 1))?;
        }
    }
    Ok(())
}

/// The bit of the securebits that an option of its own sets, without privilege.
const SECBIT_KEEP_CAPS: u64 = 1 << 4;

/// `coredump_filter` of a process that has not written it.
const COREDUMP_FILTER: u64 = 0x33;

/// `loginuid` of who has not logged in.
const NOBODY: u64 = u32::MAX as u64;

/// Whether what the process maps from now on will be locked (`mlockall(MCL_FUTURE)`): the flags, or 0. The kernel tells only by
/// doing so, for a page, and a copy of the process does not have it: so this comes before it goes on.
#[must_use]
pub fn locks_future<T: Target>(target: &mut T) -> u64 {
    let mut buffer = [0; 32];
    let locked = |target: &T, to: &mut [u8; 32]| {
        let line = status_value(target.proc(), c"status", b"VmLck", to).ok().flatten().unwrap_or_default();
        sys::text::words(line).next().and_then(sys::text::decimal).unwrap_or(0)
    };
    let before = if target.locks_memory() == Some(false) { 0 } else { locked(target, &mut buffer) };
    // Without a page that is locked nobody has asked for more of them, as a rule: the stack grows, the heap too.
    if before == 0 {
        return 0;
    }
    let zero = Arg::Value(0);
    let (page, none) = (Arg::Value(image_format::PAGE as usize), Arg::Value(usize::MAX));
    let [prot, how] = [PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS].map(|n| Arg::Value(n as usize));
    // SAFETY: a new mapping at a free place.
    let made = unsafe { target.call(Sysno::mmap, [zero, page, prot, how, none, zero], &mut []) };
    let Ok(at) = made else { return 0 };
    let mut there = [0];
    // SAFETY: fills one byte.
    let told =
        unsafe { target.call(Sysno::mincore, [Arg::Value(at), page, Arg::Data(0), zero, zero, zero], &mut there) };
    let is_locked = locked(target, &mut buffer) > before;
    // SAFETY: the mapping just made.
    let _ = unsafe { target.call(Sysno::munmap, [Arg::Value(at), page, zero, zero, zero, zero], &mut []) };
    match (is_locked, told.is_ok() && there == [0]) {
        (false, _) => 0,
        (true, on_fault) => MCL_FUTURE | if on_fault { MCL_ONFAULT } else { 0 },
    }
}

/// Saves all that are not what they are by themselves. A copy made by fork(2) has them all from its process, but the adoption
/// of orphans, and of a process with that no copy is made.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, locks: u64) -> Result<()> {
    save.notes.begin(NoteType::Setting)?;
    for ((which, _, told, default), question) in OPTIONS.into_iter().zip(questions()) {
        // A kernel that does not know an option, or does not tell this user, has nobody who has set it.
        let (result, data) = match question.ask::<4>(save.target) {
            Ok(told) => told,
            Err(Errno::EINVAL | Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::ENODEV | Errno::ENXIO) => {
                continue;
            }
            Err(e) => return Err(Error::failed(format_args!("setting {}", which as u32), "cannot be asked for", e)),
        };
        let mut value = if told == Told::Written { u32::from_le_bytes(data).into() } else { result as u64 };
        if which == Which::SecureBits {
            value &= !SECBIT_KEEP_CAPS;
        }
        // 2: the kernel's own, for programs that may not be read; nobody can set it.
        if value != default && (which, value) != (Which::Dumpable, 2) {
            save.notes.push(&record(which, value))?;
        }
    }
    let mut buffer = [0; 32];
    let mut number = |name: &CStr, parse: fn(&[u8]) -> Option<u64>, default| {
        let failed = |e| Error::failed(format_args!("/proc/PID/{}", Shown(name.to_bytes())), "cannot be read", e);
        // A kernel that has no such file, or shows it to others alone, has nobody who has set it.
        let text = sys::fs::read_file_at(save.target.memory_proc(), name, &mut buffer);
        let Some(text) = sys::fs::found(text).map_err(failed)? else { return Ok(default) };
        parse(text.trim_ascii()).ok_or_else(|| failed(Errno::EIO))
    };
    let found = [
        (Which::Personality, number(c"personality", sys::text::hex, 0)?, 0),
        (Which::OomScore, number(c"oom_score_adj", signed, 0)?, 0),
        (Which::CoredumpFilter, number(c"coredump_filter", sys::text::hex, COREDUMP_FILTER)?, COREDUMP_FILTER),
        (Which::LockFuture, locks, 0),
        (Which::LoginUid, number(c"loginuid", sys::text::decimal, NOBODY)?, NOBODY),
    ];
    for (which, value, default) in found {
        if value != default {
            save.notes.push(&record(which, value))?;
        }
    }
    barriers(save)?;
    save.notes.end()?;
    Ok(())
}

fn record(which: Which, value: u64) -> Setting {
    Setting { which: (which as u32).into(), reserved: 0.into(), value: value.into() }
}

fn signed(text: &[u8]) -> Option<u64> {
    match text.strip_prefix(b"-") {
        Some(digits) => sys::text::decimal(digits).map(u64::wrapping_neg),
        None => sys::text::decimal(text),
    }
}

/// When a setting is set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before other threads are made, which have it from the first one.
    First,
    /// When nothing is left to do that it would forbid.
    Last,
    /// As the first, but for what is part of a thread's credentials, which change yet.
    Others,
    /// What is part of a thread's credentials.
    Rights,
}

impl When {
    /// Whether a setting is set by then.
    fn is(self, which: u32) -> bool {
        let last = || [Which::Dumpable, Which::Mdwe, Which::LockFuture].iter().any(|last| which == *last as u32);
        let rights = || which == Which::KeepCaps as u32 || which == Which::SecureBits as u32;
        match self {
            Self::First => !last(),
            Self::Last => last(),
            Self::Others => !last() && !rights(),
            Self::Rights => rights(),
        }
    }
}

/// Sets again what was set. `lost` gets each that cannot be.
pub fn restore(image: &Checked<'_>, when: When, lost: impl Fn(u32, Errno)) {
    for setting in image.each::<Setting>() {
        let (which, value) = (setting.which.get(), setting.value.get());
        if !when.is(which) {
            continue;
        }
        let done = if which == Which::OomScore as u32 {
            write(c"/proc/self/oom_score_adj", value)
        } else if which == Which::CoredumpFilter as u32 {
            write(c"/proc/self/coredump_filter", value)
        } else if which == Which::LoginUid as u32 {
            login(value)
        } else if which == Which::Personality as u32 {
            sys::process::set_personality(value)
        } else if which == Which::LockFuture as u32 {
            sys::memory::lock_all(value)
        } else if which >= Which::BarrierGlobal as u32 {
            sys::process::membarrier(which & 0xffff)
        } else {
            // Above the lowest bit there are its flags (Linux 6.18).
            let flags = if which == Which::ThpDisable as u32 { value & !1 } else { 0 };
            // SAFETY: none of the options that an image may name writes to memory.
            unsafe { sys::process::prctl(which as usize, value as usize, flags as usize, 0) }.map(drop)
        };
        if let Err(e) = done {
            lost(which, e);
        }
    }
}

/// Becomes what this user has logged in as. Who is that already need not ask: most may not, once they are somebody.
fn login(value: u64) -> sys::Result<()> {
    let mut buffer = [0; 16];
    let own = sys::fs::read_file_at(sys::abi::AT_FDCWD, c"/proc/self/loginuid", &mut buffer)?;
    if sys::text::decimal(own.trim_ascii()) == Some(value) { Ok(()) } else { write(c"/proc/self/loginuid", value) }
}

/// Writes a number, which may be a negative one, to a file of `/proc`.
fn write(path: &core::ffi::CStr, value: u64) -> sys::Result<()> {
    let value = value as i64;
    let number = Line::filled(if value < 0 { "-#" } else { "#" }, value.unsigned_abs(), b"", 0);
    let file = sys::fs::open(path, O_WRONLY, 0)?;
    sys::fs::write_all(file.fd(), number.as_bytes())
}
