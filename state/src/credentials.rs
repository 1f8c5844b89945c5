//! Users, groups and capabilities of the processes of a tree that are not all the same: each gets its own again.
//!
//! Must never give anybody more than the restart has itself: that is the kernel's to decide, and asked beforehand here.

use core::ffi::CStr;

use image_format::record::credentials::{Credentials, GROUPS_MAX};
use image_format::{ExitCode, NoteType};
use sys::abi::{
    AT_FDCWD, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_CAPBSET_READ,
    PR_GET_DUMPABLE, PR_GET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_PDEATHSIG,
};
use sys::credentials::{Whose, set_capabilities, set_groups, set_ids};
use sys::fs::Fd;
use sys::text::{Line, Text, cut, decimal, hex, words};
use sys::{Errno, Sysno, packed};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use crate::target::{Arg, Question};
use crate::{Error, Result, Save, Target};

/// Bytes of a `status` file that are read: with as many groups as are carried.
const ROOM: usize = 16 << 10;

/// What takes a right to be changed: `CAP_SETGID`, `CAP_SETUID`, `CAP_SETPCAP`.
const RIGHTS: u64 = 1 << 6 | 1 << 7 | 1 << 8;

/// A thread's credentials as `/proc` tells them.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    record: Credentials,
    groups: [u8; 4 * GROUPS_MAX],
    len: usize,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.record, other.groups())
    }
}

impl Found {
    /// Reads those of a thread from its `status` file; `None`: it has more groups than can be carried.
    fn read(proc: Fd, file: &CStr) -> sys::Result<Option<Self>> {
        let mut buffer = [0; ROOM];
        let text = sys::fs::read_file_at(proc, file, &mut buffer)?;
        let mut found = Self { record: Credentials::new_zeroed(), groups: [0; 4 * GROUPS_MAX], len: 0 };
        if text.len() == ROOM {
            return Ok(None);
        }
        let ids = |value| {
            let mut ids = [U32::ZERO; 4];
            for (to, id) in ids.iter_mut().zip(words(value).filter_map(decimal)) {
                *to = (id as u32).into();
            }
            ids
        };
        for line in text.split(|b| *b == b'\n') {
            let Some((key, value)) = cut(line, b':') else { continue };
            let set = || hex(value.trim_ascii()).unwrap_or(0).into();
            let record = &mut found.record;
            match key {
                b"Uid" => record.uid = ids(value),
                b"Gid" => record.gid = ids(value),
                b"CapInh" => record.inheritable = set(),
                b"CapPrm" => record.permitted = set(),
                b"CapEff" => record.effective = set(),
                b"CapBnd" => record.bounding = set(),
                b"CapAmb" => record.ambient = set(),
                b"Groups" => {
                    for group in words(value).filter_map(decimal) {
                        let Some(to) = found.groups.get_mut(found.len..found.len + 4) else { return Ok(None) };
                        for (to, byte) in to.iter_mut().zip((group as u32).to_le_bytes()) {
                            *to = byte;
                        }
                        found.len += 4;
                    }
                }
                _ => {}
            }
        }
        Ok(Some(found))
    }

    /// Supplementary groups, four bytes each.
    #[must_use]
    pub fn groups(&self) -> &[u8] {
        self.groups.get(..self.len).unwrap_or_default()
    }

    /// Whether they are these.
    fn is(&self, other: &Credentials, groups: &[u8]) -> bool {
        let all = |c: &Credentials| (c.uid, c.gid, c.effective, c.permitted, c.inheritable, c.bounding, c.ambient);
        all(&self.record) == all(other) && self.groups() == groups
    }

    /// Those of the process that is entered, whose threads must all have the same.
    ///
    /// # Errors
    /// They have not; more groups than can be carried.
    pub fn of<T: Target>(target: &T, tids: impl Iterator<Item = i32>) -> Result<Self> {
        let pid = target.pid();
        let read = |file: &CStr| {
            let failed = |e| Error::failed(format_args!("credentials of process {pid}"), "cannot be read", e);
            let many = || {
                Error::refused(
                    format_args!("process {pid}"),
                    "is in more supplementary groups than can be carried",
                    "save it by itself",
                )
            };
            Self::read(target.proc(), file).map_err(failed)?.ok_or_else(many)
        };
        let own = read(c"status")?;
        for tid in tids {
            let path = Text::<48>::of(format_args!("task/{}/status", target.tid_here(tid)));
            if read(path.as_c_str())? != own {
                return Err(Error::refused(
                    format_args!("thread {tid} of process {pid}"),
                    "has other credentials than its process",
                    "save it by itself, and restart it as its own user",
                ));
            }
        }
        Ok(own)
    }
}

/// Writes those of the process that is entered.
///
/// # Errors
/// Their numbers are those of another user namespace; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, found: &Found) -> Result<()> {
    let namespace = |proc, path| {
        let mut buffer = [0; 64];
        sys::fs::read_link_at(proc, path, &mut buffer).is_ok().then_some(buffer)
    };
    if namespace(save.target.proc(), c"ns/user") != namespace(AT_FDCWD, c"/proc/self/ns/user") {
        return Err(Error::refused(
            format_args!("process {}", save.target.pid()),
            "is one of several users', in another user namespace than the saver",
            "save it from inside",
        ));
    }
    let dumpable = Question::new(Sysno::prctl, Arg::Value(PR_GET_DUMPABLE), Arg::Value(0), 0).ask::<0>(save.target);
    let groups = save.notes.string(found.groups())?;
    let dumpable = (dumpable.map_or(0, |(value, _)| value) as u32).into();
    save.notes.begin(NoteType::Credentials)?;
    save.notes.push(&Credentials { groups, dumpable, ..found.record })?;
    save.notes.end()?;
    Ok(())
}

