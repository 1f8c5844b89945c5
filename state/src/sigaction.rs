//! Signal actions.

use image_format::NoteType;
use image_format::record::sigaction::Sigaction;
use sys::Sysno;
use sys::abi::signal::{NSIG, SIGCHLD, SIGKILL, SIGSTOP};
use zerocopy::FromZeros;

use crate::inside::Arg;
use crate::{Error, Question, Result, Save, Target};

/// Asks for the action of a signal.
const fn question(signal: i32) -> Question {
    let zero = Arg::Value(0);
    let args = [Arg::Value(signal as usize), zero, Arg::Data(0), Arg::Value(8), zero, zero];
    // SAFETY: without a new action it fills the structure.
    unsafe { Question::of(Sysno::rt_sigaction, args, 32) }
}

/// Saves the actions of all 64 signals. `replaced` is a signal whose action the saver has taken for a moment,
/// with the program's own.
///
/// # Errors
/// They cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, replaced: Option<(i32, sys::abi::signal::Sigaction)>) -> Result<()> {
    save.notes.begin(NoteType::Sigaction)?;
    let wanted = if T::IN_PROCESS { u64::MAX } else { special(save.target.memory_proc()) };
    if !T::IN_PROCESS {
        let mut questions = [question(1); NSIG as usize];
        let signals = (1..=NSIG).filter(|signal| wanted & sys::signal::bit(*signal) != 0);
        let asked = questions.iter_mut().zip(signals).map(|(to, signal)| *to = question(signal)).count();
        save.target.prefetch(questions.get(..asked).unwrap_or_default());
    }
    for signal in 1..=NSIG {
        if wanted & sys::signal::bit(signal) == 0 {
            save.notes.push(&Sigaction::new_zeroed())?;
            continue;
        }
        let (_, data) = question(signal)
            .ask::<32>(save.target)
            .map_err(|e| Error::failed(format_args!("action of signal {signal}"), "cannot be read", e))?;
        let mut words = data.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()).into());
        let mut word = || words.next().unwrap_or_default();
        let mut record = Sigaction { handler: word(), flags: word(), restorer: word(), mask: word() };
        if let Some((_, own)) = replaced.filter(|(n, _)| *n == signal) {
            record = Sigaction {
                handler: (own.handler as u64).into(),
                flags: own.flags.into(),
                restorer: (own.restorer as u64).into(),
                mask: own.mask.into(),
            };
        }
        save.notes.push(&record)?;
    }
    save.notes.end()?;
    Ok(())
}

/// Signals whose action is not the default one, or whose default one has flags that matter. From outside each
/// question costs two stops.
fn special(proc: sys::fs::Fd) -> u64 {
    let (mut buffer, mut found) = ([0; 2048], [u64::MAX; 2]);
    let [ignored, caught] = &mut found;
    if let Ok(lines) = sys::fs::Lines::open_at(proc, c"status", &mut buffer) {
        let mut lines = lines.pass_long().whole();
        while let Ok(Some(line)) = lines.next_line() {
            match sys::text::cut(line, b':') {
                Some((b"SigIgn", set)) => *ignored = sys::text::hex(set.trim_ascii()).unwrap_or(u64::MAX),
                Some((b"SigCgt", set)) => *caught = sys::text::hex(set.trim_ascii()).unwrap_or(u64::MAX),
                _ => {}
            }
        }
    }
    // SA_NOCLDWAIT and SA_NOCLDSTOP count also when SIGCHLD is not handled.
    found.iter().fold(sys::signal::bit(SIGCHLD), |all, set| all | set)
}

/// Sets one. All signals are blocked when this runs.
///
/// # Errors
/// The kernel's.
pub fn restore(signal: i32, action: &Sigaction) -> sys::Result<()> {
    if matches!(signal, SIGKILL | SIGSTOP) {
        return Ok(());
    }
    let action = sys::abi::signal::Sigaction {
        handler: action.handler.get() as usize,
        flags: action.flags.get(),
        restorer: action.restorer.get() as usize,
        mask: action.mask.get(),
    };
    // SAFETY: the handler is the restarted program's own; it cannot run before the signals are unblocked.
    unsafe { sys::signal::set_action(signal, &action) }.map(drop)
}
