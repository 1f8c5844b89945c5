//! Locks on files, and leases: the program relies on holding them, so one that cannot be had again is an error.

use image_format::record::lock::{Lock, LockKind};
use image_format::{ExitCode, NoteType};
use sys::Errno;
use sys::abi::{
    F_GETSIG, F_OFD_SETLK, F_OWNER_PID, F_RDLCK, F_SETLEASE, F_SETLK, F_SETOWN, F_SETSIG, F_WRLCK, Flock, LOCK_EX,
    LOCK_NB, LOCK_SH,
};
use sys::fs::Fd;
use sys::text::{Text, decimal, words};

use crate::descriptor::{Kind, OpenFile};
use crate::process::Stat;
use crate::{Error, Object, Result, Save, Target, restart};

/// One `lock:` line of `/proc/PID/fdinfo/N` (fs/locks.c): `1: POSIX  ADVISORY  WRITE 12 fe:00:34 0 EOF`.
fn parse(fd: u32, line: &[u8]) -> core::result::Result<Lock, &'static str> {
    let mut fields = words(line).skip(1);
    let kind = match fields.next() {
        Some(b"POSIX") => LockKind::Posix,
        Some(b"OFDLCK") => LockKind::Ofd,
        Some(b"FLOCK") => LockKind::Flock,
        Some(b"LEASE") => LockKind::Lease,
        Some(b"DELEG" | b"LAYOUT") => return Err("a delegation"),
        _ => return Err("a lock of an unknown kind"),
    };
    if fields.next() == Some(b"BREAKING") {
        return Err("a lease that somebody waits for");
    }
    let write = match fields.next() {
        Some(b"WRITE") => 1,
        Some(b"READ") => 0,
        _ => return Err("a lock of an unknown mode"),
    };
    let mut range = fields.skip(2);
    let start = range.next().and_then(decimal).ok_or("a lock with an unreadable range")?;
    let len = match range.next() {
        Some(b"EOF") => 0,
        Some(end) => decimal(end).and_then(|e| e.checked_sub(start)).ok_or("a lock with an unreadable range")? + 1,
        None => return Err("a lock with an unreadable range"),
    };
    Ok(Lock {
        fd: fd.into(),
        kind: (kind as u32).into(),
        write: write.into(),
        signal: 0.into(),
        start: start.into(),
        len: len.into(),
    })
}

/// The signal of a lease, which must be for the process itself; or why it cannot be carried.
fn signal<T: Target>(target: &mut T, file: &OpenFile) -> sys::Result<core::result::Result<u32, &'static str>> {
    let own = Stat::read(target.at(file.fd).0)?.pid;
    let open = target.borrow(file.fd as i32)?;
    let (kind, id) = sys::fs::owner(open.fd())?;
    if kind != F_OWNER_PID || i64::from(id) != own {
        return Ok(Err("a lease whose signal is for another process, or for one thread"));
    }
    Ok(Ok(sys::fs::fcntl(open.fd(), F_GETSIG, 0)? as u32))
}

/// Writes the table: every lock on every regular file.
///
/// # Errors
/// A lease that is being broken, or that another process hears of; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Lock)?;
    let kinds = [Kind::Regular as u32, Kind::Content as u32];
    // Of each description the place of the last process whose locks were read by it, plus one.
    let places = save.scratch.take::<u32>(files.len())?;
    for file in files.iter().filter(|f| kinds.contains(&f.kind) && f.locked != 0) {
        // A process shows its own locks by any of its descriptors of a file.
        let first = files.binary_search_by_key(&file.id, |one| one.fd).ok().and_then(|at| places.get_mut(at));
        if first.is_some_and(|last| core::mem::replace(last, file.place() + 1) == file.place() + 1) {
            continue;
        }
        let (proc, number) = save.target.at(file.fd);
        let path = Text::<32>::of(format_args!("fdinfo/{number}"));
        let failed = |e| Error::failed(Object::descriptor(file.fd, format_args!("locks")), "cannot be read", e);
        let mut buffer = [0; 512];
        let mut lines = sys::fs::Lines::open_at(proc, path.as_c_str(), &mut buffer).map_err(failed)?;
        while let Some(line) = lines.next_line().map_err(failed)? {
            let Some(rest) = line.strip_prefix(b"lock:") else { continue };
            let refused = |what| {
                let object = Object::descriptor(file.fd, format_args!("{what}"));
                Error::refused(object, "cannot be carried yet", "give it up before the save")
            };
            let mut lock = parse(file.fd, rest).map_err(refused)?;
            // One of a description is shown by each process that has the description.
            if file.id != file.fd && lock.kind.get() != LockKind::Posix as u32 {
                continue;
            }
            if lock.kind.get() == LockKind::Lease as u32 {
                lock.signal = signal(save.target, file).map_err(failed)?.map_err(refused)?.into();
            }
            save.notes.push(&lock)?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// Takes a lock again. `fd` is the descriptor as it is open in the restarting process; process-owned locks stay
/// with it, as it becomes the program.
///
/// # Errors
/// Another process holds a conflicting lock.
pub fn restore(lock: &Lock, fd: Fd) -> sys::Result<()> {
    let write = lock.write.get() != 0;
    let kind = if write { F_WRLCK } else { F_RDLCK };
    let range = Flock { kind, whence: 0, start: lock.start.get() as i64, len: lock.len.get() as i64, pid: 0 };
    match lock.kind.get() {
        k if k == LockKind::Posix as u32 => sys::fs::set_lock(fd, F_SETLK, &range),
        k if k == LockKind::Ofd as u32 => sys::fs::set_lock(fd, F_OFD_SETLK, &range),
        k if k == LockKind::Lease as u32 => sys::fs::fcntl(fd, F_SETOWN, sys::process::pid() as usize)
            .and_then(|_| sys::fs::fcntl(fd, F_SETSIG, lock.signal.get() as usize))
            .and_then(|_| sys::fs::fcntl(fd, F_SETLEASE, kind as usize))
            .map(drop),
        _ => sys::fs::flock(fd, if write { LOCK_EX } else { LOCK_SH } | LOCK_NB),
    }
}

/// That a lock cannot be taken again.
#[must_use]
pub fn not_taken(lock: &Lock, e: Errno) -> restart::Error {
    let words = ["cannot be taken again", "end its holder (see /proc/locks)"];
    restart::Error::descriptor(ExitCode::Descriptor, lock.fd.get(), "lock", b"", e, words)
}
