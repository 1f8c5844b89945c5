//! Mappings: which there are, and how each is made again. Their contents are the segments' business.

use core::ops::Range;

use image_format::USER_END;
use image_format::record::memory::{Backing, BackingFlags, NO_BACKING, Vma, VmaFlags, VmaKind};
use image_format::record::pkey::Pkey;
use sys::Errno;
use sys::abi::mm::{PROT_EXEC, PROT_READ, PROT_WRITE};
use sys::text::{Shown, Text, cut, hex, words};

use self::backing::Backings;
use self::leftover::Leftover;
use crate::content::{Contents, DELETED};
use crate::{Error, ErrorKind, Result, Save, Target};

mod along;
mod backing;
mod leftover;
pub mod reopened;
mod restore;
pub mod shared;

pub use restore::{advise, check, finish, restore};

/// Longest line of smaps: numbers, a path of PATH_MAX, and what the kernel adds.
const LINE_MAX: usize = 8192;

/// One line of maps, or of smaps where it opens a mapping.
#[allow(missing_docs, reason = "proc(5)'s own names")]
#[derive(Clone, Copy, Debug)]
pub struct Head<'l> {
    pub start: u64,
    pub end: u64,
    pub perms: &'l [u8],
    pub offset: u64,
    /// As stat(2) gives it.
    pub dev: u64,
    pub ino: u64,
    pub name: &'l [u8],
}

/// Reads such a line.
#[must_use]
pub fn head(line: &[u8]) -> Option<Head<'_>> {
    let mut fields = words(line);
    let (start, end) = cut(fields.next()?, b'-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let perms = fields.next().filter(|p| p.len() == 4)?;
    let offset = hex(fields.next()?)?;
    let (major, minor) = cut(fields.next()?, b':')?;
    let (major, minor) = (hex(major)?, hex(minor)?);
    // makedev(3).
    let dev = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32);
    let ino_text = fields.next()?;
    // The name may contain blanks: all behind the inode, without the blanks that pad it.
    let behind = (ino_text.as_ptr() as usize + ino_text.len()).checked_sub(line.as_ptr() as usize)?;
    let name = line.get(behind..)?.trim_ascii_start();
    Some(Head { start, end, perms, offset, dev, ino: sys::text::decimal(ino_text)?, name })
}

fn prot(perms: &[u8]) -> u32 {
    let bit = |i: usize, c: u8, bit: u32| if perms.get(i) == Some(&c) { bit } else { 0 };
    bit(0, b'r', PROT_READ) | bit(1, b'w', PROT_WRITE) | bit(2, b'x', PROT_EXEC)
}

/// The flags of a `VmFlags:` line that are carried; or the name of one that cannot be.
fn vm_flags(line: &[u8]) -> core::result::Result<VmaFlags, &'static str> {
    let mut flags = VmaFlags::empty();
    for word in words(line) {
        flags |= match word {
            b"gd" => VmaFlags::GROWS_DOWN,
            b"nr" => VmaFlags::NO_RESERVE,
            b"lo" => VmaFlags::LOCKED,
            b"lf" => VmaFlags::ON_FAULT,
            b"dc" => VmaFlags::DONT_FORK,
            b"dd" => VmaFlags::DONT_DUMP,
            b"wf" => VmaFlags::WIPE_ON_FORK,
            b"hg" => VmaFlags::HUGE_PAGE,
            b"nh" => VmaFlags::NO_HUGE_PAGE,
            b"sr" => VmaFlags::SEQUENTIAL,
            b"rr" => VmaFlags::RANDOM,
            b"mg" => VmaFlags::MERGEABLE,
            b"mw" => VmaFlags::MAY_WRITE,
            b"dp" => VmaFlags::DROPPABLE,
            b"ht" => return Err("hugetlb memory"),
            b"pf" | b"io" => return Err("a device's memory"),
            b"um" | b"uw" | b"ui" => return Err("memory registered with userfaultfd"),
            b"ss" => return Err("a shadow stack"),
            b"sl" => VmaFlags::SEALED,
            _ => VmaFlags::empty(),
        };
    }
    Ok(flags)
}

/// What [`collect`] has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collected {
    /// How many mappings.
    pub vmas: usize,
    /// How many files are behind them.
    pub backings: usize,
    /// Restarts that lie behind the process, as far as one has left its gate.
    pub restarts: u32,
}

