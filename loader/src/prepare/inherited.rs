//! Memory that children share with their parents, copy-on-write: each parent fills its own at its final place, before it makes them.
//!
//! Must never touch what is mapped already: what lies there is not shared, and each process reads it from the image.

use image_format::record::header::Features;
use image_format::record::memory::{Vma, VmaFlags, VmaKind};
use image_format::{Checked, Segment, seal};
use sys::Errno;
use sys::abi::mm::{MADV_DONTNEED, PROT_READ, PROT_WRITE};
use sys::fs::Fd;
use zerocopy::little_endian::U64;

use super::{Input, input};
use crate::commit::{Stage, die, die_damaged};

/// Mappings that a process shares at most: beyond them each reads its own.
const MOST: usize = 16;

/// Bytes of a mapping that is worth it.
const LEAST: u64 = 64 << 10;

/// What a shared mapping may have: the rest is set by each process for itself.
const PLAIN: u32 = VmaFlags::NO_RESERVE.bits()
    | VmaFlags::HUGE_PAGE.bits()
    | VmaFlags::NO_HUGE_PAGE.bits()
    | VmaFlags::DONT_DUMP.bits()
    | VmaFlags::MERGEABLE.bits();

/// A mapping that is filled.
#[derive(Clone, Copy, Debug, Default)]
struct Filled {
    start: u64,
    end: u64,
    flags: u32,
    /// The id of the process that has filled it with what is its own.
    by: u32,
}

/// Those of this process and its ancestors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    all: [Filled; MOST],
    count: usize,
}

impl Inherited {
    /// Who has filled the memory in which this mapping lies: this process, or else its parent.
    pub fn by(&self, vma: &Vma, ids: [u32; 2]) -> Option<u32> {
        let (start, end) = (vma.start.get(), vma.end.get());
        let fits = |one: &&Filled| one.start <= start && end <= one.end && one.flags == vma.flags.get();
        let all = self.all.get(..self.count).unwrap_or_default();
        ids.into_iter().find(|id| all.iter().filter(fits).any(|one| one.by == *id) && is_plain(vma))
    }

    /// Fills the memory that this process's children share with it; `parent`: its own parent's id, or 0.
    pub fn fill(&mut self, input: &Input, parent: u32) {
        let image = input.image();
        let header = image.header();
        if header.required.get() & Features::INHERITED.bits() == 0 {
            return;
        }
        for vma in image.each::<Vma>().filter(|vma| is_plain(vma) && vma.end.get() - vma.start.get() >= LEAST) {
            let by = self.by(vma, [parent; 2]);
            let Some(place) = self.all.get_mut(self.count) else { return };
            // SAFETY: the kernel replaces nothing there.
            if by.is_none() && unsafe { state::memory::restore(vma, None) }.is_err() {
                continue;
            }
            let (start, end, flags) = (vma.start.get(), vma.end.get(), vma.flags.get());
            *place = Filled { start, end, flags, by: header.pid.get() };
            self.count += 1;
            let seal = (input.seal, image.image().seal_span().0);
            load(image, vma, (input.file, input.base), seal, by.is_some());
        }
    }
}

/// Whether children may have a mapping of their parents: nothing is to be done when it is filled.
fn is_plain(vma: &Vma) -> bool {
    vma.kind.get() == VmaKind::Anonymous as u32
        && vma.prot.get() == PROT_READ | PROT_WRITE
        && vma.flags.get() & !PLAIN == 0
        && vma.key.get() == 0
}

/// Fills a mapping, which is empty, or has the parent's contents.
pub fn load(image: &Checked<'_>, vma: &Vma, file: (Fd, u64), (seal, at): (&[u8], u64), has_parents: bool) {
    let Ok((_, sums)) = seal::read(seal, at) else { die(Stage::ReadingSeal, Errno::EINVAL) };
    let mut from = vma.start.get();
    let mut clear = |to: u64, next: u64| {
        // SAFETY: the program's memory, not in use yet.
        let empty = || unsafe { sys::memory::advise(from as usize, (to - from) as usize, MADV_DONTNEED) };
        // Where the kernel or a filter forbids it, the parent's contents would stay.
        if has_parents
            && from < to
            && let Err(e) = empty()
        {
            die(Stage::MappingMemory, e);
        }
        from = next;
    };
    for (index, segment) in image.segments().enumerate() {
        if segment.addr < vma.start.get() || segment.addr >= vma.end.get() {
            continue;
        }
        clear(segment.addr, segment.addr + segment.len);
        if !(has_parents && segment.inherited) {
            read(file, &segment, sums.get(index));
        }
    }
    clear(vma.end.get(), 0);
}

/// Reads a segment to its place, and checks it; `base`: where the image begins in the file.
pub fn read((file, base): (Fd, u64), segment: &Segment, sum: Option<&U64>) {
    let (at, len) = (segment.addr as usize, segment.len as usize);
    let mut done = 0;
    while done < len {
        // SAFETY: the program's memory, mapped and not in use yet.
        match unsafe {
            sys::fs::pread_to(file, at + done, len - done, input::start() + segment.place(base) + done as u64)
        } {
            Ok(0) => die(Stage::ReadingMemoryThatWasCut, Errno::EIO),
            Ok(n) => done += n,
            Err(e) => die(Stage::ReadingMemory, e),
        }
    }
    // SAFETY: just filled, and nobody writes to it now.
    let found = seal::sum(unsafe { core::slice::from_raw_parts(at as *const u8, len) });
    if sum.is_none_or(|sum| sum.get() != found) {
        die_damaged();
    }
}
