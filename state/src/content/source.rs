//! Where contents are found and how they are read: by a descriptor, else through the memory in which they are mapped.
//!
//! Must never move an offset of the program's, nor close a file in its own process on which it holds locks.

use image_format::PAGE;
use image_format::align_up;
use image_format::record::StrRef;
use image_format::record::content::ContentKind;
use image_format::record::header::Features;
use sys::fs::Owned;
use sys::{Errno, Sysno};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DELETED;
use super::finder::Finder;
use crate::Result;
use crate::descriptor::OpenFile;
use crate::target::{Arg, Save, Target};

/// Most objects, and most mappings of such that no descriptor leads to.
const OBJECTS_MAX: usize = 1024;
const VIEWS_MAX: usize = 4096;

/// One object, of whatever kind.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs, reason = "stat(2)'s own names")]
pub struct Object {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    pub mtime_sec: i64,
    pub mtime_nsec: i64,
    /// [`ContentKind`].
    pub kind: u32,
    pub mode: u32,
    pub seals: u32,
    /// Where it is read, in this process; -1: through memory.
    pub fd: i32,
    /// 0: that is the program's own; 1: the saver's; 2: the saver's, but it shares its offset with the program.
    pub own: u32,
    /// System V's key.
    pub key: u32,
    pub name: StrRef,
    /// Checksum of the name: whether two names are the same is asked where no strings are at hand.
    pub name_sum: u64,
    /// Shared mappings of it.
    pub mappings: u64,
    /// 1: one of them can be written to.
    pub written: u64,
    /// Bytes of each attachment of a System V segment; 0 when they differ.
    pub attached: u64,
}

/// A part of an object that lies in memory; those of one object ascend and are disjoint.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct View {
    pub(super) object: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) addr: u64,
}

/// All objects of a process.
#[derive(Debug)]
pub struct Contents<'b> {
    objects: &'b mut [Object],
    views: &'b mut [View],
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        for object in self.objects.iter().filter(|o| o.own != 0) {
            sys::fs::close(object.fd);
        }
    }
}

pub(crate) fn kind_of(name: &[u8]) -> ContentKind {
    match name {
        name if name.starts_with(b"/memfd:") => ContentKind::Memfd,
        name if name.starts_with(b"/dev/zero") => ContentKind::Anonymous,
        name if name.starts_with(b"/SYSV") => ContentKind::SysV,
        _ => ContentKind::Deleted,
    }
}

impl<'b> Contents<'b> {
    /// Finds all objects of the process that stands still, and opens them where it can.
    ///
    /// # Errors
    /// One that cannot be read, or is of huge pages; no room.
    pub fn collect<T: Target>(save: &mut Save<'_, 'b, T>, files: &[OpenFile]) -> Result<Self> {
        let mut found = Finder { objects: &mut [], count: 0, views: &mut [], seen: 0 };
        found.objects = save.scratch.take(OBJECTS_MAX)?;
        found.views = save.scratch.take(VIEWS_MAX)?;
        let result =
            found.descriptors(save, files).and_then(|()| found.mappings(save)).and_then(|()| found.named(save, files));
        let Finder { objects, count, views, seen } = found;
        let contents = Self {
            objects: objects.get_mut(..count).unwrap_or_default(),
            views: views.get_mut(..seen).unwrap_or_default(),
        };
        // What was opened is closed also when something failed.
        result.map(|()| contents.arranged(save.target))
    }