/// Collects mappings and the files behind them into `vmas` and `backings`. `keys`: protection keys
/// that are allocated.
///
/// # Errors
/// A mapping that cannot be carried, by address and name; no room.
pub fn collect<T: Target>(
    save: &mut Save<'_, '_, T>,
    vmas: &mut [Vma],
    backings: &mut [Backing],
    contents: &Contents<'_>,
    keys: &mut Pkey,
) -> Result<Collected> {
    let failed = |e| Error::failed(format_args!("mappings"), "/proc/PID/smaps cannot be read", e);
    let ours = save.target.our_memory();
    let mut buffer = [0; LINE_MAX];
    let mut lines = sys::fs::Lines::new(save.target.smaps().map_err(failed)?, &mut buffer);
    let (mut count, mut backings) = (0, Backings::new(&mut save.scratch, backings)?);
    let mut open: Option<Vma> = None;
    let mut leftover = Leftover::default();
    while let Some(line) = lines.next_line().map_err(failed)? {
        if let Some(key) = line.strip_prefix(b"ProtectionKey:") {
            let key = sys::text::decimal(key.trim_ascii()).ok_or(Errno::EIO).map_err(failed)? as u32;
            if let Some(vma) = open.as_mut().filter(|_| key != 0)
                && let Err(what) = crate::pkey::note(keys, vma, key)
            {
                save.target.blocked(refuse(vma.start.get(), vma.end.get(), b"", what))?;
            }
        } else if let Some(rest) = line.strip_prefix(b"VmFlags:") {
            let Some(mut vma) = open.take() else { continue };
            let kind = VmaKind::from_number(vma.kind.get());
            match vm_flags(rest) {
                Err(_) if matches!(kind, Some(VmaKind::Vdso | VmaKind::Vvar)) => {}
                // What the kernel may drop is lost in any case, as it shall be: random numbers must not come twice.
                Ok(flags)
                    if flags.contains(VmaFlags::WIPE_ON_FORK)
                        && !flags.contains(VmaFlags::DROPPABLE)
                        && save.target.is_copy() =>
                {
                    let mapping = format_args!("mapping {:x}-{:x}", vma.start, vma.end);
                    let why = "is memory that a fork wipes, and so lacking in a copy";
                    save.target
                        .blocked(Error::refused(mapping, why, "save it with --freeze").kind(ErrorKind::Wiped))?;
                }
                Ok(flags)
                    if kind == Some(VmaKind::FileShared)
                        && along::is_table(&vma, flags, backings.as_slice(), &save.notes) =>
                {
                    vma.kind = (VmaKind::FilePrivate as u32).into();
                    vma.flags = (flags | VmaFlags::READ_ALONG).bits().into();
                }
                Ok(flags) if kind == Some(VmaKind::FileShared) => {
                    vma.flags = (flags.bits() | vma.flags.get()).into();
                    if flags.contains(VmaFlags::MAY_WRITE) {
                        vma.backing = (backing::writable(vma.backing.get() as usize, &mut backings)? as u32).into();
                    }
                }
                // Whether the vdso is sealed is the kernel's business.
                Ok(flags) if matches!(kind, Some(VmaKind::Vdso | VmaKind::Vvar)) => {
                    vma.flags = flags.difference(VmaFlags::MAY_WRITE | VmaFlags::SEALED).bits().into();
                }
                Ok(flags) => vma.flags = flags.difference(VmaFlags::MAY_WRITE).bits().into(),
                Err(what) => save.target.blocked(refuse(vma.start.get(), vma.end.get(), b"", what))?,
            }
            leftover.see(save.target, &vma);
            for piece in outside(vma, &ours).into_iter().flatten() {
                *vmas.get_mut(count).ok_or(image_format::writer::Full)? = piece;
                count += 1;
            }
        } else if line.first().is_some_and(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            && let Some(head) = head(line)
            && head.end <= USER_END
            && !(ours.start <= head.start && head.end <= ours.end)
        {
            open = match vma_of(save, &head, &mut backings, contents) {
                Ok(vma) => Some(vma),
                Err(error) => save.target.blocked(error).map(|()| None)?,
            };
        }
    }
    // Also of an instance that is not mapped: a restart makes what is behind mappings.
    for [ino, id] in contents.rings() {
        if belongs(save.target, *id as u32) {
            backing::ring(save, *ino, *id as u32, &mut backings)?;
        }
    }
    let vmas = leftover.leave_out(vmas.get_mut(..count).unwrap_or(&mut []));
    Ok(Collected { vmas, backings: backings.count, restarts: leftover.restarts })
}

/// What is left of a mapping in front of and behind the saver's own memory: the kernel joins neighbours that are alike.
fn outside(vma: Vma, ours: &Range<u64>) -> [Option<Vma>; 2] {
    let piece = |start: u64, end: u64| (start < end).then(|| Vma { start: start.into(), end: end.into(), ..vma });
    let (start, end) = (vma.start.get(), vma.end.get());
    if end <= ours.start || ours.end <= start {
        return [Some(vma), None];
    }
    [piece(start, ours.start.max(start)), piece(ours.end.min(end), end)]
}

/// What the kernel calls mappings of io_uring's.
pub(super) const RING: &[u8] = b"anon_inode:[io_uring]";

/// Whether a descriptor of the table is the process's that is entered.
fn belongs<T: Target>(target: &T, fd: u32) -> bool {
    target.at(fd).0 == target.proc()
}

fn refuse(start: u64, end: u64, name: &[u8], what: &'static str) -> Error {
    Error::refused(
        format_args!("mapping {start:x}-{end:x} ({what} {})", Shown(name)),
        "cannot be carried",
        "unmap it before the save",
    )
}

fn vma_of<T: Target>(
    save: &mut Save<'_, '_, T>,
    head: &Head<'_>,
    backings: &mut Backings<'_, '_>,
    contents: &Contents<'_>,
) -> Result<Vma> {
    let shared = head.perms.last() == Some(&b's');
    let mut to = Text::new();
    let head = &if shared { shared::renamed(*head, &mut to) } else { *head };
    let refuse = |what| Err(refuse(head.start, head.end, head.name, what));
    let deleted = head.name.ends_with(DELETED);
    let held = if deleted { contents.find(head.dev, head.ino, head.name) } else { None };
    let carried = || contents.named_behind(head.dev, head.ino, head.name).is_some();
    let mut vma = Vma {
        start: head.start.into(),
        end: head.end.into(),
        prot: prot(head.perms).into(),
        flags: 0.into(),
        kind: (VmaKind::Anonymous as u32).into(),
        backing: NO_BACKING.into(),
        offset: 0.into(),
        name: Default::default(),
        key: 0.into(),
        reserved: 0.into(),
    };
    match head.name {
        b"[vdso]" => vma.kind = (VmaKind::Vdso as u32).into(),
        name if name.starts_with(b"[vvar") => vma.kind = (VmaKind::Vvar as u32).into(),
        b"[uprobes]" => return refuse("a probe's page"),
        // Its address is the context's id, which only io_setup gives.
        b"/[aio] (deleted)" => return refuse("asynchronous I/O, io_setup's:"),
        // Nobody reads it but the process itself.
        b"/secretmem (deleted)" => return refuse("memfd_secret's memory"),
        name if name.is_empty() || name.starts_with(b"[") => {
            if shared {
                return refuse("shared anonymous memory");
            }
        }
        _ if shared && deleted && held.is_none() && !carried() => {
            let object = format_args!("mapping {:x}-{:x} of file {}", head.start, head.end, Shown(head.name));
            let error = Error::refused(object, "was deleted while it was saved", "save again, or with --freeze");
            return Err(error.kind(ErrorKind::Changed));
        }
        // A private mapping of /dev/zero is anonymous memory to the kernel, too.
        b"/dev/zero" => {}
        RING => {
            let Some(id) = contents.ring(head.ino).filter(|id| shared && belongs(save.target, *id)) else {
                return refuse("a kernel object's memory, of which it has no descriptor:");
            };
            vma.kind = (VmaKind::FileShared as u32).into();
            (vma.offset, vma.flags) = (head.offset.into(), VmaFlags::RING.bits().into());
            vma.backing = (backing::ring(save, head.ino, id, backings)? as u32).into();
        }
        name if name.starts_with(b"anon_inode:") => return refuse("a kernel object's memory"),
        _ => {
            vma.kind = (if shared { VmaKind::FileShared } else { VmaKind::FilePrivate } as u32).into();
            vma.offset = head.offset.into();
            vma.backing = (backing::backing(save, head, (shared, deleted, held), backings, contents)? as u32).into();
        }
    }
    if head.name.starts_with(b"[") {
        vma.name = save.notes.string(head.name)?;
    }
    Ok(vma)
}

/// Writes both tables.
///
/// # Errors
/// No room.
pub fn save<T: Target>(
    save: &mut Save<'_, '_, T>,
    vmas: &[Vma],
    backings: &mut [Backing],
    contents: &Contents<'_>,
) -> Result<()> {
    for b in &mut *backings {
        if b.flags.get() & BackingFlags::RING.bits() != 0 {
            continue;
        }
        let held = b.flags.get() & BackingFlags::CONTENT.bits() != 0;
        let id = contents.id(b.identity.dev.get(), b.identity.ino.get()).filter(|_| held);
        b.content = id.unwrap_or(0).into();
    }
    save.notes.table(vmas)?;
    save.notes.table(backings)?;
    Ok(())
}
