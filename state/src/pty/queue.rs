//! What waits in a terminal: what was typed and nobody has read, and what is to be shown. Nothing tells it without taking it out: so it
//! is taken out, and put back by the very steps that a restart makes.
//!
//! What was typed comes to the slave through the line discipline, later, and by the settings of that moment. So it is put back under
//! settings that change nothing but echo each byte: when all echoes are there, it is in its place. What is to be shown is as the
//! program's output has left the discipline: it is written without one.

use image_format::record::StrRef;
use image_format::record::pty::{ARGUMENT, CHMOD, PtyStep, WRITE, WRITE_MAX};
use sys::Errno;
use sys::abi::{
    POLLIN, POLLOUT, TCSETS, TIOCEXCL, TIOCGEXCL, TIOCGPKT, TIOCNXCL, TIOCPKT, TIOCSCTTY, TIOCSPTLCK, TIOCSWINSZ,
};
use sys::fs::{Fd, Owned, ready, waiting};
use sys::terminal::{Termios, ZERO, control, number};

use super::asked::{EXTPROC, ICANON, LFLAG, refused, too_much, unlike_new, word};
use super::facts::{Facts, Obstacle, Other, failed};
use super::{make, open_slave};
use crate::descriptor::OpenFile;
use crate::{Error, Object, Result, Save, Target};

/// Most bytes that are taken out of the slave's queue (the kernel's has 4095), with what is put in front of some of them.
const TYPED: usize = 2 * 4096;
/// Most that are taken out of the master's: 4095, and 8 KiB and a little on their way.
const SHOWN: usize = 6 * 4096;
/// Bytes for both, and a line.
pub(super) const ROOM: usize = TYPED + SHOWN + LINE;
const LINE: usize = 4096;

// struct termios, little-endian: c_iflag, c_oflag, c_cflag, c_lflag ([`LFLAG`]), each 4 bytes, c_line, c_cc.
const CC: usize = 17;
const ECHO: u32 = 0o10;
const IEXTEN: u32 = 0o100_000;
const VERASE: usize = CC + 2;
const VEOF: usize = CC + 4;
const VSTOP: usize = CC + 9;
const VEOL: usize = CC + 11;
const VLNEXT: usize = CC + 15;
const VEOL2: usize = CC + 16;

fn byte(termios: &Termios, at: usize) -> u8 {
    termios.get(at).copied().unwrap_or(0)
}

/// Characters of a terminal that takes lines, in the settings under which they are put back.
struct Lines {
    /// What ends a line, besides the newline; 0: nothing.
    ends: [u8; 2],
    /// Takes the last character away.
    erase: u8,
    /// Ends what was typed so far, and is no part of it.
    eof: u8,
    /// The next character is like any other.
    quote: u8,
    /// Means nothing.
    any: u8,
}

impl Lines {
    fn of(termios: &Termios) -> Self {
        let second = if word(termios, LFLAG) & IEXTEN == 0 { 0 } else { byte(termios, VEOL2) };
        let ends = [byte(termios, VEOL), second];
        let mut free = (1..10).filter(|byte| !ends.contains(byte));
        let mut next = || free.next().unwrap_or(0);
        Self { ends, erase: next(), eof: next(), quote: next(), any: next() }
    }

    fn is_end(&self, byte: u8) -> bool {
        byte == b'\n' || byte != 0 && self.ends.contains(&byte)
    }

    /// Settings that take lines and change nothing else.
    fn settings(&self, termios: &Termios) -> Termios {
        let [end, second] = self.ends;
        let special = [(VERASE, self.erase), (VEOF, self.eof), (VLNEXT, self.quote), (VEOL, end), (VEOL2, second)];
        plain(termios, ICANON | ECHO | IEXTEN, &special)
    }
}

