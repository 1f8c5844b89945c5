//! Files with a name that the program writes to through shared mappings. They stay where they are: only checksums of what
//! they hold are saved, since neither size nor time tells of every store, and the rest of the image fits no other contents.
//!
//! Must never open such a file in its own process while that holds locks on it: closing it would give them up.

use image_format::record::StrRef;
use image_format::record::header::Features;
use image_format::record::shared_file::SharedFile;
use image_format::{Checked, ExitCode, NoteType, PAGE, align_up, seal};
use sys::Errno;
use sys::abi::mm::{PAGE_IS_PRESENT, PM_PRESENT, PageRegion, PmScanArg};
use sys::abi::{O_PATH, O_RDONLY, S_IFMT, S_IFREG, Stat, TMPFS_MAGIC};
use sys::fs::Owned;
use sys::text::Shown;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::content::{DELETED, resident};
use crate::descriptor::OpenFile;
use crate::memory::{Head, shared};
use crate::{Error, Result, Save, Target, restart};

/// Bytes of a piece at most.
const PIECE: usize = 256 << 10;

/// Pages that are looked up together.
const PAGES: usize = 512;

/// A part of a file in memory that was looked at: all of a tree may map the same one.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Done {
    file: [u64; 2],
    from: u64,
    to: u64,
}

/// How many of them are remembered; what is not is in the table twice.
const DONE_MAX: usize = 256;

/// Writes the table of all processes of a tree, while they stand still; tells what a restart needs.
///
/// # Errors
/// The list of mappings or the page map cannot be read; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<Features> {
    let mut room: &mut [u8] = &mut [];
    let (mut done, mut count): (&mut [Done], _) = (&mut [], 0);
    let mut any = Features::empty();
    save.notes.begin(NoteType::SharedFile)?;
    shared::each_of_all(save, |save, head| {
        if head.perms.get(1) != Some(&b'w') || !head.name.starts_with(b"/") || head.name.ends_with(DELETED) {
            return Ok(());
        }
        // Another file, or none that can be carried, is the business of the mappings.
        let failed = |e| Error::failed(format_args!("file {}", Shown(head.name)), "cannot be examined", e);
        let Some(stat) = sys::fs::found(sys::fs::stat_path(head.name)).map_err(failed)? else { return Ok(()) };
        if stat.ino != head.ino || stat.mode & S_IFMT != S_IFREG {
            return Ok(());
        }
        if room.is_empty() {
            room = save.scratch.bytes(PIECE)?;
            done = save.scratch.take(DONE_MAX)?;
        }
        any = Features::SHARED_FILES;
        let this = Done {
            file: [stat.dev, stat.ino],
            from: head.offset,
            to: head.offset.saturating_add(head.end - head.start),
        };
        let in_memory = is_in_memory(head.name);
        let covers = |one: &Done| one.file == this.file && one.from <= this.from && this.to <= one.to;
        if in_memory && done.iter().take(count).any(covers) {
            return Ok(());
        }
        if let Some(place) = done.get_mut(count).filter(|_| in_memory) {
            *place = this;
            count += 1;
        }
        let locked = T::IN_PROCESS && files.iter().any(|f| (f.dev, f.ino, f.locked) == (stat.dev, stat.ino, 1));
        mapping(save, head, &stat, (in_memory, locked), room)
    })?;
    save.notes.end()?;
    Ok(any)
}

/// One mapping: the pages that it has. Who stores to another one moves the file's time, but in memory (tmpfs), where all that the
/// file has is looked at, and how much that is. `locked`: the file must not be opened here.
fn mapping<T: Target>(
    save: &mut Save<'_, '_, T>,
    head: &Head<'_>,
    stat: &Stat,
    (in_memory, locked): (bool, bool),
    room: &mut [u8],
) -> Result<()> {
    let path = save.notes.string(head.name)?;
    let blocks = if in_memory { stat.blocks as u32 + 1 } else { 0 };
    let end = head.end.min(head.start.saturating_add(align_up((stat.size as u64).saturating_sub(head.offset), PAGE)));
    let unopened = |e| Error::failed(format_args!("file {}", Shown(head.name)), "cannot be opened", e);
    let file = if in_memory && !locked {
        sys::fs::found(sys::fs::open_path(head.name, O_RDONLY, 0)).map_err(unopened)?
    } else {
        None
    };
    let failed = |e| Error::failed(format_args!("page map"), "/proc/PID/pagemap cannot be read", e);
    let pagemap = sys::fs::open_at(save.target.proc(), c"pagemap", O_RDONLY, 0).map_err(failed)?;
    let mut by_ioctl = true;
    let mut at = head.start;
    while at < end {
        let found = match &file {
            Some(file) => extent(file, head, at),
            None if in_memory => resident_run(save.target, at, end),
            None if by_ioctl => match scan(&pagemap, at, end) {
                Err(Errno::ENOTTY | Errno::EINVAL) => {
                    by_ioctl = false;
                    continue;
                }
                other => other,
            },
            None => run_of_entries(&pagemap, at, end),
        };
        let Some((from, to)) = found.map_err(failed)? else { break };
        at = from;
        while at < to.min(end) {
            let next = to.min(end).min(at + PIECE as u64);
            piece(save, head, (at, next), (stat, blocks, path), room)?;
            at = next;
        }
        at = at.max(to);
    }
    Ok(())
}

