//! Pseudo-terminals with both ends inside the process: made again, with settings, size and modes.
//!
//! What waits in one cannot be looked at without taking it out: then the save is refused.

use image_format::Checked;
use image_format::record::pty::{LOCKED, PACKETS, Pty};
use sys::abi::{
    FIONREAD, O_NOCTTY, TCGETS, TIOCGEXCL, TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGSID, TIOCGWINSZ, TIOCPKT, TIOCSPTLCK,
    TIOCSWINSZ,
};
use sys::fs::Fd;
use sys::text::Shown;

use crate::descriptor::{Kind, OpenFile, now};
use crate::terminal::ioctl;
use crate::{Error, Result, Save, Target};

/// `/dev/ptmx`: the other side of a terminal.
const PTMX: u64 = 5 << 8 | 2;

/// Whether a character device is a master.
#[must_use]
pub fn is_master(file: &OpenFile, path: &[u8]) -> bool {
    file.rdev == PTMX || path.ends_with(b"/ptmx")
}

/// The number of a slave, by its device: majors 136 to 143 (Documentation/admin-guide/devices.txt).
fn slave_number(file: &OpenFile) -> Option<u32> {
    let (major, minor) = (file.rdev >> 8 & 0xfff, file.rdev & 0xff | file.rdev >> 12 & 0xfff00);
    (136..144).contains(&major).then_some(((major - 136) << 8 | minor) as u32)
}

fn ask<T: Target>(target: &mut T, fd: u32, request: usize) -> sys::Result<u32> {
    let mut word = [0; 4];
    ioctl(target, fd as Fd, request, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

/// Finds the slaves of each master.
///
/// # Errors
/// A master whose slave is not inside, or that cannot be looked at; data that waits; a controlling terminal.
pub fn pair<T: Target>(save: &mut Save<'_, '_, T>, files: &mut [OpenFile]) -> Result<()> {
    for index in 0..files.len() {
        let Some(master) = files.get(index).copied().filter(|f| f.is_first(Kind::Pty) && slave_number(f).is_none())
        else {
            continue;
        };
        let path = Shown(save.notes.kept(master.path));
        let object = format_args!("descriptor {} (pseudo-terminal master {path})", master.fd);
        let failed = |e| Error::failed(object, "cannot be looked into", e);
        let number = ask(save.target, master.fd, TIOCGPTN).map_err(failed)?;
        let is_slave = |f: &OpenFile| slave_number(f) == Some(number) && f.kind != Kind::Regular as u32;
        let mut waits = ask(save.target, master.fd, FIONREAD).map_err(failed)?;
        let mut blocked = ask(save.target, master.fd, TIOCGEXCL).unwrap_or(0) != 0;
        let mut inside = false;
        for slave in files.iter().filter(|f| is_slave(f) && f.id == f.fd) {
            inside = true;
            waits |= ask(save.target, slave.fd, FIONREAD).map_err(failed)?;
            blocked |= ask(save.target, slave.fd, TIOCGSID).is_ok();
        }
        let why = match (inside, waits, blocked) {
            (false, ..) => "has its other end in another process, or nowhere",
            (_, 1.., _) => "holds what nobody has read",
            (.., true) => "is exclusive, or the controlling terminal",
            _ => "",
        };
        if !why.is_empty() {
            save.target.blocked(Error::refused(object, why, "close it before the save, or read what it holds"))?;
        }
        files.iter_mut().filter(|f| is_slave(f)).for_each(|slave| slave.kind = Kind::Pty as u32);
    }
    Ok(())
}

/// Writes the table.
///
/// # Errors
/// Settings that cannot be read; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Pty, |target, file| {
        let fd = file.fd;
        let failed = |e| Error::failed(format_args!("descriptor {fd} (pseudo-terminal)"), "cannot be looked into", e);
        let (mut termios, mut size, slave) = ([0; 36], [0; 8], slave_number(file));
        ioctl(target, fd as Fd, TCGETS, &mut termios).map_err(failed)?;
        ioctl(target, fd as Fd, TIOCGWINSZ, &mut size).map_err(failed)?;
        let (number, modes) = match slave {
            Some(number) => (number, 0),
            None => {
                let mut has = |request, bit| ask(target, fd, request).map(|set| if set != 0 { bit } else { 0 });
                let modes = has(TIOCGPTLCK, LOCKED).map_err(failed)? | has(TIOCGPKT, PACKETS).map_err(failed)?;
                (ask(target, fd, TIOCGPTN).map_err(failed)?, modes)
            }
        };
        let slave = u32::from(slave.is_some()).into();
        let (id, flags) = (file.id.into(), file.flags.into());
        Ok(Pty { id, flags, path: file.path, number: number.into(), slave, termios, size, modes: modes.into() })
    })
}

/// Makes a master, under its number if that is free, with all that it had.
///
/// # Errors
/// The kernel's.
pub fn restore(pty: &Pty) -> sys::Result<Fd> {
    let fd = find(pty)?;
    let modes = pty.modes.get();
    sys::terminal::set_settings(fd, pty.termios)?;
    sys::terminal::control(fd, TIOCSWINSZ, pty.size)?;
    sys::terminal::control(fd, TIOCPKT, u64::from(modes & PACKETS).to_le_bytes())?;
    // Until its slaves are open, see `lock`.
    sys::terminal::control(fd, TIOCSPTLCK, [0; 8])?;
    Ok(fd)
}

/// Locks those again whose slaves nobody may open any more.
pub fn lock(image: &Checked<'_>, open: &[Fd]) {
    for pty in image.each::<Pty>().filter(|pty| pty.modes.get() & LOCKED != 0) {
        let fd = now(image, open, pty.id.get()).unwrap_or(-1);
        let _ = sys::terminal::control(fd, TIOCSPTLCK, 1u64.to_le_bytes());
    }
}

/// Numbers only ever rise as long as lower ones are taken.
fn find(pty: &Pty) -> sys::Result<Fd> {
    let fd = sys::fs::open(c"/dev/ptmx", pty.flags.get() & crate::regular::REOPEN, 0)?;
    if sys::terminal::number(fd.fd())? >= pty.number.get() {
        return Ok(fd.release());
    }
    find(pty)
}

/// Opens a slave of a master that is there already.
///
/// # Errors
/// The kernel's.
pub fn restore_slave(image: &Checked<'_>, pty: &Pty, open: &[Fd]) -> sys::Result<Fd> {
    let master = image.each::<Pty>().find(|other| other.slave.get() == 0 && other.number == pty.number);
    let master = master.and_then(|master| now(image, open, master.id.get())).unwrap_or(-1);
    sys::terminal::peer(master, pty.flags.get() & crate::regular::REOPEN | O_NOCTTY)
}