    /// Views in order, without overlaps; sizes of what only memory tells.
    fn arranged<T: Target>(mut self, target: &T) -> Self {
        self.views.sort_unstable_by_key(|v| (v.object, v.offset, u64::MAX - v.len));
        let mut last = (u64::MAX, 0u64);
        for view in &mut *self.views {
            if last.0 != view.object {
                last = (view.object, 0);
            }
            let skip = last.1.saturating_sub(view.offset).min(view.len);
            (view.offset, view.addr, view.len) = (view.offset + skip, view.addr + skip, view.len - skip);
            // Behind the end of a file reading fails; other memory is as long as it was made.
            let kind = self.objects.get(view.object as usize).map_or(0, |o| o.kind);
            let endless = kind == ContentKind::Anonymous as u32 || kind == ContentKind::SysV as u32;
            let readable = |page: u64| target.read_memory(view.addr + page * PAGE, &mut [0]).is_ok();
            let (mut low, mut high) = (0, view.len / PAGE);
            if endless || high == 0 || readable(high - 1) {
                low = high;
            }
            while low < high {
                let middle = low.midpoint(high);
                if readable(middle) { low = middle + 1 } else { high = middle }
            }
            view.len = low * PAGE;
            last.1 = last.1.max(view.offset + view.len);
            if let Some(object) = self.objects.get_mut(view.object as usize).filter(|_| view.len != 0) {
                object.size = object.size.max(view.offset + view.len);
            }
        }
        // What another view holds already has no length by now, and would lead a search astray.
        let views = core::mem::take(&mut self.views);
        let mut count = 0;
        for index in 0..views.len() {
            if views.get(index).is_some_and(|view| view.len != 0) {
                views.swap(count, index);
                count += 1;
            }
        }
        self.views = views.get_mut(..count).unwrap_or_default();
        self
    }

    /// The objects.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        self.objects
    }

    /// What a reader must know because of them.
    #[must_use]
    pub fn features(&self) -> Features {
        let named = self.objects.iter().any(|o| o.kind == ContentKind::Named as u32);
        let all = if named { Features::CONTENTS | Features::CARRIED_FILES } else { Features::CONTENTS };
        if self.objects.is_empty() { Features::empty() } else { all }
    }

    /// The index of an object.
    #[must_use]
    pub fn id(&self, dev: u64, ino: u64) -> Option<u32> {
        self.objects.iter().position(|o| (o.dev, o.ino) == (dev, ino)).map(|i| i as u32)
    }

    /// A file with a name that is carried.
    #[must_use]
    pub fn named(&self, dev: u64, ino: u64) -> Option<&Object> {
        self.objects.iter().find(|o| o.kind == ContentKind::Named as u32 && (o.dev, o.ino) == (dev, ino))
    }

    /// The same of a mapping, whatever has become of the name since the pause: the process may go on by now.
    #[must_use]
    pub fn named_behind(&self, dev: u64, ino: u64, name: &[u8]) -> Option<&Object> {
        let name_sum = image_format::seal::sum(name.strip_suffix(DELETED).unwrap_or(name));
        let same = |o: &&Object| o.ino == ino && (o.dev == dev || o.name_sum == name_sum);
        self.objects.iter().filter(|o| o.kind == ContentKind::Named as u32).find(same)
    }

    /// The object behind a mapping, which some file systems give another device than its descriptors.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64, name: &[u8]) -> Option<&Object> {
        position(self.objects, dev, ino, name).and_then(|i| self.objects.get(i))
    }

    /// Calls `f` for each stretch of an object that is not all zero for sure: from, to; page-aligned, ascending.
    ///
    /// # Errors
    /// It cannot be looked at, or what `f` returns.
    pub fn each_part<T: Target>(
        &self,
        target: &mut T,
        index: usize,
        f: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let Some(object) = self.objects.get(index) else { return Ok(()) };
        let size = align_up(object.size, PAGE);
        if object.fd >= 0 && object.own != 1 {
            return f(0, size);
        }
        if object.fd >= 0 {
            let mut at = 0;
            while at < size {
                match sys::fs::extent(object.fd, at) {
                    Ok(Some((from, to))) => {
                        let (from, to) = ((from & !(PAGE - 1)).max(at), align_up(to, PAGE).min(size));
                        f(from, to)?;
                        at = to.max(at + PAGE);
                    }
                    Ok(None) => break,
                    Err(_) => return f(at, size),
                }
            }
            return Ok(());
        }
        let disk = object.kind == ContentKind::Deleted as u32;
        let all = disk || swaps();
        for view in self.views.iter().filter(|v| v.object == index as u64) {
            let mut at = 0;
            while at < view.len {
                let mut there = [1; 1024];
                let pages = ((view.len - at) / PAGE).min(there.len() as u64);
                if !all {
                    resident(target, view.addr + at, pages, &mut there);
                }
                let mut from = 0;
                for run in there.get(..pages as usize).unwrap_or_default().chunk_by(|a, b| a & 1 == b & 1) {
                    let to = from + run.len() as u64 * PAGE;
                    if run.first().is_some_and(|page| page & 1 != 0) {
                        f(view.offset + at + from, view.offset + at + to)?;
                    }
                    from = to;
                }
                at += pages * PAGE;
            }
        }
        Ok(())
    }

    /// Reads a part of an object; zeros behind its end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read<T: Target>(&self, target: &T, index: usize, mut at: u64, mut to: &mut [u8]) -> sys::Result<()> {
        let object = self.objects.get(index).ok_or(Errno::EBADF)?;
        while !to.is_empty() {
            let n = if object.fd >= 0 {
                sys::fs::pread(object.fd, to, at)?
            } else {
                let view = self.views.partition_point(|v| (v.object, v.offset + v.len) <= (index as u64, at));
                let view = self.views.get(view).filter(|v| v.object == index as u64 && v.offset <= at);
                let view = view.ok_or(Errno::EIO)?;
                let len = to.len().min((view.offset + view.len - at) as usize);
                target.read_memory(view.addr + (at - view.offset), to.get_mut(..len).ok_or(Errno::EIO)?)?;
                len
            };
            if n == 0 {
                to.fill(0);
                break;
            }
            to = to.get_mut(n..).ok_or(Errno::EIO)?;
            at += n as u64;
        }
        Ok(())
    }

    /// Keeps an object as it is now: from here on a copy is read, which is the saver's own. `parts`: what [`Self::each_part`]
    /// has told.
    ///
    /// # Errors
    /// No memory, or it cannot be read.
    pub fn keep<T: Target>(
        &mut self,
        target: &T,
        index: usize,
        parts: impl Iterator<Item = (u64, u64)>,
    ) -> sys::Result<()> {
        let copy = Owned::new(sys::process::memfd(c"ckpt", 0)?);
        let mut buffer = [0; 32 << 10];
        for (mut at, end) in parts {
            while at < end {
                let len = (end - at).min(buffer.len() as u64) as usize;
                let piece = buffer.get_mut(..len).ok_or(Errno::EIO)?;
                self.read(target, index, at, piece)?;
                sys::fs::pwrite_all(copy.fd(), piece, at)?;
                at += len as u64;
            }
        }
        let object = self.objects.get_mut(index).ok_or(Errno::EBADF)?;
        if object.own != 0 {
            sys::fs::close(object.fd);
        }
        (object.fd, object.own) = (copy.release(), 1);
        Ok(())
    }
}

