//! Users, groups and capabilities: each process of a tree that has not all the same gets its own again, and so does a process of another
//! user that root restarts.
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
use sys::text::{Line, Text, choice, cut, decimal, hex, words};
use sys::{Errno, Sysno};
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::inside::{Arg, Question};
use crate::{Error, Result, Save, Target, restart};

/// Bytes of a `status` file that are read: with as many groups as are carried.
const ROOM: usize = 16 << 10;

/// What takes a right to be changed: `CAP_SETGID`, `CAP_SETUID`, `CAP_SETPCAP`.
const RIGHTS: u64 = 1 << 6 | 1 << 7 | 1 << 8;

/// What a `status` file calls them.
const KEYS: &[u8] = b"Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb";

/// A thread's credentials as `/proc` tells them.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    record: Credentials,
    groups: [U32; GROUPS_MAX],
    count: usize,
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
        let mut found = Self { record: Credentials::new_zeroed(), groups: [U32::ZERO; GROUPS_MAX], count: 0 };
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
            let record = &mut found.record;
            let set = match choice(key, KEYS) {
                Some(0) => {
                    record.uid = ids(value);
                    continue;
                }
                Some(1) => {
                    record.gid = ids(value);
                    continue;
                }
                Some(2) => {
                    for group in words(value).filter_map(decimal) {
                        let Some(to) = found.groups.get_mut(found.count) else { return Ok(None) };
                        *to = (group as u32).into();
                        found.count += 1;
                    }
                    continue;
                }
                Some(3) => &mut record.inheritable,
                Some(4) => &mut record.permitted,
                Some(5) => &mut record.effective,
                Some(6) => &mut record.bounding,
                Some(7) => &mut record.ambient,
                _ => continue,
            };
            *set = hex(value.trim_ascii()).ok_or(Errno::EIO)?.into();
        }
        Ok(Some(found))
    }

    /// The effective user id.
    #[must_use]
    pub fn user(&self) -> u32 {
        let [_, effective, ..] = self.record.uid;
        effective.get()
    }

    /// Supplementary groups, four bytes each.
    #[must_use]
    pub fn groups(&self) -> &[u8] {
        self.groups.get(..self.count).unwrap_or_default().as_bytes()
    }

    /// Whether they are these.
    fn is(&self, other: &Credentials, groups: &[u8]) -> bool {
        // Where the groups lie, and what the process set itself, is in no `status` file.
        let Credentials { groups: groups_at, dumpable, reserved, .. } = *other;
        let own = Credentials { groups: groups_at, dumpable, reserved, ..self.record };
        own.as_bytes() == other.as_bytes() && self.groups() == groups
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

/// Asks whether others may look into the process.
// SAFETY: returns a number.
pub const DUMPABLE: Question = unsafe { Question::new(Sysno::prctl, Arg::Value(PR_GET_DUMPABLE), Arg::Value(0), 0) };

/// Whether a process's ids are numbers of the saver's own user namespace.
///
/// # Errors
/// The kernel does not tell.
pub fn are_known<T: Target>(target: &T) -> Result<bool> {
    let pid = target.pid();
    let namespace = |proc, path| {
        let mut buffer = [0; 64];
        match sys::fs::read_link_at(proc, path, &mut buffer) {
            // A kernel without user namespaces has no such file.
            Ok(_) | Err(Errno::ENOENT) => Ok(buffer),
            Err(e) => Err(Error::failed(format_args!("user namespace of process {pid}"), "cannot be read", e)),
        }
    };
    Ok(namespace(target.proc(), c"ns/user")? == namespace(AT_FDCWD, c"/proc/self/ns/user")?)
}

/// Writes those of the process that is entered.
///
/// # Errors
/// Their numbers are those of another user namespace; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, found: &Found) -> Result<()> {
    if !are_known(save.target)? {
        return Err(Error::refused(
            format_args!("process {}", save.target.pid()),
            "is one of several users', in another user namespace than the saver",
            "save it from inside",
        ));
    }
    let pid = save.target.pid();
    let failed = |e| Error::failed(format_args!("process {pid}"), "cannot be asked whether others may look into it", e);
    let (dumpable, _) = DUMPABLE.ask::<0>(save.target).map_err(failed)?;
    let (groups, dumpable) = (save.notes.string(found.groups())?, (dumpable as u32).into());
    save.notes.begin(NoteType::Credentials)?;
    save.notes.push(&Credentials { groups, dumpable, ..found.record })?;
    save.notes.end()?;
    Ok(())
}

