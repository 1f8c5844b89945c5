//! Which ends belong together, who else has them, and what a master tells without being touched.

use sys::Errno;
use sys::abi::{
    AT_FDCWD, O_DIRECTORY, O_PATH, POLLHUP, POLLPRI, Stat, TCGETS, TIOCGETD, TIOCGPGRP, TIOCGPTLCK, TIOCGPTN, TIOCGSID,
    TIOCGWINSZ,
};
use sys::fs::Owned;
use sys::terminal::{Termios, ask, number};
use sys::text::{Shown, Text, decimal};

use super::{TTY, is_master};
use crate::descriptor::{Kind, OpenFile};
use crate::process::Stat as ProcStat;
use crate::{Error, Object, Result, Save, Target};

/// Of the settings the byte that tells the line discipline (`c_line`).
const LINE: usize = 16;

/// Who has the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// The process itself: the first of its descriptors that can be read and written, if there is one.
    Inside(Option<u32>),
    /// Another process that is saved with it.
    Along,
    /// No process any more: the master sees a hang-up.
    Closed,
    /// Nobody yet.
    New,
}

/// A master.
#[derive(Debug)]
pub(super) struct Facts {
    /// Id of its description.
    pub id: u32,
    /// The saver's own descriptor of it.
    pub end: Owned,
    /// Who has the other end.
    pub other: Other,
    /// Its slave is the controlling terminal of the process, which leads its session.
    pub controls: bool,
    /// The slave's permissions.
    pub mode: u32,
    /// Its settings.
    pub termios: Termios,
    /// Its size.
    pub size: Termios,
    /// Nobody may open it.
    pub locked: bool,
}

/// An error about a master.
pub(super) fn failed(file: &OpenFile) -> impl Fn(Errno) -> Error {
    let (fd, number) = (file.fd, file.offset);
    move |e| {
        let object = Object::descriptor(fd, format_args!("pseudo-terminal {number}"));
        Error::failed(object, "cannot be looked into", e)
    }
}

/// Finds the slaves of each master, and gives both the terminal's number for their offset.
///
/// # Errors
/// A master whose slave is in another process, or that cannot be looked at; another session's controlling terminal.
pub fn pair<T: Target>(save: &mut Save<'_, '_, T>, files: &mut [OpenFile]) -> Result<()> {
    for index in 0..files.len() {
        let Some(master) = files.get(index).copied().filter(|f| f.is_first(Kind::Pty) && is_master(f)) else {
            continue;
        };
        let failed = failed(&master);
        let end = save.target.borrow(master.fd as i32).map_err(&failed)?;
        let number = u64::from(number(end.fd(), TIOCGPTN).map_err(&failed)?);
        let slave = slave(&end).map_err(&failed)?;
        let session = session(save.target, &end).map_err(&failed)?;
        let target = &*save.target;
        let is_end = |file: &OpenFile| {
            let own = || crate::process::terminal(target.proc_of(file.place() as usize)) == slave.rdev;
            let is_slave = (file.dev, file.ino) == (slave.dev, slave.ino) || file.rdev == TTY && own();
            file.id == master.id || file.kind == Kind::Terminal as u32 && is_slave
        };
        for file in files.iter_mut().filter(|file| is_end(file)) {
            (file.kind, file.offset) = (Kind::Pty as u32, number);
        }
        let Err((why, remedy)) =
            other(save.target, &end, &slave, files, number).map_err(&failed)?.and_then(|_| session.fits())
        else {
            continue;
        };
        let path = Shown(save.notes.kept(master.path));
        let object = Object::descriptor(master.fd, format_args!("pseudo-terminal master {path}"));
        save.target.blocked(Error::refused(object, why, remedy))?;
    }
    Ok(())
}

/// What the kernel has under the slave's name; it is not opened for that.
fn slave(end: &Owned) -> sys::Result<Stat> {
    sys::fs::fstat(sys::terminal::peer(end.fd(), O_PATH)?.fd())
}

/// An error: it cannot be carried.
type Fits<T> = core::result::Result<T, Obstacle>;

/// Why a terminal cannot be carried, and what helps.
pub(super) type Obstacle = (&'static str, &'static str);

