//! Signals on which the process saves itself: which, where to, and what then.
//!
//! The table lies in statics, so that a restarted process is armed as before. A forked child is not: its handler
//! finds another pid and does what the program itself would have done.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use sys::abi::signal::{NSIG, Siginfo, Ucontext};
use sys::{Errno, Result};

use super::own::{Own, pass_on};
use super::save::{Outcome, Path, Request, claim, save_claimed};
use super::shared::Shared;
use super::stop::action;
use super::vdso;
use crate::output::PATH_MAX;

/// What the process does when its image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Goes on.
    Continue,
    /// Ends with this status.
    Exit(i32),
}

/// The process that the handlers belong to, as [`owner`] tells it; 0 before anything is armed.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// What to do on each signal: 0 not armed, 1 go on, 256 + status: exit.
static AFTER: [AtomicU32; NSIG as usize + 1] = [const { AtomicU32::new(0) }; NSIG as usize + 1];

/// Words of a path, and its length behind them.
const PATH_WORDS: usize = PATH_MAX / 8 + 1;

/// The image's path.
static PATH: Shared<PATH_WORDS> = Shared::new();

/// The programs' own actions for armed signals that it sets later (see `preload.rs`), of which the kernel does not know.
static SHADOW: [Own; NSIG as usize + 1] = [const { Own::new() }; NSIG as usize + 1];

/// The program's own action for an armed signal, if there is such a signal.
#[must_use]
pub fn shadow(signal: i32) -> Option<&'static Own> {
    SHADOW.get(usize::try_from(signal).ok()?)
}

/// The path on which armed signals save.
pub fn path(room: &mut [u8; PATH_MAX]) -> &[u8] {
    let [words @ .., len] = PATH.get();
    for (to, word) in room.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    room.get(..len).unwrap_or_default()
}

fn set_path(path: &[u8]) {
    let mut words = [0; PATH_WORDS];
    for (to, bytes) in words.iter_mut().zip(path.chunks(8)) {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        *to = usize::from_le_bytes(word);
    }
    let [.., len] = &mut words;
    *len = path.len();
    PATH.set(words);
}

/// Arms a signal. A relative `path` counts from the working directory of now.
///
/// # Errors
/// A signal that does not exist or cannot be handled; a path that is too long; the kernel's.
pub fn on_signal(signal: i32, path: &[u8], after: After) -> Result<()> {
    let slot =
        AFTER.get(usize::try_from(signal).map_err(|_| Errno::EINVAL)?).filter(|_| signal > 0).ok_or(Errno::EINVAL)?;
    let mut full = [0; PATH_MAX];
    let len = absolute(path, &mut full)?;
    let old = sys::signal::set_mask(sys::signal::ALL)?;
    set_path(full.get(..len).unwrap_or_default());
    OWNER.store(owner(), Ordering::Release);
    slot.store(
        match after {
            After::Continue => 1,
            After::Exit(status) => 256 + (status as u32 & 0xff),
        },
        Ordering::Release,
    );
    // SAFETY: the handler is async-signal-safe.
    let done = unsafe { sys::signal::set_action(signal, &action(on_save as *const () as usize)) };
    sys::signal::set_mask(old)?;
    match done {
        Ok(program) if program.handler != on_save as *const () as usize => {
            if let Some(own) = shadow(signal) {
                own.set(&program);
            }
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(e) => {
            slot.store(0, Ordering::Release);
            Err(e)
        }
    }
}

/// Whether a signal is armed in this process.
#[must_use]
pub fn is_armed(signal: i32) -> bool {
    let armed = usize::try_from(signal).ok().and_then(|n| AFTER.get(n)).is_some_and(|a| a.load(Ordering::Acquire) != 0);
    armed && OWNER.load(Ordering::Acquire) == owner()
}

/// This process, told from children that have a copy of this memory. Not the pid itself: the library keeps no id that would be taken for one that
/// the program keeps.
#[must_use]
pub fn owner() -> i32 {
    !sys::process::pid()
}

/// In a restarted process: its pid is another one.
pub fn moved() {
    if OWNER.load(Ordering::Acquire) != 0 {
        OWNER.store(owner(), Ordering::Release);
        crate::hooks::owner_changed();
    }
}

/// Makes `path` absolute in `to`; returns its length.
///
/// # Errors
/// ENAMETOOLONG; the working directory's.
pub fn absolute(path: &[u8], to: &mut [u8; PATH_MAX]) -> Result<usize> {
    let mut len = 0;
    if !path.starts_with(b"/") {
        len = sys::fs::read_link_at(sys::abi::AT_FDCWD, c"/proc/self/cwd", to)?.len();
        *to.get_mut(len).ok_or(Errno::ENAMETOOLONG)? = b'/';
        len += 1;
    }
    let end = len + path.len();
    if end >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    to.get_mut(len..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(path);
    Ok(end)
}

/// The armed signals' handler.
unsafe extern "C" fn on_save(signal: i32, info: *const Siginfo, context: *const Ucontext) {
    if OWNER.load(Ordering::Acquire) != owner() {
        // A forked child.
        not_ours(signal, info, context);
        return;
    }
    if !claim() {
        // Another save is under way and stops this thread at once: the signal waits until it is over.
        let _ = sys::process::kill(sys::process::pid(), signal);
        return;
    }
    // SAFETY: the kernel's frame, to which this handler returns at once.
    if !unsafe { vdso::lead_out(signal, context) } {
        save_at(signal, context);
    }
}

/// Saves on the thread that has claimed it, which a signal has interrupted there.
pub fn save_at(signal: i32, context: *const Ucontext) {
    let after = AFTER.get(signal as usize).map_or(0, |a| a.load(Ordering::Acquire));
    let exit = (after >= 256).then_some((after & 0xff) as i32);
    match save_claimed(Request { path: Path::Armed, signal, interrupted: context, exit }) {
        Ok(Outcome::Saved | Outcome::Restarted) => {}
        Err(error) => report(&error),
    }
}

/// One line on standard error.
pub fn report(error: &state::Error) {
    let line = sys::text::Text::<640>::of(format_args!("ckpt: save failed: {error}\n"));
    let _ = sys::fs::write_all(2, line.as_bytes());
}

/// Does what the program's own action says, in a child that is not armed.
fn not_ours(signal: i32, info: *const Siginfo, context: *const Ucontext) {
    pass_on(&shadow(signal).map(Own::get).unwrap_or_default(), signal, info, context);
}
