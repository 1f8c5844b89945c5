//! Which pages of a mapping go into the image, as runs: the segments.
//!
//! Anonymous memory: pages that were touched. Private file mappings: the pages that were written, and all the
//! file's other pages in the range, marked as the file's own bytes. Untouched pages cost nothing.

use image_format::elf::{PF_CONTENT, PF_FILE_BYTES, PF_INHERITED, PF_R, PF_W, PF_X};
use image_format::record::memory::{Backing, BackingFlags, NO_BACKING, Vma, VmaFlags, VmaKind};
use image_format::writer::Full;
use image_format::{PAGE, align_up};
use state::content::Contents;
use state::guard::Guards;
use state::{Error, Result, Target};
use sys::Errno;
use sys::abi::mm::{
    PAGE_IS_FILE, PAGE_IS_GUARD, PAGE_IS_PFNZERO, PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PM_FILE, PM_PRESENT, PM_SWAPPED,
    PROT_EXEC, PROT_READ, PROT_WRITE, PageRegion, PmScanArg,
};
use sys::fs::{Fd, Owned};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a segment at most: what was read is checksummed while a core's cache still holds it, here and at the restart.
const SEGMENT: u64 = 1 << 20;
const _: () = assert!(SEGMENT <= image_format::SEGMENT_MAX);

/// One segment to be written.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Run {
    /// First address.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// `p_flags`.
    pub flags: u32,
    /// 1 when the program itself may read the memory; of contents their index.
    pub readable: u32,
}

impl Run {
    /// Whether the program itself may have written it: it is no file's own bytes.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.flags & PF_FILE_BYTES == 0
    }

    /// Whether its bytes are in its parent's image.
    #[must_use]
    pub const fn is_inherited(&self) -> bool {
        self.flags & PF_INHERITED != 0
    }

    /// How many bytes of the image are its own.
    #[must_use]
    pub const fn stored(&self) -> u64 {
        if self.is_inherited() { 0 } else { self.len }
    }

    /// The index of the contents that it is a part of, from the offset [`Run::addr`] on.
    #[must_use]
    pub const fn content(&self) -> Option<usize> {
        if self.flags & PF_CONTENT == 0 { None } else { Some(self.readable as usize) }
    }
}

/// A growing list of runs in a fixed table.
#[derive(Debug)]
pub struct Runs<'b> {
    table: &'b mut [Run],
    count: usize,
}

impl<'b> Runs<'b> {
    /// An empty list with room for as many runs as `table` is long.
    #[must_use]
    pub fn new(table: &'b mut [Run]) -> Self {
        Self { table, count: 0 }
    }

    /// The runs, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[Run] {
        self.table.get(..self.count).unwrap_or_default()
    }

    /// Others in the place of the first `count`; false: there is no room, and all is as it was.
    pub fn replace_first(&mut self, count: usize, others: &[Run]) -> bool {
        let behind = self.count - count.min(self.count);
        let all = others.len() + behind;
        if all > self.table.len() {
            return false;
        }
        self.table.copy_within(count..self.count, others.len());
        self.table.get_mut(..others.len()).unwrap_or_default().copy_from_slice(others);
        self.count = all;
        true
    }

    /// The last runs become the first: those of contents are found first and come last.
    pub fn rotate(&mut self, first: usize) {
        self.table.get_mut(..self.count).unwrap_or_default().rotate_left(first);
    }

    /// Appends a part of contents, cut where a segment would be too long.
    fn push_content(&mut self, index: usize, mut from: u64, to: u64) -> Result<(), Full> {
        while from < to {
            let (len, readable) = ((to - from).min(SEGMENT), index as u32);
            *self.table.get_mut(self.count).ok_or(Full)? = Run { addr: from, len, flags: PF_R | PF_CONTENT, readable };
            self.count += 1;
            from += len;
        }
        Ok(())
    }

    /// Appends a range, joined to the last run where they touch, cut where a segment would be too long.
    fn push(&mut self, vma: &Vma, mut start: u64, end: u64, file_bytes: bool) -> Result<(), Full> {
        let prot = vma.prot.get();
        let bit = |p: u32, f: u32| if prot & p != 0 { f } else { 0 };
        let mut flags = bit(PROT_READ, PF_R) | bit(PROT_WRITE, PF_W) | bit(PROT_EXEC, PF_X);
        flags |= if file_bytes { PF_FILE_BYTES } else { 0 };
        while start < end {
            let last = self.count.checked_sub(1).and_then(|i| self.table.get_mut(i));
            if let Some(last) = last
                && last.addr + last.len == start
                && start > vma.start.get()
                && last.flags == flags
                && last.len < SEGMENT
            {
                let more = (end - start).min(SEGMENT - last.len);
                last.len += more;
                start += more;
                continue;
            }
            let len = (end - start).min(SEGMENT);
            // A thread's rights to memory with a key are its own.
            let readable = u32::from(prot & PROT_READ != 0 && vma.key.get() == 0);
            *self.table.get_mut(self.count).ok_or(Full)? = Run { addr: start, len, flags, readable };
            self.count += 1;
            start += len;
        }
        Ok(())
    }
}