/// Whether a file lies in memory (tmpfs), which the next boot finds empty.
#[must_use]
pub fn is_in_memory(path: &[u8]) -> bool {
    let lies = sys::fs::open_path(path, O_PATH, 0).and_then(|file| sys::fs::file_system(file.fd()));
    lies == Ok(TMPFS_MAGIC)
}

/// A run of pages, or none behind this address.
type Run = sys::Result<Option<(u64, u64)>>;

/// The next run that a file has, at its addresses.
fn extent(file: &Owned, head: &Head<'_>, at: u64) -> Run {
    let address = |offset: u64| offset.saturating_sub(head.offset).saturating_add(head.start);
    let found = sys::fs::extent(file.fd(), at - head.start + head.offset)?;
    Ok(found.map(|(from, to)| (address(from), address(align_up(to, PAGE)))))
}

/// The next run of pages that the process has.
fn scan(pagemap: &Owned, start: u64, end: u64) -> Run {
    let mut found = [PageRegion::default()];
    let mut scan =
        PmScanArg { start, end, category_mask: PAGE_IS_PRESENT, return_mask: PAGE_IS_PRESENT, ..PmScanArg::default() };
    let count = sys::memory::pagemap_scan(pagemap.fd(), &mut scan, &mut found)?;
    Ok(found.first().filter(|_| count != 0).map(|run| (run.start, run.end)))
}

/// The same on a kernel without `PAGEMAP_SCAN`; a run without pages stands for some that are not there.
fn run_of_entries(pagemap: &Owned, start: u64, end: u64) -> Run {
    let mut entries = [0u8; PAGES * 8];
    let count = (((end - start) / PAGE) as usize).min(PAGES);
    let entries = entries.get_mut(..count * 8).unwrap_or_default();
    sys::fs::pread_exact(pagemap.fd(), entries, start / PAGE * 8)?;
    let there = entries.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry) & PM_PRESENT != 0);
    Ok(Some(first_run(there, start)))
}

/// The same of a file in memory, which the kernel tells of by page.
fn resident_run<T: Target>(target: &mut T, start: u64, end: u64) -> Run {
    let mut there = [0u8; PAGES];
    let count = (((end - start) / PAGE) as usize).min(PAGES);
    let there = there.get_mut(..count).unwrap_or_default();
    resident(target, start, count as u64, there);
    Ok(Some(first_run(there.iter().map(|page| page & 1 != 0), start)))
}

/// The first run of pages that are there; the end of all when none is.
fn first_run(there: impl ExactSizeIterator<Item = bool> + Clone, start: u64) -> (u64, u64) {
    let count = there.len();
    let first = there.clone().position(|has| has).unwrap_or(count);
    let len = there.skip(first).take_while(|has| *has).count();
    let from = start + first as u64 * PAGE;
    (from, from + len as u64 * PAGE)
}

/// One piece: its bytes as far as the file goes, then zeros.
fn piece<T: Target>(
    save: &mut Save<'_, '_, T>,
    head: &Head<'_>,
    (from, to): (u64, u64),
    (stat, blocks, path): (&Stat, u32, StrRef),
    room: &mut [u8],
) -> Result<()> {
    let offset = head.offset + (from - head.start);
    let len = (stat.size as u64).saturating_sub(offset).min(to - from);
    let Some(room) = room.get_mut(..(to - from) as usize).filter(|_| len != 0) else { return Ok(()) };
    // What cannot be read, a guard region, cannot have been written.
    if save.target.read_memory(from, room).is_err() {
        return Ok(());
    }
    room.get_mut(len as usize..).unwrap_or_default().fill(0);
    let sum = seal::sum(room).into();
    save.notes.push(&SharedFile {
        path,
        offset: offset.into(),
        sum,
        len: (len as u32).into(),
        blocks: blocks.into(),
    })?;
    Ok(())
}

/// Whether the files hold what they held; a file that is not there is named when it is mapped. `room` is as long as a segment
/// can be. `written`: whether it does not matter that the one with this name has been written.
///
/// # Errors
/// One has been written.
pub fn check(image: &Checked<'_>, room: &mut [u8], mut written: impl FnMut(&[u8]) -> bool) -> restart::Result<()> {
    let (mut last, mut file) = (None, None);
    for one in image.each::<SharedFile>() {
        let name = one.path.at.get();
        // Its pieces lie side by side: one file is opened once, and its name looked up.
        if last.replace(name) != Some(name) {
            file = sys::fs::open_path(image.string(one.path), O_RDONLY, 0).ok();
        }
        let Some(open) = &file else { continue };
        let len = one.len.get();
        let whole = room.get_mut(..align_up(len.into(), PAGE) as usize).unwrap_or_default();
        whole.fill(0);
        let read = whole.get_mut(..len as usize).unwrap_or_default();
        let blocks = sys::fs::fstat(open.fd()).map_or(0, |stat| stat.blocks as u32 + 1);
        let grown = one.blocks.get() != 0 && one.blocks.get() != blocks;
        if grown
            || sys::fs::pread_exact(open.fd(), read, one.offset.get()).is_err()
            || one.sum.get() != seal::sum(whole)
        {
            let path = image.string(one.path);
            if written(path) {
                file = None;
                continue;
            }
            let what = "file @ (mapped shared): was written after the save: put the old file back, or --files ignore";
            return Err(restart::Error::about(ExitCode::FileChanged, what, 0u32, path, None));
        }
    }
    Ok(())
}