/// Settings with these local modes, these special characters, and no others.
fn plain(termios: &Termios, modes: u32, special: &[(usize, u8)]) -> Termios {
    let mut plain = *termios;
    for (at, byte) in plain.iter_mut().enumerate() {
        *byte = match at {
            // c_iflag and c_oflag; below, c_lflag; c_cc, in which a least number of 0 means that a read does not wait.
            0..8 => 0,
            // c_cflag; c_line.
            8..LFLAG | 16 => *byte,
            LFLAG..16 => (modes >> (8 * (at - LFLAG))) as u8,
            CC.. => special.iter().find(|(one, _)| *one == at).map_or(0, |(_, byte)| *byte),
        };
    }
    plain
}

/// Bytes that are collected.
struct Bytes<'r> {
    room: &'r mut [u8],
    len: usize,
}

impl Bytes<'_> {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.room.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// What was typed, `whole` to its end, as it must be typed again.
    fn typed(&mut self, lines: &Lines, line: &[u8], whole: bool) {
        for (at, byte) in line.iter().enumerate() {
            let is_last = whole && at + 1 == line.len();
            if [lines.erase, lines.eof, lines.quote].contains(byte) || lines.is_end(*byte) && !is_last {
                self.push(lines.quote);
            }
            self.push(*byte);
        }
        if whole && !line.last().is_some_and(|last| lines.is_end(*last)) {
            self.push(lines.eof);
        }
    }

    /// Takes all that is there for a reader that must not wait.
    fn take(&mut self, fd: Fd, piece: &mut [u8]) -> sys::Result<()> {
        while ready(fd, POLLIN)? & POLLIN != 0 {
            let wanted = waiting(fd)?.min(piece.len());
            // Room is for more than the kernel's queues hold.
            if wanted == 0 || wanted > self.room.len() - self.len {
                break;
            }
            let piece = piece.get_mut(..wanted).unwrap_or_default();
            let got = sys::fs::read(fd, piece)?;
            piece.iter().take(got).for_each(|byte| self.push(*byte));
        }
        Ok(())
    }

    fn get(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }
}

/// What was taken out of a terminal.
struct Held<'r> {
    termios: Termios,
    /// How a terminal in canonical mode gets them.
    lines: Option<Lines>,
    typed: Bytes<'r>,
    shown: Bytes<'r>,
    /// Output is stopped (Ctrl-S).
    stopped: bool,
    /// By tcflow(3), which is not the same.
    held_up: bool,
}

impl<'r> Held<'r> {
    fn new(termios: Termios, room: &'r mut [u8]) -> Self {
        let (typed, shown) = room.split_at_mut(TYPED.min(room.len()));
        let lines = (word(&termios, LFLAG) & ICANON != 0).then(|| Lines::of(&termios));
        let (typed, shown) = (Bytes { room: typed, len: 0 }, Bytes { room: shown, len: 0 });
        Self { termios, lines, typed, shown, stopped: false, held_up: false }
    }

    /// Takes all out. What was typed last and is still on its way is taken by the terminal first, as poll(2) waits for it.
    fn take(&mut self, end: Fd, slave: Fd, piece: &mut [u8]) -> sys::Result<()> {
        let is_stopped = || Ok::<_, Errno>(ready(slave, POLLOUT)? & POLLOUT == 0);
        match &self.lines {
            Some(lines) => {
                while ready(slave, POLLIN)? & POLLIN != 0 {
                    let got = sys::fs::read(slave, piece)?;
                    self.typed.typed(lines, piece.get(..got).unwrap_or_default(), true);
                }
            }
            None => self.typed.take(slave, piece)?,
        }
        self.shown.take(end, piece)?;
        self.stopped = is_stopped()?;
        if word(&self.termios, LFLAG) & EXTPROC == 0 {
            // The rest: a part of a line, or less than the program wants to have at once.
            control(end, TCSETS, &plain(&self.termios, 0, &[]))?;
            loop {
                let got = match sys::fs::read(slave, piece) {
                    Ok(0) | Err(Errno::EAGAIN) => break,
                    got => got?,
                };
                let got = piece.get(..got).unwrap_or_default();
                match &self.lines {
                    Some(lines) => self.typed.typed(lines, got, false),
                    None => got.iter().for_each(|byte| self.typed.push(*byte)),
                }
            }
        }
        self.shown.take(end, piece)?;
        self.held_up = is_stopped()?;
        Ok(())
    }

