//! `LD_PRELOAD=libckpt.so`: programs that know nothing of it save themselves on a signal.
//!
//! At load it reads `CKPT_IMAGE`, `CKPT_SIGNAL`, `CKPT_AFTER`, `CKPT_EXIT_SIGNAL` and `CKPT_EXIT_CODE`, and marks the
//! signal variables with this process's id, so that a program that it executes in its place is armed again and its
//! children are not. It stands in front of the libc's `sigaction` and its kin: a program that sets an action for an
//! armed signal believes that it has. Must never touch another signal's action.

use core::ffi::{CStr, c_int};

use sys::Errno;
use sys::abi::signal::{SA_NODEFER, SA_RESETHAND, SA_RESTART, SA_RESTORER, SIG_BLOCK, SIG_IGN, SIG_UNBLOCK, Sigaction};
use sys::text::{Text, decimal};

use crate::c_abi::{environ, fail};
use crate::local::After;
use crate::local::arm;

/// Longest value of a signal variable, with its mark.
const MARKED: usize = 128;

/// The marked variables, which `environ` points to.
static mut MARKS: [[u8; MARKED]; 2] = [[0; MARKED]; 2];

/// The variables that name signals.
const SIGNAL_VARIABLES: [&[u8]; 2] = [b"CKPT_SIGNAL", b"CKPT_EXIT_SIGNAL"];

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

/// Runs when the library is loaded, before `main`.
extern "C" fn at_load() {
    if let Err(why) = arm_from_environment() {
        let line = Text::<512>::of(format_args!("ckpt: not armed: {why}\n"));
        let _ = sys::fs::write_all(2, line.as_bytes());
    }
}

/// The entry of a variable in `environ`, and its value.
fn variable(name: &[u8]) -> Option<(*mut *const u8, &'static [u8])> {
    // SAFETY: libc's array of strings, ended by a null pointer; no other thread exists at load.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let entry = CStr::from_ptr((*at).cast()).to_bytes();
            if let Some(value) = entry.strip_prefix(name).and_then(|v| v.strip_prefix(b"=")) {
                return Some((at, value));
            }
            at = at.add(1);
        }
    }
    None
}

fn arm_from_environment() -> Result<(), &'static str> {
    let pid = sys::process::pid();
    let mut armed = false;
    for (index, name) in SIGNAL_VARIABLES.iter().enumerate() {
        let Some((entry, value)) = variable(name) else { continue };
        let (names, owner) = sys::text::cut(value, b'@').map_or((value, None), |(n, p)| (n, decimal(p)));
        if owner.is_some_and(|p| p != pid as u64) {
            // A child of the armed process.
            continue;
        }
        let (_, image) = variable(b"CKPT_IMAGE").filter(|(_, v)| !v.is_empty()).ok_or("CKPT_IMAGE names no image")?;
        let status = match variable(b"CKPT_EXIT_CODE") {
            Some((_, v)) => decimal(v).filter(|n| *n < 256).ok_or("CKPT_EXIT_CODE is no status from 0 to 255")? as i32,
            None if index == 1 => image_format::ExitCode::SavedAndExited as i32,
            None => 0,
        };
        let after = match (index, variable(b"CKPT_AFTER").map(|(_, v)| v)) {
            (1, _) | (_, Some(b"exit")) => After::Exit(status),
            (_, None | Some(b"continue" | b"")) => After::Continue,
            _ => return Err("CKPT_AFTER is neither continue nor exit"),
        };
        for name in names.split(|b| *b == b',').filter(|n| !n.is_empty()) {
            let signal = sys::signal::number(name).ok_or("CKPT_SIGNAL or CKPT_EXIT_SIGNAL names no signal")?;
            arm::on_signal(signal, image, after)
                .map_err(|_| "the signal cannot be handled, or the image's path is too long")?;
            armed = true;
        }
        mark(index, entry, names, pid);
    }
    if armed {
        crate::hooks::on_owner_changed(mark_again);
    }
    Ok(())
}

/// Puts `NAME=value@pid` into this library's own memory and `environ`'s entry on it.
fn mark(index: usize, entry: *mut *const u8, names: &[u8], pid: i32) {
    let mut text = Text::<MARKED>::new();
    text.push(SIGNAL_VARIABLES.get(index).copied().unwrap_or_default());
    text.push(b"=");
    text.push(names);
    text.push(Text::<16>::of(format_args!("@{pid:010}")).as_bytes());
    if text.is_cut() {
        return;
    }
    let bytes = text.as_c_str().to_bytes_with_nul();
    // SAFETY: at load no other thread exists.
    unsafe {
        let to = (&raw mut MARKS).cast::<[u8; MARKED]>().add(index).cast::<u8>();
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        *entry = to;
    }
}

/// In a restarted process: the marks name its new pid. Written over the old digits wherever the string lies now:
/// programs copy their environment, and free what they copied.
fn mark_again() {
    let digits = Text::<16>::of(format_args!("{:010}", sys::process::pid()));
    for name in SIGNAL_VARIABLES {
        let Some((_, value)) = variable(name) else { continue };
        if let Some((_, old)) = sys::text::cut(value, b'@')
            && old.len() == digits.as_bytes().len()
        {
            // SAFETY: the program's own string, as long as the digits; all other threads wait.
            unsafe { core::ptr::copy_nonoverlapping(digits.as_bytes().as_ptr(), old.as_ptr().cast_mut(), old.len()) };
        }
    }
}