/// What a process must change to have others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    #[default]
    Nothing,
    /// All but the supplementary groups, which some namespaces deny to all.
    Rights,
    /// All.
    Groups,
}

/// What this process must change to have these; `pid` is whose they are.
///
/// # Errors
/// It may not, or they are unknown here.
pub fn check(pid: u32, wanted: &Credentials, groups: &[u8]) -> restart::Result<Change> {
    let failed = |e| restart::Error::about(ExitCode::Kernel, "credentials: cannot be read (!)", 0u32, b"", e);
    let unread = || failed(Errno::E2BIG);
    let own = Found::read(AT_FDCWD, c"/proc/self/status").map_err(failed)?.ok_or_else(unread)?;
    if own.is(wanted, groups) {
        return Ok(Change::Nothing);
    }
    let refused = |what, about: Line| restart::Error::about(ExitCode::Kernel, what, pid, about.as_bytes(), None);
    let [_, user, ..] = wanted.uid;
    let (change, groups) =
        if own.groups() == groups { (Change::Rights, &[] as &[u8]) } else { (Change::Groups, groups) };
    // A kernel without user namespaces has no such file.
    let mut buffer = [0; 8];
    let denied = sys::fs::read_file_at(AT_FDCWD, c"/proc/self/setgroups", &mut buffer).unwrap_or_default() == b"deny\n";
    if denied && change == Change::Groups {
        let what = "process #: has groups of its own, which this user namespace denies (setgroups): restart it outside";
        return Err(refused(what, Line::new()));
    }
    if own.record.effective.get() & RIGHTS != RIGHTS {
        let what = "process #: was user @'s, which takes CAP_SETUID, CAP_SETGID and CAP_SETPCAP: restart as root";
        return Err(refused(what, Line::filled("#", user.into(), b"", 0)));
    }
    let groups = groups.as_chunks::<4>().0.iter().map(|group| u32::from_le_bytes(*group));
    let unknown = unmapped(c"/proc/self/uid_map", &mut wanted.uid.iter().map(|id| id.get()))
        .or_else(|| unmapped(c"/proc/self/gid_map", &mut wanted.gid.iter().map(|id| id.get()).chain(groups)));
    if let Some(id) = unknown {
        let what = "process #: has an id (@) that this user namespace does not know: restart it outside";
        return Err(refused(what, Line::filled("#", id.into(), b"", 0)));
    }
    let more = |wanted: u64, own: u64| wanted & !own;
    let lacking = more(wanted.permitted.get(), own.record.permitted.get())
        | more(wanted.inheritable.get(), own.record.bounding.get() | own.record.inheritable.get())
        | more(wanted.bounding.get(), own.record.bounding.get());
    if lacking != 0 {
        let what = "process #: has capabilities (0x@) that are not to be had here: restart with all of them";
        return Err(refused(what, Line::filled("*", lacking, b"", 0)));
    }
    Ok(change)
}

/// The first of these ids that a map of this user namespace does not have.
fn unmapped(map: &CStr, ids: &mut dyn Iterator<Item = u32>) -> Option<u32> {
    let mut buffer = [0; 4096];
    let map = sys::fs::read_file_at(AT_FDCWD, map, &mut buffer).ok()?;
    for id in ids {
        let is_mapped = map.split(|b| *b == b'\n').any(|line| {
            let mut numbers = words(line).filter_map(decimal);
            let (first, count) = (numbers.next(), numbers.nth(1));
            first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
        });
        if !is_mapped {
            return Some(id);
        }
    }
    None
}

/// Gives them to the calling thread; the groups, where these change. `settings` sets what is part of them, and takes a right.
///
/// # Errors
/// The kernel's.
pub fn restore(wanted: &Credentials, groups: Option<&[u8]>, settings: impl FnOnce()) -> sys::Result<()> {
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
    if let Some(groups) = groups {
        set_groups(groups)?;
    }
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
