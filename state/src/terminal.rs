//! Terminals: the new one takes the old one's place, with the old one's settings.

use image_format::record::terminal::Terminal;
use sys::abi::{Ask, F_GETFL, F_SETFL, O_NONBLOCK, TCGETS, TIOCGSID, TIOCGWINSZ};
use sys::fs::Fd;
use sys::{Errno, Sysno};

use crate::descriptor::{Kind, OpenFile};
use crate::inside::{Arg, Inside};
use crate::{Error, Object, Result, Save, Target};

fn ask(inside: &mut impl Inside, fd: Fd, request: Ask, data: &mut [u8; 64]) -> sys::Result<usize> {
    let (zero, request) = (Arg::Value(0), Arg::Value(request.number()));
    // SAFETY: these requests fill no more than that.
    unsafe { inside.call(Sysno::ioctl, [Arg::Value(fd as usize), request, Arg::Data(0), zero, zero, zero], data) }
}

/// Whether a character device is a terminal.
pub fn check(inside: &mut impl Inside, file: &OpenFile) -> bool {
    let mut termios = [0; 64];
    ask(inside, file.fd as Fd, TCGETS, &mut termios).is_ok()
}

/// Whether it is a terminal that was hung up: every request fails with EIO (`hung_up_tty_ioctl`, drivers/tty/tty_io.c).
pub fn is_hung_up(inside: &mut impl Inside, file: &OpenFile) -> bool {
    let mut termios = [0; 64];
    // Consoles and serial lines, `/dev/tty`, pseudo-terminals (Documentation/admin-guide/devices.txt).
    matches!(file.rdev >> 8 & 0xfff, 4 | 5 | 136..=143)
        && ask(inside, file.fd as Fd, TCGETS, &mut termios) == Err(Errno::EIO)
}

/// Writes the table.
///
/// # Errors
/// Settings that cannot be read; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Terminal, |target, file| {
        let fd = file.fd as Fd;
        let mut data = [0; 64];
        let failed =
            |e| Error::failed(Object::descriptor(file.fd, format_args!("terminal")), "its settings cannot be read", e);
        ask(target, fd, TCGETS, &mut data).map_err(failed)?;
        let termios = data.first_chunk().copied().ok_or_else(|| failed(Errno::EIO))?;
        let mut size = [0; 64];
        ask(target, fd, TIOCGWINSZ, &mut size).map_err(failed)?;
        let [r0, r1, c0, c1, ..] = size;
        let controlling = ask(target, fd, TIOCGSID, &mut data).is_ok();
        Ok(Terminal {
            id: file.id.into(),
            flags: file.flags.into(),
            path: file.path,
            termios,
            rows: u16::from_le_bytes([r0, r1]).into(),
            columns: u16::from_le_bytes([c0, c1]).into(),
            controlling: u32::from(controlling).into(),
            reserved: [0.into(); 4],
        })
    })
}

/// Gives the new terminal the old one's settings. Past the point of no return: failures are not worth the program,
/// and all signals are blocked, SIGTTOU too, so that a background job may do it.
pub fn restore(terminal: &Terminal, fd: Fd) {
    if sys::terminal::settings(fd).is_ok() {
        let _ = sys::terminal::set_settings(fd, terminal.termios);
    }
    restore_flags(terminal.flags.get(), fd);
}

/// Sets O_NONBLOCK on an inherited description as the program had it.
pub fn restore_flags(flags: u32, fd: Fd) {
    if let Ok(now) = sys::fs::fcntl(fd, F_GETFL, 0) {
        let wanted = (now & !(O_NONBLOCK as usize)) | (flags & O_NONBLOCK) as usize;
        if wanted != now {
            let _ = sys::fs::fcntl(fd, F_SETFL, wanted);
        }
    }
}