/// The runs of memory alone: those of contents come last, and have offsets for addresses.
#[must_use]
pub fn of_memory(runs: &[Run]) -> &[Run] {
    let count = runs.iter().position(|run| run.content().is_some()).unwrap_or(runs.len());
    runs.get(..count).unwrap_or_default()
}

/// Finds the runs of all contents.
///
/// # Errors
/// They cannot be looked at; no room.
pub fn plan_contents<T: Target>(target: &mut T, contents: &Contents<'_>, runs: &mut Runs<'_>) -> Result<()> {
    for index in 0..contents.objects().len() {
        contents.each_part(target, index, &mut |from, to| runs.push_content(index, from, to).map_err(Into::into))?;
    }
    Ok(())
}

/// The error of a page map.
pub(crate) fn unread(errno: Errno) -> Error {
    Error::failed(format_args!("page map"), "/proc/PID/pagemap cannot be read", errno)
}

/// The page map of a process of this directory in `/proc`.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn pagemap(proc: Fd) -> Result<Owned> {
    sys::fs::open_at(proc, c"pagemap", sys::abi::O_RDONLY, 0).map_err(unread)
}

/// Finds the runs of all mappings.
///
/// # Errors
/// The page map cannot be read; no room.
pub fn plan<T: Target>(
    target: &T,
    vmas: &[Vma],
    backings: &[Backing],
    runs: &mut Runs<'_>,
    guards: &mut Guards<'_>,
) -> Result<()> {
    let mut scanner = Scanner::open(target.memory_proc())?;
    for vma in vmas {
        let (start, end) = (vma.start.get(), vma.end.get());
        match VmaKind::from_number(vma.kind.get()) {
            _ if vma.flags.get() & VmaFlags::DROPPABLE.bits() != 0 => {}
            Some(VmaKind::Anonymous) => {
                scanner.scan(start, end, &mut |from, to, guard| {
                    if guard { guards.push(vma, from, to) } else { runs.push(vma, from, to, false) }?;
                    Ok(())
                })?;
            }
            Some(VmaKind::FilePrivate) => {
                let file_end = file_end(target, vma, backings);
                let mut at = start;
                scanner.scan(start, end, &mut |from, to, guard| {
                    runs.push(vma, at, from.min(file_end).max(at), true)?;
                    if guard { guards.push(vma, from, to) } else { runs.push(vma, from, to, false) }?;
                    at = to;
                    Ok(())
                })?;
                runs.push(vma, at, file_end.max(at), true)?;
            }
            Some(VmaKind::Vdso) => runs.push(vma, start, end, false)?,
            // Its pages are the file's: only guards are the mapping's own.
            Some(VmaKind::FileShared) if scanner.guards != 0 => {
                scanner.scan(start, end, &mut |from, to, guard| {
                    if guard {
                        guards.push(vma, from, to)?;
                    }
                    Ok(())
                })?;
            }
            Some(VmaKind::FileShared | VmaKind::Vvar) | None => {}
        }
    }
    Ok(())
}

