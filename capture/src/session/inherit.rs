//! Pages that a process shares with its parent since fork(2): they are saved once, in the parent's image.
//!
//! Whether the kernel shares two pages or they only hold the same, no program can see. Must never take two pages for the same that are
//! not: the kernel names one page frame for both (for root), or all bytes are compared.

use core::ops::Range;
use std::vec;
use std::vec::Vec;

use image_format::PAGE;
use image_format::elf::PF_INHERITED;
use image_format::writer::{Full, Layout};
use state::{Error, Result, Target};
use sys::abi::mm::PM_PRESENT;
use sys::fs::Owned;

use crate::pages::{self, Run, of_memory};

/// Bytes that are compared at a time.
const CHUNK: u64 = 256 << 10;

/// Bytes of pages in a row that are worth a segment of their own.
const LEAST: u64 = 4 * PAGE;

/// The number of the page frame in an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst): 0 for whom it is hidden.
const FRAME: u64 = (1 << 55) - 1;

/// One of the two processes.
struct Side {
    place: usize,
    pagemap: Owned,
    bytes: Vec<u8>,
    entries: Vec<u64>,
}

impl Side {
    fn new<T: Target>(target: &mut T, place: usize) -> Result<Self> {
        target.enter(place);
        let pagemap = pages::pagemap(target.memory_proc())?;
        let (bytes, entries) = (vec![0; CHUNK as usize], vec![0; (CHUNK / PAGE) as usize]);
        Ok(Self { place, pagemap, bytes, entries })
    }

    /// The entries of these pages.
    fn entries(&mut self, range: &Range<u64>) -> Result<&[u64]> {
        use zerocopy::IntoBytes;
        let entries = self.entries.get_mut(..((range.end - range.start) / PAGE) as usize).ok_or(Full)?;
        sys::fs::pread_exact(self.pagemap.fd(), entries.as_mut_bytes(), range.start / PAGE * 8)
            .map_err(pages::unread)?;
        Ok(entries)
    }

    /// The bytes of these pages.
    fn bytes<T: Target>(&mut self, target: &mut T, range: &Range<u64>) -> Result<&[u8]> {
        target.enter(self.place);
        let bytes = self.bytes.get_mut(..(range.end - range.start) as usize).ok_or(Full)?;
        target.read_memory(range.start, bytes).map_err(|e| {
            Error::failed(format_args!("memory at {:#x}", range.start), "cannot be read by the saver", e)
        })?;
        Ok(bytes)
    }
}

/// The frame of a page that is there, for whom the kernel names it.
fn frame(entry: u64) -> Option<u64> {
    Some(entry & FRAME).filter(|frame| entry & PM_PRESENT != 0 && *frame != 0)
}

/// A part of a run; `of`: where the parent's run begins that has the same bytes.
struct Piece {
    range: Range<u64>,
    of: Option<u64>,
}

/// Appends a piece, joined to the last one if that is of the same kind.
fn add(pieces: &mut Vec<Piece>, range: Range<u64>, of: Option<u64>) {
    match pieces.last_mut().filter(|last| last.of == of && last.range.end == range.start) {
        Some(last) => last.range.end = range.end,
        None if range.is_empty() => {}
        None => pieces.push(Piece { range, of }),
    }
}

/// The place of a process, and its runs.
pub type Of<'r> = (usize, &'r [Run]);

/// The runs of a child's memory: those that are its parent's are marked, and cut where the parent's end.
///
/// # Errors
/// Memory that cannot be read.
pub fn find<T: Target>(target: &mut T, (parent, theirs): Of<'_>, (child, own): Of<'_>) -> Result<Vec<Run>> {
    let mut sides = [Side::new(target, parent)?, Side::new(target, child)?];
    let (mut out, mut parts) = (Vec::new(), of_memory(theirs).iter().peekable());
    for run in of_memory(own) {
        let (mut pieces, mut at, end) = (Vec::new(), run.addr, run.addr + run.len);
        while at < end {
            while parts.next_if(|part| part.addr + part.len <= at).is_some() {}
            let part = parts.peek().map_or(end..end, |part| part.addr.clamp(at, end)..(part.addr + part.len).min(end));
            add(&mut pieces, at..part.start, None);
            at = part.start;
            if part.start < part.end {
                at = (at + CHUNK).min(part.end);
                let of = parts.peek().map_or(0, |part| part.addr);
                compare(target, &mut sides, &(part.start..at), of, &mut pieces)?;
            }
        }
        let mut joined = Vec::new();
        for Piece { range, of } in pieces {
            let of = of.filter(|_| range.end - range.start >= LEAST);
            add(&mut joined, range, of);
        }
        out.extend(joined.into_iter().map(|Piece { range, of }| {
            let flags = run.flags | if of.is_some() { PF_INHERITED } else { 0 };
            Run { addr: range.start, len: range.end - range.start, flags, ..*run }
        }));
    }
    Ok(out)
}

/// Which of these pages both have.
fn compare<T: Target>(
    target: &mut T,
    [parent, child]: &mut [Side; 2],
    range: &Range<u64>,
    of: u64,
    pieces: &mut Vec<Piece>,
) -> Result<()> {
    let (theirs, own) = (parent.entries(range)?.to_vec(), child.entries(range)?);
    // The kernel may move a page, and use its frame for another one: only what stays where it was while the other was asked for counts.
    let again = parent.entries(range)?;
    let stays = theirs.iter().zip(again).map(|(before, after)| Some(*before).filter(|_| before == after));
    let frames: Vec<_> = stays.zip(own).map(|(a, b)| frame(a?).zip(frame(*b)).map(|(a, b)| a == b)).collect();
    let (theirs, own) = if frames.iter().any(Option::is_none) {
        (parent.bytes(target, range)?, child.bytes(target, range)?)
    } else {
        (&[][..], &[][..])
    };
    for (index, known) in frames.into_iter().enumerate() {
        let (start, size) = (index * PAGE as usize, PAGE as usize);
        let same = known.unwrap_or_else(|| theirs.get(start..start + size) == own.get(start..start + size));
        let at = range.start + start as u64;
        add(pieces, at..at + PAGE, same.then_some(of));
    }
    Ok(())
}

/// Where a process's pages lie in the file: address, bytes, and place, ascending by address.
pub type Places = Vec<(u64, u64, u64)>;

/// Says in the headers of the image that begins at `base` where its parent's pages lie, and returns where its own and those do.
///
/// # Errors
/// The parent has no such page.
pub fn locate(layout: &Layout, prefix: &mut [u8], runs: &[Run], base: u64, parent: Option<&Places>) -> Result<Places> {
    let (mut places, mut next) = (Vec::new(), base + layout.segments);
    for (index, run) in of_memory(runs).iter().enumerate() {
        let mut place = next;
        if run.is_inherited() {
            let theirs = parent.ok_or(Full)?;
            let (addr, _, at) = theirs
                .get(theirs.partition_point(|(addr, len, _)| addr + len <= run.addr))
                .filter(|(addr, len, _)| *addr <= run.addr && run.addr + run.len <= addr + len)
                .ok_or(Full)?;
            place = at + (run.addr - addr);
            layout.inherit(prefix, index, place)?;
        }
        places.push((run.addr, run.len, place));
        next += run.stored();
    }
    Ok(places)
}