    /// Each step that puts back what it was: request, whether it is the slave's, bytes, echo.
    fn each_step<E>(
        &self,
        mut step: impl FnMut(u32, bool, &[u8], usize) -> core::result::Result<(), E>,
    ) -> core::result::Result<(), E> {
        let settings = TCSETS.number();
        if self.typed.len != 0 || self.shown.len != 0 || self.stopped {
            let plain = |lines: &Lines| lines.settings(&self.termios);
            let plain = self.lines.as_ref().map_or_else(|| plain_raw(&self.termios), plain);
            step(settings, false, &plain, 0)?;
        }
        let mut quoted = false;
        for piece in self.typed.get().chunks(256) {
            let echo = piece.iter().filter(|byte| self.is_echoed(**byte, &mut quoted)).count();
            step(WRITE, false, piece, echo)?;
        }
        if let Some(lines) = self.lines.as_ref().filter(|lines| self.typed.get().last() == Some(&lines.eof)) {
            // The end of a file has no echo: what follows has, and takes itself away.
            step(WRITE, false, &[lines.any, lines.erase], 2)?;
        }
        for piece in self.shown.get().chunks(WRITE_MAX) {
            step(WRITE, true, piece, 0)?;
        }
        step(settings, false, &self.termios, 0)?;
        if self.stopped { step(WRITE, false, &[byte(&self.termios, VSTOP)], 0) } else { Ok(()) }
    }

    fn is_echoed(&self, byte: u8, quoted: &mut bool) -> bool {
        let Some(lines) = &self.lines else { return true };
        let was_quoted = core::mem::replace(quoted, false);
        *quoted = !was_quoted && byte == lines.quote;
        was_quoted || byte != lines.quote && byte != lines.eof
    }
}

/// Settings that take bytes as they are.
fn plain_raw(termios: &Termios) -> Termios {
    plain(termios, ECHO, &[])
}

/// A step's record; `bytes` are given to [`make`] beside it.
fn record(master: u32, request: u32, slave: bool, bytes: StrRef, echo: usize) -> PtyStep {
    let (slave, echo) = (u32::from(slave).into(), (echo as u32).into());
    PtyStep { master: master.into(), request: request.into(), bytes, slave, echo }
}

fn flag(set: bool) -> Termios {
    let mut argument = [0; ARGUMENT];
    argument.iter_mut().take(1).for_each(|byte| *byte = u8::from(set));
    argument
}

