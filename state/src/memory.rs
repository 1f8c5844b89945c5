//! Mappings: which there are, and how each is made again. Their contents are the segments' business.

use core::ops::Range;

use image_format::record::header::Features;
use image_format::record::memory::{Backing, BackingFlags, NO_BACKING, Vma, VmaFlags, VmaKind};
use image_format::record::pkey::Pkey;
use image_format::{Checked, ExitCode, USER_END};
use sys::Errno;
use sys::abi::mm::{
    MADV_DONTDUMP, MADV_DONTFORK, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_RANDOM, MADV_SEQUENTIAL,
    MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_DROPPABLE, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE, MAP_PRIVATE,
    MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE,
};
use sys::text::{Shown, Text, cut, hex, words};

use self::backing::Backings;
use self::leftover::Leftover;
use crate::content::{Contents, DELETED};
use crate::{Error, ErrorKind, Result, Save, Target, restart};

mod along;
mod backing;
mod leftover;
pub mod reopened;
pub mod shared;

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
    let mut lines = sys::fs::Lines::open_at(save.target.memory_proc(), c"smaps", &mut buffer).map_err(failed)?;
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
                    vma.flags = flags.bits().into();
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
        let held = b.flags.get() & BackingFlags::CONTENT.bits() != 0;
        let id = contents.id(b.identity.dev.get(), b.identity.ino.get()).filter(|_| held);
        b.content = id.unwrap_or(0).into();
    }
    save.notes.table(vmas)?;
    save.notes.table(backings)?;
    Ok(())
}

/// Maps one mapping at its place, from `file` when there is one, as empty anonymous memory else, with its advice: contents that come
/// later must find it, as huge pages have no holes. Advice that the kernel no longer offers is a matter of speed and left out silently.
///
/// # Errors
/// The kernel's; EEXIST when something is in the way.
///
/// # Safety
/// Nothing that Rust uses lies there (the kernel refuses to replace, but the range becomes the program's).
pub unsafe fn restore(vma: &Vma, file: Option<i32>) -> sys::Result<()> {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let along = file.is_some() && flags.contains(VmaFlags::READ_ALONG);
    let shared = along || vma.kind.get() == VmaKind::FileShared as u32;
    let mut how = MAP_FIXED_NOREPLACE | if shared { MAP_SHARED } else { MAP_PRIVATE };
    if flags.contains(VmaFlags::NO_RESERVE) {
        how |= MAP_NORESERVE;
    }
    let (fd, offset) = match file {
        Some(fd) => (fd, vma.offset.get()),
        None => {
            how |= MAP_ANONYMOUS;
            (-1, 0)
        }
    };
    if flags.contains(VmaFlags::GROWS_DOWN) && file.is_none() {
        how |= MAP_GROWSDOWN;
    }
    let start = vma.start.get() as usize;
    let len = (vma.end.get() - vma.start.get()) as usize;
    // SAFETY: the caller vouches for the range.
    let map = |how| unsafe { sys::memory::map(start, len, vma.prot.get(), how, fd, offset) };
    let at = match flags.contains(VmaFlags::DROPPABLE) && file.is_none() {
        // A kernel before Linux 6.11 gives memory that it does not drop.
        true => map(how & !MAP_PRIVATE | MAP_DROPPABLE).or_else(|_| map(how)),
        false => map(how),
    }?;
    // Kernels before 4.17 do not know MAP_FIXED_NOREPLACE and take the address for a hint.
    if at != start {
        return Err(sys::Errno::EEXIST);
    }
    advise(vma);
    Ok(())
}

/// Gives a mapping its advice.
#[inline(always)] // The smaller stub has one caller.
pub fn advise(vma: &Vma) {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let (start, len) = (vma.start.get() as usize, (vma.end.get() - vma.start.get()) as usize);
    for (flag, advice) in &ADVICE {
        if flags.contains(*flag) {
            // SAFETY: this advice keeps all contents.
            let _ = unsafe { sys::memory::advise(start, len, usize::from(*advice)) };
        }
    }
}

/// Advice by the flag that tells of it.
const ADVICE: [(VmaFlags, u8); 8] = [
    (VmaFlags::DONT_FORK, MADV_DONTFORK as u8),
    (VmaFlags::DONT_DUMP, MADV_DONTDUMP as u8),
    (VmaFlags::WIPE_ON_FORK, MADV_WIPEONFORK as u8),
    (VmaFlags::HUGE_PAGE, MADV_HUGEPAGE as u8),
    (VmaFlags::NO_HUGE_PAGE, MADV_NOHUGEPAGE as u8),
    (VmaFlags::SEQUENTIAL, MADV_SEQUENTIAL as u8),
    (VmaFlags::RANDOM, MADV_RANDOM as u8),
    (VmaFlags::MERGEABLE, MADV_MERGEABLE as u8),
];

/// Gives a mapping its protection key, locks one that was locked, and seals one that was sealed, when its contents are in place.
///
/// # Errors
/// pkey_mprotect(2)'s, mlock2(2)'s, mseal(2)'s.
pub fn finish(vma: &Vma) -> sys::Result<()> {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let start = vma.start.get() as usize;
    let len = (vma.end.get() - vma.start.get()) as usize;
    if vma.key.get() != 0 {
        // SAFETY: the program's memory, not in use yet.
        unsafe { sys::memory::protect_by_key(start, len, vma.prot.get(), vma.key.get()) }?;
    }
    if flags.contains(VmaFlags::LOCKED) {
        sys::memory::lock_on_fault(start, len)?;
        if !flags.contains(VmaFlags::ON_FAULT) {
            // Pages that cannot be had (guards, PROT_NONE, behind the end of a file) do not keep the others from being locked.
            // A limit does, and was told by the call that asks for none of them.
            let _ = sys::memory::lock(start, len);
        }
    }
    if flags.contains(VmaFlags::SEALED) { sys::memory::seal(start, len) } else { Ok(()) }
}

/// Whether this kernel can seal memory, if the image has some that is sealed.
///
/// # Errors
/// It is older than Linux 6.10.
pub fn check(image: &Checked<'_>) -> restart::Result<()> {
    if image.header().required.get() & Features::SEALED.bits() == 0 {
        return Ok(());
    }
    sys::memory::seal(0, 0).map_err(|e| {
        let what = "sealed memory: is not known to this kernel (!): use Linux 6.10 or newer";
        restart::Error::about(ExitCode::Kernel, what, 0u32, b"", e)
    })
}
