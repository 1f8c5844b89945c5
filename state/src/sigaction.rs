//! Signal actions.

use image_format::NoteType;
use image_format::record::sigaction::Sigaction;
use sys::Sysno;
use sys::abi::signal::{NSIG, SIGCHLD, SIGKILL, SIGSTOP};
use zerocopy::FromZeros;

use crate::target::{Arg, status_value};
use crate::{Error, Result, Save, Target};

/// Saves the actions of all 64 signals. `replaced` is a signal whose action the saver has taken for a moment,
/// with the program's own.
///
/// # Errors
/// They cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, replaced: Option<(i32, sys::abi::signal::Sigaction)>) -> Result<()> {
    save.notes.begin(NoteType::Sigaction)?;
    let wanted = if T::IN_PROCESS { u64::MAX } else { special(save.target.memory_proc()) };
    for signal in 1..=NSIG {
        if wanted & sys::signal::bit(signal) == 0 {
            save.notes.push(&Sigaction::new_zeroed())?;
            continue;
        }
        let mut data = [0; 32];
        let args = [signal as usize, 0].map(Arg::Value);
        let [number, new] = args;
        save.target
            .call(Sysno::rt_sigaction, [number, new, Arg::Data(0), Arg::Value(8), new, new], &mut data)
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
    let mut buffer = [0; 32];
    let mut mask = |key: &[u8]| {
        let value = status_value(proc, c"status", key, &mut buffer);
        value.ok().flatten().and_then(sys::text::hex).unwrap_or(u64::MAX)
    };
    // SA_NOCLDWAIT and SA_NOCLDSTOP count also when SIGCHLD is not handled.
    mask(b"SigCgt") | mask(b"SigIgn") | sys::signal::bit(SIGCHLD)
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
