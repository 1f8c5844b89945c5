//! Where contents are found and how they are read: by a descriptor, else through the memory in which they are mapped.
//!
//! Must never move an offset of the program's, nor close a file in its own process on which it holds locks.

use image_format::PAGE;
use image_format::align_up;
use image_format::record::StrRef;
use image_format::record::content::ContentKind;
use image_format::record::header::Features;
use sys::{Errno, Sysno};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DELETED;
use super::finder::Finder;
use crate::Result;
use crate::descriptor::{Kind, OpenFile};
use crate::index::Index;
use crate::inside::Arg;
use crate::memory::shared;
use crate::target::{Save, Target};

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
    pub uid: u32,
    pub gid: u32,
    pub seals: u32,
    /// Where it is read, in this process; -1: through memory.
    pub fd: i32,
    /// 0: that is the program's own; 1: the saver's; 2: the saver's, but it shares its offset with the program.
    pub own: u32,
    /// System V's key.
    pub key: u32,
    /// 1: what memfd_create(2) itself has opened is among its descriptors, as far as can be told.
    pub made: u32,
    /// 1: a part of it is seen in memory.
    pub seen: u32,
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
    /// By inode.
    index: Index<'b>,
    views: &'b mut [View],
    /// io_uring instances: their inodes and ids.
    rings: &'b [[u64; 2]],
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        for object in self.objects.iter().filter(|o| o.own != 0) {
            // SAFETY: opened for this object alone.
            unsafe { sys::fs::close(object.fd) };
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
        let mut mappings = 0;
        shared::each_of_all(save, |_, _| {
            mappings += 1;
            Ok(())
        })?;
        let kinds = [Kind::Content as u32, Kind::Regular as u32];
        let regular = || files.iter().enumerate().filter(|(_, file)| kinds.contains(&file.kind));
        let most = mappings + regular().filter(|(_, file)| file.id == file.fd).count();
        let mut open = Index::new(&mut save.scratch, if most == 0 { 0 } else { files.len() })?;
        for (place, file) in regular() {
            open.put(file.ino, place)?;
        }
        let mut found = Finder {
            objects: save.scratch.take(most)?,
            index: Index::new(&mut save.scratch, most)?,
            count: 0,
            views: save.scratch.take(mappings)?,
            seen: 0,
            open,
        };
        let result =
            found.descriptors(save, files).and_then(|()| found.mappings(save)).and_then(|()| found.named(save, files));
        let Finder { objects, index, count, views, seen, .. } = found;
        let rings = || files.iter().filter(|file| file.is_first(Kind::IoUring));
        let table = save.scratch.take::<[u64; 2]>(rings().count())?;
        table.iter_mut().zip(rings()).for_each(|(place, file)| *place = [file.ino, file.id.into()]);
        let contents = Self {
            objects: objects.get_mut(..count).unwrap_or_default(),
            index,
            views: views.get_mut(..seen).unwrap_or_default(),
            rings: table,
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

    /// The first object of this inode for which `is_it` holds.
    fn of(&self, ino: u64, is_it: impl Fn(&Object) -> bool) -> Option<usize> {
        first(self.objects, &self.index, ino, is_it)
    }

    /// io_uring instances: their inodes and ids.
    #[must_use]
    pub fn rings(&self) -> &[[u64; 2]] {
        self.rings
    }

    /// The id of the io_uring instance with this inode; `None` for several, before Linux 5.12.
    #[must_use]
    pub fn ring(&self, ino: u64) -> Option<u32> {
        let mut found = self.rings.iter().filter(|[own, _]| *own == ino).map(|[_, id]| *id as u32);
        found.next().filter(|_| found.next().is_none())
    }

    /// The index of an object.
    #[must_use]
    pub fn id(&self, dev: u64, ino: u64) -> Option<u32> {
        self.of(ino, |o| o.dev == dev).map(|i| i as u32)
    }

    /// A file with a name that is carried.
    #[must_use]
    pub fn named(&self, dev: u64, ino: u64) -> Option<&Object> {
        let found = self.of(ino, |o| o.kind == ContentKind::Named as u32 && o.dev == dev);
        found.and_then(|index| self.objects.get(index))
    }

    /// The same of a mapping, whatever has become of the name since the pause: the process may go on by now.
    #[must_use]
    pub fn named_behind(&self, dev: u64, ino: u64, name: &[u8]) -> Option<&Object> {
        let sum = || image_format::seal::sum(name.strip_suffix(DELETED).unwrap_or(name));
        let same = |o: &Object| o.kind == ContentKind::Named as u32 && (o.dev == dev || o.name_sum == sum());
        self.of(ino, same).and_then(|index| self.objects.get(index))
    }

    /// The object behind a mapping, which some file systems give another device than its descriptors.
    #[must_use]
    pub fn find(&self, dev: u64, ino: u64, name: &[u8]) -> Option<&Object> {
        position(self.objects, &self.index, dev, ino, name).and_then(|i| self.objects.get(i))
    }

    /// The parts of an object that lie in memory: these are in order.
    fn views_of(&self, index: usize) -> &[View] {
        let (from, to) =
            [index as u64, index as u64 + 1].map(|one| self.views.partition_point(|v| v.object < one)).into();
        self.views.get(from..to).unwrap_or_default()
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
        for view in self.views_of(index) {
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
                let views = self.views_of(index);
                let view = views.get(views.partition_point(|v| v.offset + v.len <= at)).filter(|v| v.offset <= at);
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
        let copy = sys::process::memfd(c"ckpt", 0)?;
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
            // SAFETY: opened for this object alone.
            unsafe { sys::fs::close(object.fd) };
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
    // SAFETY: fills a byte for each page, for which there is room.
    if (to.len() as u64) < pages || unsafe { target.call(Sysno::mincore, args, to) }.is_err() {
        to.fill(1);
    }
}

/// The first object of this inode for which `is_it` holds.
fn first(objects: &[Object], index: &Index<'_>, ino: u64, is_it: impl Fn(&Object) -> bool) -> Option<usize> {
    // The last ones come first.
    let holds = |place: &usize| objects.get(*place).is_some_and(|o| o.ino == ino && is_it(o));
    index.under(ino).filter(holds).last()
}

/// The object with this identity.
pub(super) fn same(objects: &[Object], index: &Index<'_>, dev: u64, ino: u64) -> Option<usize> {
    first(objects, index, ino, |o| o.dev == dev)
}

/// The object with this identity; or a deleted file of this inode and name, as some file systems give mappings another device than
/// descriptors. Never by the inode's number alone: every file system counts from one.
pub(super) fn position(objects: &[Object], index: &Index<'_>, dev: u64, ino: u64, name: &[u8]) -> Option<usize> {
    let sum = || image_format::seal::sum(name.strip_suffix(DELETED).unwrap_or(name));
    let by_name = |o: &Object| o.kind == ContentKind::Deleted as u32 && o.name_sum == sum();
    same(objects, index, dev, ino).or_else(|| first(objects, index, ino, by_name))
}