/// The first page of a file mapping that lies wholly behind the end of the file: it has no contents.
fn file_end<T: Target>(target: &T, vma: &Vma, backings: &[Backing]) -> u64 {
    let (start, end) = (vma.start.get(), vma.end.get());
    let known = (vma.backing.get() != NO_BACKING).then(|| backings.get(vma.backing.get() as usize)).flatten();
    match known {
        Some(b) if b.flags.get() & BackingFlags::GONE.bits() == 0 => {
            let len = align_up(b.identity.size.get().saturating_sub(vma.offset.get()), PAGE);
            end.min(start.saturating_add(len))
        }
        // Nobody knows how long a file is that has no name any more: ask where reading begins to fail.
        _ => {
            let readable = |page: u64| target.read_memory(start + page * PAGE, &mut [0]).is_ok();
            let (mut low, mut high) = (0, (end - start) / PAGE);
            while low < high {
                let middle = low + (high - low) / 2;
                if readable(middle) { low = middle + 1 } else { high = middle }
            }
            start + low * PAGE
        }
    }
}

/// Told of each run: from, to, and whether it is a guard region.
pub(crate) type Found<'f> = &'f mut dyn FnMut(u64, u64, bool) -> Result<()>;

/// Finds private pages that have contents, and guard regions.
pub(crate) struct Scanner {
    pagemap: Owned,
    /// Whether to try `PAGEMAP_SCAN` (Linux 6.7) still.
    ioctl: bool,
    /// [`PAGE_IS_GUARD`] where the kernel tells of guard regions (Linux 6.15), else 0.
    guards: u64,
}

impl Scanner {
    /// Of a process of this directory in `/proc`.
    ///
    /// # Errors
    /// Its page map cannot be opened.
    pub(crate) fn open(proc: Fd) -> Result<Self> {
        Ok(Self { pagemap: pagemap(proc)?, ioctl: true, guards: PAGE_IS_GUARD })
    }

    /// Calls `f` for each run of private pages with contents, and each guard region, ascending.
    pub(crate) fn scan(&mut self, start: u64, end: u64, f: Found<'_>) -> Result<()> {
        if self.ioctl {
            match self.scan_by_ioctl(start, end, f) {
                Err(None) if self.guards != 0 => {
                    self.guards = 0;
                    return self.scan(start, end, f);
                }
                Err(None) => self.ioctl = false,
                Err(Some(e)) => return Err(e),
                Ok(()) => return Ok(()),
            }
        }
        self.scan_by_entries(start, end, f)
    }

    /// `Err(None)`: this kernel has no such request.
    fn scan_by_ioctl(&self, start: u64, end: u64, f: Found<'_>) -> Result<(), Option<Error>> {
        let mut regions = [PageRegion::default(); 512];
        let mut at = start;
        while at < end {
            let mut scan = PmScanArg {
                start: at,
                end,
                category_inverted: PAGE_IS_PFNZERO | PAGE_IS_FILE,
                category_mask: PAGE_IS_PFNZERO | PAGE_IS_FILE,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | self.guards,
                return_mask: PAGE_IS_PRESENT | self.guards,
                ..PmScanArg::default()
            };
            let count = match sys::memory::pagemap_scan(self.pagemap.fd(), &mut scan, &mut regions) {
                Ok(count) => count,
                Err(Errno::ENOTTY | Errno::EINVAL) if at == start => return Err(None),
                Err(e) => return Err(Some(Error::failed(format_args!("page map at {at:#x}"), "cannot be scanned", e))),
            };
            for region in regions.get(..count).unwrap_or_default() {
                f(region.start, region.end, region.categories & PAGE_IS_GUARD != 0).map_err(Some)?;
            }
            if scan.walk_end <= at {
                break;
            }
            at = scan.walk_end;
        }
        Ok(())
    }

    fn scan_by_entries(&self, start: u64, end: u64, f: Found<'_>) -> Result<()> {
        let mut entries = [0u8; 4096];
        let mut at = start;
        while at < end {
            let want = (((end - at) / PAGE) as usize * 8).min(entries.len());
            let bytes = entries.get_mut(..want).ok_or(Full)?;
            sys::fs::pread_exact(self.pagemap.fd(), bytes, at / PAGE * 8)
                .map_err(|e| Error::failed(format_args!("page map at {at:#x}"), "cannot be read", e))?;
            for entry in bytes.as_chunks::<8>().0 {
                let entry = u64::from_le_bytes(*entry);
                if entry & (PM_PRESENT | PM_SWAPPED) != 0 && entry & PM_FILE == 0 {
                    f(at, at + PAGE, false)?;
                }
                at += PAGE;
            }
        }
        Ok(())
    }
}
