//! Pseudo-terminals whose master the process holds: made again under the same number, with settings, modes, and what waits in them.
//! And terminals that were hung up: slaves of a new one whose master is closed at once.
//!
//! A record belongs to the master alone: its slave may be open here, or closed, or never have been opened. Whether another process
//! has a slave that is open here, too, is not asked: after a restart it has the old one, this process a new one.

mod asked;
mod facts;
mod queue;

use image_format::record::pty::{CHMOD, HUNG_UP, Pty, PtyStep, WRITE};
use image_format::{Checked, NoteType};
use sys::abi::{
    Control, F_GETFD, FD_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDWR, S_IFCHR, S_IFMT, TIOCGPTN, TIOCSCTTY, TIOCSPTLCK,
};
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

use crate::descriptor::{Kind, OpenFile, now};
use crate::inside::Arg;
use crate::regular::REOPEN;
use crate::{Error, Object, Result, Save, Target};
use facts::Facts;

pub use facts::pair;

/// `/dev/ptmx`: the other side of a terminal; and `/dev/tty`.
const PTMX: u64 = 5 << 8 | 2;
const TTY: u64 = 5 << 8;

/// Major numbers of slaves.
const SLAVES: core::ops::Range<u64> = 136..144;

/// Whether a character device is a master.
#[must_use]
pub fn is_master(file: &OpenFile) -> bool {
    file.rdev == PTMX
}

/// The number of a slave; of any other terminal 0.
#[must_use]
pub fn number_of(file: &OpenFile) -> u64 {
    let (major, minor) = (file.rdev >> 8 & 0xfff, file.rdev & 0xff | file.rdev >> 12 & 0xfff00);
    if SLAVES.contains(&major) { (major - SLAVES.start) << 20 | minor } else { 0 }
}

/// Asks for the flag by which a slave's descriptor closes on exec. One that was opened by its master with `O_CLOEXEC`
/// (`TIOCGPTPEER`, as terminal emulators do) shows that in `/proc` for ever, whatever its descriptors have.
///
/// # Errors
/// It cannot be asked for.
pub fn closes_on_exec<T: Target>(target: &mut T, file: &mut OpenFile) -> Result<()> {
    if file.cloexec == 0 || file.mode & S_IFMT != S_IFCHR || !SLAVES.contains(&(file.rdev >> 8 & 0xfff)) {
        return Ok(());
    }
    let args = [file.fd as usize, F_GETFD.number(), 0, 0, 0, 0].map(Arg::Value);
    // SAFETY: `F_GETFD` returns a number.
    let flags = unsafe { target.call(Sysno::fcntl, args, &mut []) }.map_err(|e| {
        Error::failed(Object::descriptor(file.number(), format_args!("terminal")), "its flags cannot be asked for", e)
    })?;
    file.cloexec = u32::from(flags & FD_CLOEXEC != 0);
    Ok(())
}

/// Writes both tables; what waits in a terminal is taken out for it, and put back at once.
///
/// # Errors
/// What cannot be looked into, or carried; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Pty, |_, file| {
        let (id, flags, number) = (file.id.into(), file.flags.into(), (file.offset as u32).into());
        let master = files.iter().find(|f| f.is_first(Kind::Pty) && is_master(f) && f.offset == file.offset);
        let master = if file.gone != 0 { HUNG_UP.into() } else { master.map_or(id, |master| master.id.into()) };
        Ok(Pty { id, flags, path: file.path, number, master })
    })?;
    let masters = || files.iter().filter(|file| file.is_first(Kind::Pty) && is_master(file));
    let takes_out = save.target.stands_still() && masters().next().is_some();
    let room = save.scratch.bytes(if takes_out { queue::ROOM } else { 0 })?;
    save.notes.begin(NoteType::PtyStep)?;
    for master in masters() {
        let facts = Facts::of(save.target, master, files)?;
        if !save.target.stands_still() {
            if let Some(why) = asked::asked(save.target, master, &facts)? {
                save.target.blocked(asked::refused(master, why))?;
            }
            continue;
        }
        queue::save(save, master, &facts, room)?;
    }
    save.notes.end()?;
    Ok(())
}

/// Makes a master, under its number if that is free.
///
/// # Errors
/// The kernel's.
pub fn restore(pty: &Pty) -> sys::Result<Fd> {
    let fd = find(pty.flags.get(), pty.number.get())?;
    // Until its slaves are open, see `finish`.
    sys::terminal::control(fd, TIOCSPTLCK, &sys::terminal::ZERO)?;
    Ok(fd)
}

/// Numbers only ever rise as long as lower ones are taken.
fn find(flags: u32, number: u32) -> sys::Result<Fd> {
    let fd = sys::fs::open(c"/dev/ptmx", flags & REOPEN, 0)?;
    if sys::terminal::number(fd.fd(), TIOCGPTN)? >= number {
        return Ok(fd.release());
    }
    find(flags, number)
}

/// Opens a slave of a master that is there already, or of one that is closed then: the slave is hung up.
///
/// # Errors
/// The kernel's.
pub fn restore_slave(image: &Checked<'_>, pty: &Pty, open: &[Fd]) -> sys::Result<Fd> {
    // SAFETY: just made.
    let hung_up = if pty.master.get() == HUNG_UP { Some(unsafe { Owned::new(restore(pty)?) }) } else { None };
    let master = match &hung_up {
        Some(master) => master.fd(),
        None => now(image, open, pty.master.get()).unwrap_or(-1),
    };
    sys::terminal::peer(master, pty.flags.get() & REOPEN | O_NOCTTY).map(Owned::release)
}

/// Makes them what they were, when all their slaves are open.
///
/// # Errors
/// The kernel's.
pub fn finish(image: &Checked<'_>, open: &[Fd]) -> sys::Result<()> {
    for step in image.each::<PtyStep>() {
        let master = now(image, open, step.master.get()).unwrap_or(-1);
        make(master, step, image.contents(step.bytes))?;
    }
    Ok(())
}

/// One step.
fn make(master: Fd, step: &PtyStep, bytes: &[u8]) -> sys::Result<()> {
    let (request, echo) = (step.request.get(), step.echo.get());
    let slave = if step.slave.get() == 0 { None } else { Some(open_slave(master)?) };
    let end = slave.as_ref().map_or(master, Owned::fd);
    match request {
        WRITE => sys::terminal::write(end, bytes, master, echo as usize),
        CHMOD => sys::fs::chmod(end, echo),
        _ => {
            if request == TIOCSCTTY.number() {
                sys::terminal::new_session();
            }
            let (request, argument) = Control::of(request).zip(bytes.first_chunk()).ok_or(Errno::EINVAL)?;
            sys::terminal::control(end, request, argument)
        }
    }
}

/// Opens a slave that never waits.
fn open_slave(master: Fd) -> sys::Result<Owned> {
    sys::terminal::peer(master, O_RDWR | O_NOCTTY | O_NONBLOCK)
}
