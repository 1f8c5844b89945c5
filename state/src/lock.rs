//! Locks on files: the program relies on holding them, so a lock that cannot be had again is an error.

use image_format::record::lock::{Lock, LockKind};
use image_format::{ExitCode, NoteType};
use sys::abi::{F_OFD_SETLK, F_RDLCK, F_SETLK, F_WRLCK, Flock, LOCK_EX, LOCK_NB, LOCK_SH};
use sys::fs::Fd;
use sys::packed;
use sys::text::{Text, decimal, words};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target};

/// One `lock:` line of `/proc/PID/fdinfo/N` (fs/locks.c): `1: POSIX  ADVISORY  WRITE 12 fe:00:34 0 EOF`.
fn parse(fd: u32, line: &[u8]) -> core::result::Result<Lock, &'static str> {
    let mut fields = words(line).skip(1);
    let kind = match fields.next() {
        Some(b"POSIX") => LockKind::Posix,
        Some(b"OFDLCK") => LockKind::Ofd,
        Some(b"FLOCK") => LockKind::Flock,
        Some(b"LEASE") => return Err("a lease"),
        Some(b"DELEG" | b"LAYOUT") => return Err("a delegation"),
        _ => return Err("a lock of an unknown kind"),
    };
    let write = match fields.nth(1) {
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
        reserved: 0.into(),
        start: start.into(),
        len: len.into(),
    })
}

/// Writes the table: every lock on every regular file; returns whether there is one.
///
/// # Errors
/// A lease; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<bool> {
    let mut any = false;
    save.notes.begin(NoteType::Lock)?;
    let kinds = [Kind::Regular as u32, Kind::Content as u32];
    for (index, file) in files.iter().enumerate().filter(|(_, f)| kinds.contains(&f.kind) && f.locked != 0) {
        // A process shows its own locks by any of its descriptors of a file.
        let mut before = files.iter().take(index);
        if before.any(|f| (f.id, f.place()) == (file.id, file.place())) {
            continue;
        }
        let (proc, number) = save.target.at(file.fd);
        let path = Text::<32>::of(format_args!("fdinfo/{number}"));
        let failed = |e| Error::failed(format_args!("locks of descriptor {}", file.fd), "cannot be read", e);
        let mut buffer = [0; 512];
        let mut lines = sys::fs::Lines::open_at(proc, path.as_c_str(), &mut buffer).map_err(failed)?;
        while let Some(line) = lines.next_line().map_err(failed)? {
            let Some(rest) = line.strip_prefix(b"lock:") else { continue };
            let lock = parse(file.fd, rest).map_err(|what| {
                Error::refused(
                    format_args!("descriptor {} ({what})", file.fd),
                    "cannot be carried yet",
                    "give it up before the save",
                )
            })?;
            // One of a description is shown by each process that has the description.
            if file.id == file.fd || lock.kind.get() == LockKind::Posix as u32 {
                save.notes.push(&lock)?;
                any = true;
            }
        }
    }
    save.notes.end()?;
    Ok(any)
}

/// Takes a lock again. `fd` is the descriptor as it is open in the restarting process; process-owned locks stay
/// with it, as it becomes the program.
///
/// # Errors
/// Another process holds a conflicting lock.
pub fn restore(lock: &Lock, fd: Fd) -> Result<()> {
    let write = lock.write.get() != 0;
    let kind = if write { F_WRLCK } else { F_RDLCK };
    let range = Flock { kind, whence: 0, start: lock.start.get() as i64, len: lock.len.get() as i64, pid: 0 };
    let done = match lock.kind.get() {
        k if k == LockKind::Posix as u32 => sys::fs::set_lock(fd, F_SETLK, &range),
        k if k == LockKind::Ofd as u32 => sys::fs::set_lock(fd, F_OFD_SETLK, &range),
        _ => sys::fs::flock(fd, if write { LOCK_EX } else { LOCK_SH } | LOCK_NB),
    };
    done.map_err(|e| {
        Error::about(packed!("lock on descriptor #: cannot be taken again (!)"), lock.fd, b"", e)
            .code(ExitCode::Descriptor)
            .remedy("end its holder (see /proc/locks)")
    })
}