/// Writes the steps that make a master what it is.
///
/// # Errors
/// What waits in it cannot be carried, or be looked at.
pub(super) fn save<T: Target>(
    save: &mut Save<'_, '_, T>,
    master: &OpenFile,
    facts: &Facts,
    room: &mut [u8],
) -> Result<()> {
    let (end, failed) = (facts.end.fd(), failed(master));
    let packets = number(end, TIOCGPKT).map_err(&failed)? != 0;
    let (rest, piece) = room.split_at_mut(TYPED + SHOWN);
    let mut held = Held::new(facts.termios, rest);
    let set = |packets: bool, locked: bool| {
        control(end, TIOCPKT, &flag(packets)).and_then(|()| control(end, TIOCSPTLCK, &flag(locked)))
    };
    // In packet mode a byte comes before all others, and changes of the settings are told; a slave that is locked cannot be opened.
    let looked = set(false, false).map_err(&failed).and_then(|()| look(save.target, master, facts, &mut held, piece));
    let set = set(packets, facts.locked).map_err(&failed);
    let Looked { exclusive, why } = looked?;
    set?;
    let why = match why {
        None if held.held_up => {
            Some(("its output is stopped by tcflow(3), which cannot be carried yet", "start it before the save"))
        }
        None => unlike_new(facts, held.shown.len),
        why => why,
    };
    if let Some(why) = why {
        save.target.blocked(refused(master, why))?;
    }
    let mut step = |request: u32, slave, bytes: &[u8], echo| {
        let bytes = save.notes.string(bytes)?;
        save.notes.push(&record(facts.id, request, slave, bytes, echo))?;
        Ok::<_, Error>(())
    };
    held.each_step(&mut step)?;
    step(TIOCSWINSZ.number(), false, &facts.size, 0)?;
    if facts.other != Other::New {
        // For this it is opened, and closed again: so the master of one that was closed learns of that.
        step(CHMOD, true, &[], facts.mode as usize)?;
    }
    let own = number(end, TIOCGEXCL).map_err(failed)? != 0;
    let more = [
        (packets, TIOCPKT, false),
        (own, TIOCEXCL, false),
        (facts.controls, TIOCSCTTY, false),
        (exclusive, TIOCEXCL, true),
        (facts.locked, TIOCSPTLCK, false),
    ];
    for (_, request, slave) in more.into_iter().filter(|(wanted, ..)| *wanted) {
        step(request.number(), slave, &flag(true), 0)?;
    }
    Ok(())
}

/// What was seen while the slave was open.
struct Looked {
    /// Nobody else may open it.
    exclusive: bool,
    /// Why what it holds cannot be carried.
    why: Option<Obstacle>,
}

/// Opens the slave, takes all out, and puts it back.
fn look<T: Target>(
    target: &T,
    master: &OpenFile,
    facts: &Facts,
    held: &mut Held<'_>,
    piece: &mut [u8],
) -> Result<Looked> {
    let (end, failed) = (facts.end.fd(), failed(master));
    // One of the saver's own does not wait for a reader in another process; of an exclusive one there is no other.
    let slave = open_slave(end).or_else(|e| match facts.other {
        Other::Inside(Some(fd)) => target.borrow(fd as Fd),
        _ => Err(e),
    });
    let slave = slave.map_err(&failed)?;
    let exclusive = number(slave.fd(), TIOCGEXCL).map_err(&failed)? != 0;
    let why = too_much(facts, held.lines.is_some(), &slave).map_err(&failed)?;
    if why.is_some() {
        leave(facts, slave);
        return Ok(Looked { exclusive, why });
    }
    let _ = control(slave.fd(), TIOCNXCL, &ZERO);
    let taken = held.take(end, slave.fd(), piece);
    if held.held_up {
        sys::terminal::flow(slave.fd(), true);
    }
    let put_back = held.each_step(|request, is_slave, bytes, echo| {
        if is_slave {
            return sys::terminal::push(open_slave(end)?.fd(), bytes);
        }
        make(end, &record(facts.id, request, is_slave, StrRef::default(), echo), bytes)
    });
    if held.held_up {
        sys::terminal::flow(slave.fd(), false);
    }
    if exclusive {
        let _ = control(slave.fd(), TIOCEXCL, &ZERO);
    }
    leave(facts, slave);
    taken.map_err(&failed)?;
    let object = Object::descriptor(master.fd, format_args!("pseudo-terminal {}", master.offset));
    put_back.map_err(|e| {
        Error::failed(object, "what it held cannot be put back, and the program has lost a part of it", e)
    })?;
    Ok(Looked { exclusive, why: None })
}

/// Closes the slave again. A master sees a hang-up when the last one closes it, but not after an attempt to open it that failed: so one whose
/// slave nobody has opened yet does not learn of this one.
fn leave(facts: &Facts, slave: Owned) {
    let end = facts.end.fd();
    if facts.other == Other::New && control(end, TIOCSPTLCK, &flag(true)).is_ok() {
        let _ = open_slave(end);
    }
    drop(slave);
}