/// Who has the other end.
fn other<T: Target>(
    target: &T,
    end: &Owned,
    slave: &Stat,
    files: &[OpenFile],
    number: u64,
) -> sys::Result<Fits<Other>> {
    let ready = sys::fs::ready(end.fd(), POLLPRI)?;
    if ready & POLLPRI != 0 {
        return Ok(Err(("has a message of its packet mode waiting", "read it before the save")));
    }
    // The slave's is a part of its settings.
    let settings = ask(end.fd(), TCGETS)?;
    if sys::terminal::number(end.fd(), TIOCGETD)? != 0 || settings.get(LINE) != Some(&0) {
        return Ok(Err(("has another line discipline, which cannot be carried yet", "give it back before the save")));
    }
    let mut slaves = files
        .iter()
        .filter(|file| file.is_first(Kind::Pty) && file.offset == number && file.gone == 0 && !is_master(file));
    if slaves.clone().next().is_some() {
        let both = slaves.find(|file| file.flags & sys::abi::O_ACCMODE == sys::abi::O_RDWR);
        return Ok(Ok(Other::Inside(both.map(|file| file.fd))));
    }
    if ready & POLLHUP != 0 {
        return Ok(Ok(Other::Closed));
    }
    Ok(match holder(target, slave)? {
        None => Ok(Other::New),
        Some(pid) if target.is_along(pid) => Ok(Other::Along),
        Some(_) => {
            Err(("has its other end in another process", "end that, or save the program inside the terminal instead"))
        }
    })
}

/// A process that has a slave open, as far as this user may see.
fn holder<T: Target>(target: &T, slave: &Stat) -> sys::Result<Option<i32>> {
    let mut found = None;
    let all = sys::fs::open(c"/proc", O_DIRECTORY, 0)?;
    // What cannot be looked at is left out, and one that is found ends the search.
    let searched = sys::fs::for_each_name(all.fd(), |name| {
        let Some(pid) = decimal(name).and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
        let path = Text::<32>::of(format_args!("/proc/{pid}/fd"));
        let Ok(dir) = sys::fs::open_at(AT_FDCWD, path.as_c_str(), O_DIRECTORY, 0) else { return Ok(()) };
        let _ = sys::fs::for_each_name(dir.fd(), |name| {
            let file = Text::<32>::of(format_args!("{}", Shown(name)));
            match sys::fs::stat_at(dir.fd(), file.as_c_str(), 0) {
                Ok(stat) if (stat.dev, stat.ino) == (slave.dev, slave.ino) => {
                    found = Some(pid);
                    Err(())
                }
                _ => Ok(()),
            }
        });
        // One outside counts more than one that is saved along.
        if found.is_some_and(|pid| !target.is_along(pid)) { Err(()) } else { Ok(()) }
    });
    searched.map(|_| found)
}

/// Whose controlling terminal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    /// No session's.
    None,
    /// The process's own, which leads the session, and is in the foreground.
    Own,
    /// The process's, but another one leads it, or is in the foreground.
    Led,
    /// Another one's.
    Other,
}

impl Session {
    fn fits(self) -> Fits<()> {
        match self {
            Self::None | Self::Own => Ok(()),
            Self::Led => Err((
                "is the controlling terminal of a session that another process leads, or another job in its foreground",
                "save the process that leads it",
            )),
            Self::Other => Err(("is the controlling terminal of another process", "end that before the save")),
        }
    }
}

fn session<T: Target>(target: &T, end: &Owned) -> sys::Result<Session> {
    let session = match number(end.fd(), TIOCGSID) {
        Err(Errno::ENOTTY) => return Ok(Session::None),
        session => session?,
    };
    let foreground = number(end.fd(), TIOCGPGRP)?;
    let stat = ProcStat::read(target.proc())?;
    let (group, own) = (stat.field(5), stat.field(6));
    Ok(match i64::from(session) {
        one if one != own && target.is_along(one as i32) => Session::None,
        one if one != own => Session::Other,
        one if one == stat.pid && i64::from(foreground) == group => Session::Own,
        _ => Session::Led,
    })
}

impl Facts {
    /// What there is to know of a master.
    pub(super) fn of<T: Target>(target: &mut T, master: &OpenFile, files: &[OpenFile]) -> Result<Self> {
        let failed = failed(master);
        let end = target.borrow(master.fd as i32).map_err(&failed)?;
        let slave = slave(&end).map_err(&failed)?;
        let other = other(target, &end, &slave, files, master.offset).map_err(&failed)?;
        Ok(Self {
            id: master.id,
            // It was looked at before.
            other: other.unwrap_or(Other::Along),
            controls: session(target, &end).map_err(&failed)? == Session::Own,
            mode: slave.mode & 0o777,
            termios: ask(end.fd(), TCGETS).map_err(&failed)?,
            size: ask(end.fd(), TIOCGWINSZ).map_err(&failed)?,
            locked: number(end.fd(), TIOCGPTLCK).map_err(&failed)? != 0,
            end,
        })
    }
}