/// Whether pages of shared memory may lie in swap space, where mincore(2) does not see them.
fn swaps() -> bool {
    let mut text = [0; 512];
    let text = sys::fs::read_file_at(sys::abi::AT_FDCWD, c"/proc/swaps", &mut text).unwrap_or(b"\n\n");
    text.iter().filter(|b| **b == b'\n').count() > 1
}

/// Which pages have contents, of shared memory that is no file on a disk; all, when the kernel does not tell.
pub(crate) fn resident<T: Target>(target: &mut T, addr: u64, pages: u64, to: &mut [u8]) {
    let zero = Arg::Value(0);
    let args = [Arg::Value(addr as usize), Arg::Value((pages * PAGE) as usize), Arg::Data(0), zero, zero, zero];
    if target.call(Sysno::mincore, args, to).is_err() {
        to.fill(1);
    }
}

/// The object with this identity; or a deleted file of this inode and name, as some file systems give mappings another device than
/// descriptors. Never by the inode's number alone: every file system counts from one.
pub(super) fn position(objects: &[Object], dev: u64, ino: u64, name: &[u8]) -> Option<usize> {
    let sum = || image_format::seal::sum(name.strip_suffix(DELETED).unwrap_or(name));
    let same = |o: &Object| o.ino == ino && o.kind == ContentKind::Deleted as u32 && o.name_sum == sum();
    objects.iter().position(|o| (o.dev, o.ino) == (dev, ino)).or_else(|| objects.iter().position(same))
}
