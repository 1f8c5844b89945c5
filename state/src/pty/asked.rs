//! What keeps a terminal from being carried, as far as it shows without a change of the terminal.
//!
//! Must never change a terminal, nor take anything out of it: its programs may run.

use sys::fs::{Fd, Owned, waiting};
use sys::terminal::Termios;

use super::facts::{Facts, Obstacle, Other, failed};
use crate::descriptor::OpenFile;
use crate::{Error, Object, Result, Target};

/// More typed bytes than this may be followed by others that the terminal has not taken yet.
const TYPED_MAX: usize = 4000;
/// As above where a part of a line may follow, which is not counted.
const LINES_MAX: usize = 2048;

// Of struct termios.
pub(super) const LFLAG: usize = 12;
pub(super) const ICANON: u32 = 0o2;
pub(super) const EXTPROC: u32 = 0o200_000;

/// A word of the settings.
pub(super) fn word(termios: &Termios, at: usize) -> u32 {
    termios.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// A master that cannot be carried.
pub(super) fn refused(master: &OpenFile, (why, remedy): Obstacle) -> Error {
    Error::refused(Object::descriptor(master.fd, format_args!("pseudo-terminal {}", master.offset)), why, remedy)
}

/// Why a master whose other end nobody has opened cannot be made again as it is; `shown`: bytes that wait in it.
pub(super) fn unlike_new(facts: &Facts, shown: usize) -> Option<Obstacle> {
    if facts.other != Other::New {
        return None;
    }
    if shown != 0 {
        return Some((
            "holds an echo that nobody has read, while nobody has opened its other end",
            "read it before the save",
        ));
    }
    let why = "has other permissions than a new one, while nobody has opened its other end";
    Some((why, "open it before the save")).filter(|_| ![0o600, 0o620].contains(&facts.mode))
}

/// Why what was typed cannot be carried, if there is too much of it.
pub(super) fn too_much(facts: &Facts, takes_lines: bool, slave: &Owned) -> sys::Result<Option<Obstacle>> {
    let most = match takes_lines {
        _ if word(&facts.termios, LFLAG) & EXTPROC != 0 => 0,
        true => LINES_MAX,
        false => TYPED_MAX,
    };
    let why = "holds more typed bytes than can be carried";
    Ok((waiting(slave.fd())? > most).then_some((why, "let the program read them before the save")))
}

/// Why a master of a process that runs cannot be carried, as far as that can be told without taking anything out of it: not whether
/// output is stopped by tcflow(3) or by Ctrl-S, which other settings alone tell apart, nor what was typed where nobody has the slave open here.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn asked<T: Target>(target: &T, master: &OpenFile, facts: &Facts) -> Result<Option<Obstacle>> {
    let failed = failed(master);
    if let Other::Inside(Some(fd)) = facts.other {
        let slave = target.borrow(fd as Fd).map_err(&failed)?;
        let takes_lines = word(&facts.termios, LFLAG) & ICANON != 0;
        return too_much(facts, takes_lines, &slave).map_err(failed);
    }
    Ok(unlike_new(facts, waiting(facts.end.fd()).map_err(failed)?))
}