/// The libc's `struct sigaction`, of glibc and musl alike.
#[repr(C)]
pub struct LibcSigaction {
    handler: usize,
    mask: [u64; 16],
    flags: c_int,
    restorer: usize,
}

fn exchange(signal: c_int, new: Option<Sigaction>) -> sys::Result<Sigaction> {
    if !(1..=64).contains(&signal) || matches!(signal, 32 | 33) {
        return Err(Errno::EINVAL);
    }
    if let Some(own) = arm::shadow(signal).filter(|_| arm::is_armed(signal)) {
        let old = own.get();
        if let Some(new) = new {
            own.set(&new);
        }
        return Ok(old);
    }
    match new {
        None => sys::signal::action(signal),
        // SAFETY: the program's own handler.
        Some(new) => unsafe { sys::signal::set_action(signal, &new) },
    }
}

fn of_libc(a: &LibcSigaction) -> Sigaction {
    let [mask, ..] = a.mask;
    let restorer = sys::arch::restore_rt as *const () as usize;
    Sigaction { handler: a.handler, flags: a.flags as u32 as u64 | SA_RESTORER, restorer, mask }
}

/// sigaction(2).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const LibcSigaction, old: *mut LibcSigaction) -> c_int {
    // SAFETY: null, or the program's structure.
    let wanted = unsafe { new.as_ref() }.map(of_libc);
    match exchange(signal, wanted) {
        Ok(was) => {
            // SAFETY: null, or the program's structure.
            if let Some(old) = unsafe { old.as_mut() } {
                let mut mask = [0; 16];
                mask[0] = was.mask;
                let flags = (was.flags & !SA_RESTORER) as u32 as c_int;
                *old = LibcSigaction { handler: was.handler, mask, flags, restorer: was.restorer };
            }
            0
        }
        Err(e) => fail(e),
    }
}

fn simple(signal: c_int, handler: usize, flags: u64, mask: u64) -> usize {
    let restorer = sys::arch::restore_rt as *const () as usize;
    match exchange(signal, Some(Sigaction { handler, flags: flags | SA_RESTORER, restorer, mask })) {
        Ok(was) => was.handler,
        Err(e) => {
            fail(e);
            usize::MAX
        }
    }
}

/// signal(2) with BSD semantics, as in glibc and musl.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn signal(number: c_int, handler: usize) -> usize {
    let mask = if (1..=64).contains(&number) { sys::signal::bit(number) } else { 0 };
    simple(number, handler, SA_RESTART, mask)
}

/// bsd_signal(3).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bsd_signal(number: c_int, handler: usize) -> usize {
    // SAFETY: the same call.
    unsafe { signal(number, handler) }
}

/// sysv_signal(3): one shot, not blocked.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysv_signal(number: c_int, handler: usize) -> usize {
    simple(number, handler, SA_RESETHAND | SA_NODEFER, 0)
}

/// What `signal` is in programs compiled for System V semantics.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sysv_signal(number: c_int, handler: usize) -> usize {
    // SAFETY: the same call.
    unsafe { sysv_signal(number, handler) }
}

/// `SIG_HOLD` of sigset(3): block the signal instead of handling it.
const SIG_HOLD: usize = 2;

/// sigset(3), the System V way to set an action and unblock the signal.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigset(number: c_int, handler: usize) -> usize {
    if !(1..=64).contains(&number) {
        fail(Errno::EINVAL);
        return usize::MAX;
    }
    let bit = sys::signal::bit(number);
    let how = if handler == SIG_HOLD { SIG_BLOCK } else { SIG_UNBLOCK };
    let was = match exchange(number, None) {
        Ok(was) => was.handler,
        Err(e) => {
            fail(e);
            return usize::MAX;
        }
    };
    if handler != SIG_HOLD && simple(number, handler, 0, 0) == usize::MAX {
        return usize::MAX;
    }
    // An armed signal stays unblocked: to hold it would hold the save.
    let old = if arm::is_armed(number) { Ok(0) } else { sys::signal::change_mask(how, bit) };
    match old {
        Ok(mask) if mask & bit != 0 => SIG_HOLD,
        Ok(_) => was,
        Err(e) => {
            fail(e);
            usize::MAX
        }
    }
}

/// sigignore(3).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigignore(number: c_int) -> c_int {
    if simple(number, SIG_IGN, 0, 0) == usize::MAX { -1 } else { 0 }
}

/// siginterrupt(3): whether system calls go on after the signal's handler.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siginterrupt(number: c_int, interrupt: c_int) -> c_int {
    let changed = exchange(number, None).and_then(|mut action| {
        action.flags = if interrupt != 0 { action.flags & !SA_RESTART } else { action.flags | SA_RESTART };
        exchange(number, Some(action))
    });
    changed.map_or_else(fail, |_| 0)
}

/// glibc's other name of [`sigaction`].
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(signal: c_int, new: *const LibcSigaction, old: *mut LibcSigaction) -> c_int {
    // SAFETY: the same call.
    unsafe { sigaction(signal, new, old) }
}