/// Whether this process must change to have these; `pid` is whose they are.
///
/// # Errors
/// It may not, or they are unknown here.
pub fn check(pid: u32, wanted: &Credentials, groups: &[u8]) -> Result<bool> {
    let failed = |e| Error::about(packed!("credentials: cannot be read (!)"), 0u32, b"", e).code(ExitCode::Kernel);
    let unread = || failed(Errno::E2BIG);
    let own = Found::read(AT_FDCWD, c"/proc/self/status").map_err(failed)?.ok_or_else(unread)?;
    if own.is(wanted, groups) {
        return Ok(false);
    }
    let refused = |what, about: Line| Error::about(what, pid, about.as_bytes(), None).code(ExitCode::Kernel);
    let [_, user, ..] = wanted.uid;
    let [_, group, ..] = wanted.gid;
    if own.record.effective.get() & RIGHTS != RIGHTS {
        let mut ids = Line::filled(packed!("user #"), user.into(), b"", 0);
        ids.fill(packed!(", group #"), group.into(), b"", 0);
        let what = packed!(
            "process #: has credentials of its own (@), which takes CAP_SETUID, CAP_SETGID and CAP_SETPCAP: restart as root"
        );
        return Err(refused(what, ids));
    }
    let groups = groups.as_chunks::<4>().0.iter().map(|group| u32::from_le_bytes(*group));
    let unknown = unmapped(c"/proc/self/uid_map", wanted.uid.iter().map(|id| id.get()))
        .or_else(|| unmapped(c"/proc/self/gid_map", wanted.gid.iter().map(|id| id.get()).chain(groups)));
    if let Some(id) = unknown {
        let what = packed!("process #: has an id (@) that this user namespace does not know: restart it outside");
        return Err(refused(what, Line::filled(packed!("#"), id.into(), b"", 0)));
    }
    let more = |wanted: u64, own: u64| wanted & !own;
    let lacking = more(wanted.permitted.get(), own.record.permitted.get())
        | more(wanted.inheritable.get(), own.record.bounding.get() | own.record.inheritable.get())
        | more(wanted.bounding.get(), own.record.bounding.get());
    if lacking != 0 {
        let what = packed!("process #: has capabilities (0x@) that are not to be had here: restart with all of them");
        return Err(refused(what, Line::filled(packed!("*"), lacking, b"", 0)));
    }
    Ok(true)
}

/// The first of these ids that a map of this user namespace does not have.
fn unmapped(map: &CStr, mut ids: impl Iterator<Item = u32>) -> Option<u32> {
    let mut buffer = [0; 4096];
    let map = sys::fs::read_file_at(AT_FDCWD, map, &mut buffer).ok()?;
    ids.find(|id| {
        !map.split(|b| *b == b'\n').any(|line| {
            let mut numbers = words(line).filter_map(decimal);
            let (first, count) = (numbers.next(), numbers.nth(1));
            first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(*id)))
        })
    })
}

/// Gives them to the calling thread. `settings` sets what is part of them, and takes a right.
///
/// # Errors
/// The kernel's.
pub fn restore(wanted: &Credentials, groups: &[u8], settings: impl FnOnce()) -> sys::Result<()> {
    // SAFETY: none of these options writes to memory.
    let prctl = |option, a, b| unsafe { sys::process::prctl(option, a, b, 0) };
    let get = |set: zerocopy::little_endian::U64| set.get();
    let inheritable = get(wanted.inheritable);
    let mut signal = 0i32;
    // SAFETY: the kernel writes a number there.
    let _ = unsafe { sys::process::prctl(PR_GET_PDEATHSIG, (&raw mut signal) as usize, 0, 0) };
    let [_, all, before] = sys::credentials::capabilities()?;
    set_capabilities([all, all, before])?;
    set_capabilities([all, all, inheritable])?;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for capability in 0..64 {
        if get(wanted.bounding) >> capability & 1 == 0 && prctl(PR_CAPBSET_READ, capability, 0) == Ok(1) {
            prctl(PR_CAPBSET_DROP, capability, 0)?;
        }
    }
    set_groups(groups)?;
    set_ids(Whose::Group, wanted.gid.map(U32::get))?;
    // Else root's are gone with root's id, before the last of them are needed.
    prctl(PR_SET_KEEPCAPS, 1, 0)?;
    set_ids(Whose::User, wanted.uid.map(U32::get))?;
    prctl(PR_SET_KEEPCAPS, 0, 0)?;
    set_capabilities([all, all, inheritable])?;
    for capability in (0..64).filter(|capability| get(wanted.ambient) >> capability & 1 != 0) {
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)?;
    }
    settings();
    set_capabilities([get(wanted.effective), get(wanted.permitted), inheritable])?;
    // Forgotten with a change of ids.
    prctl(PR_SET_PDEATHSIG, signal as usize, 0).map(drop)
}
