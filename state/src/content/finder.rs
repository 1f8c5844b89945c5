//! Finding contents: the descriptors and the mappings of a process whose object has no name.
//!
//! Must never open again what the process itself has locked, when it is this process: closing it would give the locks up.

use image_format::record::content::{ContentKind, UNKNOWN};
use image_format::writer::Full;
use sys::Errno;
use sys::abi::{
    AT_EMPTY_PATH, F_GET_SEALS, HUGETLBFS_MAGIC, MQUEUE_MAGIC, O_ACCMODE, O_PATH, O_RDONLY, O_RDWR, O_WRONLY, S_IFMT,
    S_IFREG, Stat,
};
use sys::fs::Fd;
use sys::text::{Shown, Text, hex};

use super::DELETED;
use super::source::{self, View, kind_of, position, same};
use crate::descriptor::{Kind, OpenFile};
use crate::index::Index;
use crate::memory::{Head, shared};
use crate::target::{Save, Target};
use crate::{Error, Object, Result, WithFiles};

/// Most bytes of a file that is carried because it is mapped.
const SMALL: i64 = 64 << 10;

/// Most bytes of one file, and of all, that are carried because they are open: see [`WithFiles::Small`].
const OPEN_SMALL: i64 = 1 << 20;
const OPEN_ALL: i64 = 16 << 20;

/// What was found so far.
pub(super) struct Finder<'b> {
    pub(super) objects: &'b mut [source::Object],
    pub(super) index: Index<'b>,
    pub(super) count: usize,
    pub(super) views: &'b mut [View],
    pub(super) seen: usize,
    /// Regular files that are open, by inode.
    pub(super) open: Index<'b>,
}

/// Those of the files that are open on this one.
fn open_on<'f>(open: &Index<'_>, files: &'f [OpenFile], dev: u64, ino: u64) -> impl Iterator<Item = &'f OpenFile> {
    open.under(ino).filter_map(|at| files.get(at)).filter(move |f| (f.dev, f.ino) == (dev, ino))
}

impl Finder<'_> {
    fn known(&self) -> &[source::Object] {
        self.objects.get(..self.count).unwrap_or_default()
    }

    fn add<T: Target>(&mut self, save: &mut Save<'_, '_, T>, name: &[u8], stat: &Stat) -> Result<usize, Full> {
        let name = name.strip_suffix(DELETED).unwrap_or(name);
        let kind = kind_of(name);
        let key = name.strip_prefix(b"/SYSV").and_then(hex).unwrap_or(0) as u32;
        *self.objects.get_mut(self.count).ok_or(Full)? = source::Object {
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size as u64,
            mtime_sec: stat.mtime.sec,
            mtime_nsec: stat.mtime.nsec,
            kind: kind as u32,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            seals: 0,
            fd: -1,
            own: 0,
            key,
            made: 0,
            seen: 0,
            name: save.notes.string(name)?,
            name_sum: image_format::seal::sum(name),
            mappings: 0,
            written: 0,
            attached: 0,
        };
        self.index.put(stat.ino, self.count)?;
        self.count += 1;
        Ok(self.count - 1)
    }

    pub(super) fn descriptors<T: Target>(&mut self, save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
        for file in files.iter().filter(|f| f.is_first(Kind::Content)) {
            let (proc, number) = save.target.at(file.fd);
            let link = Text::<32>::of(format_args!("fd/{number}"));
            let known = same(self.known(), &self.index, file.dev, file.ino);
            let mut buffer = [0; 4097];
            let unnamed = |e| Error::failed(Object::bare(file.fd), "its name cannot be read", e);
            let name = sys::fs::read_link_at(proc, link.as_c_str(), &mut buffer).map_err(unnamed)?;
            let failed = |e| {
                let object = Object::descriptor(file.fd, format_args!("{}", Shown(name)));
                Error::failed(object, "its contents cannot be read", e)
            };
            let stat = sys::fs::stat_at(proc, link.as_c_str(), 0).map_err(failed)?;
            let index = match known {
                Some(index) => index,
                None => self.add(save, name, &stat)?,
            };
            let Some(object) = self.objects.get_mut(index).filter(|o| o.fd < 0) else { continue };
            let named = sys::fs::open_at(proc, link.as_c_str(), O_PATH, 0).map_err(failed)?;
            let refused = match sys::fs::file_system(named.fd()).map_err(failed)? {
                HUGETLBFS_MAGIC => {
                    Some(("is a file of huge pages, which cannot be carried", "use one without MFD_HUGETLB"))
                }
                MQUEUE_MAGIC => Some(("is a message queue, which cannot be carried", "close it before the save")),
                _ => None,
            };
            if let Some((why, remedy)) = refused {
                object.size = 0;
                let object = Object::descriptor(file.fd, format_args!("{}", Shown(name)));
                save.target.blocked(Error::refused(object, why, remedy))?;
                continue;
            }
            // In its own process a file that is closed takes the program's locks with it.
            let locked = T::IN_PROCESS && open_on(&self.open, files, file.dev, file.ino).any(|f| f.locked == 1);
            let opened =
                if locked { Err(Errno::EDEADLK) } else { sys::fs::open_at(proc, link.as_c_str(), O_RDONLY, 0) };
            (object.fd, object.own) = match opened {
                Ok(fd) => (fd.release(), 1),
                // Not another one of the same file: this one may still be found readable.
                Err(_) if file.flags & O_PATH != 0 || file.flags & O_ACCMODE == O_WRONLY => continue,
                Err(_) if T::IN_PROCESS => (file.fd as Fd, 0),
                Err(e) => (save.target.borrow(file.fd as Fd).map_err(|_| failed(e))?.release(), 2),
            };
            if object.kind == ContentKind::Memfd as u32 {
                object.seals = sys::fs::fcntl(object.fd, F_GET_SEALS, 0).map_err(failed)? as u32;
            }
        }
        Ok(())
    }

    /// Open files that have a name, if they are to be carried.
    pub(super) fn named<T: Target>(&mut self, save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
        let wanted = save.target.carries_files();
        let writes = |f: &OpenFile| f.flags & O_ACCMODE != O_RDONLY;
        let mut left = OPEN_ALL;
        for file in files.iter().filter(|f| f.is_first(Kind::Regular) && f.mode & S_IFMT == S_IFREG) {
            let written = || open_on(&self.open, files, file.dev, file.ino).any(|f| f.flags & O_PATH == 0 && writes(f));
            let known = || same(self.known(), &self.index, file.dev, file.ino).is_some();
            if wanted == WithFiles::None
                || file.flags & O_PATH != 0
                || wanted == WithFiles::Written && !written()
                || matches!(wanted, WithFiles::Small(but) if but.contains(&(file.dev, file.ino)))
                || known()
            {
                continue;
            }
            let mut path = Text::<4128>::new();
            path.push(save.notes.kept(file.path));
            // Files of /proc and /sys are the kernel's.
            if path.as_bytes().starts_with(b"/proc/") || path.as_bytes().starts_with(b"/sys/") {
                continue;
            }
            let (proc, number) = save.target.at(file.fd);
            let link = Text::<32>::of(format_args!("fd/{number}"));
            let failed = |e| {
                let object = Object::descriptor(file.fd, format_args!("regular file {}", Shown(path.as_bytes())));
                Error::failed(object, "its contents cannot be read (--with-files)", e)
            };
            let opened = match sys::fs::open_at(proc, link.as_c_str(), O_RDONLY, 0) {
                // Nobody has asked for it: it must be there at the restart.
                Err(Errno::EACCES) if matches!(wanted, WithFiles::Small(_)) => continue,
                opened => opened.map_err(failed)?,
            };
            let stat = sys::fs::stat_at(opened.fd(), c"", AT_EMPTY_PATH).map_err(failed)?;
            if let WithFiles::Small(_) = wanted {
                if stat.size > OPEN_SMALL.min(left) {
                    continue;
                }
                left -= stat.size;
            }
            let index = self.add(save, path.as_bytes(), &stat)?;
            if let Some(object) = self.objects.get_mut(index) {
                object.kind = ContentKind::Named as u32;
                (object.fd, object.own) = (opened.release(), 1);
            }
        }
        shared::each_of_all(save, |save, head| {
            let named = head.name.starts_with(b"/") && !head.name.ends_with(DELETED);
            if named && head.perms.get(1) == Some(&b'w') { self.mapped(save, files, head) } else { Ok(()) }
        })
    }

    /// A file with a name that a process writes to by a mapping: carried if all such are, or if it lies in memory, which no boot
    /// outlives; or if it is small and not open, too: somebody may take it for a leftover while the process is not there, as Java does with
    /// its counters of other processes.
    fn mapped<T: Target>(&mut self, save: &mut Save<'_, '_, T>, files: &[OpenFile], head: &Head<'_>) -> Result<()> {
        let failed = |e| {
            let object = format_args!("mapping {:x}-{:x} of file {}", head.start, head.end, Shown(head.name));
            Error::failed(object, "cannot be examined", e)
        };
        // Where it has no such name here it must be there at the restart.
        let Some(stat) = sys::fs::found(sys::fs::stat_path(head.name)).map_err(failed)? else { return Ok(()) };
        let is_it = |now: &Stat| (now.dev, now.ino) == (stat.dev, stat.ino);
        let known = same(self.known(), &self.index, stat.dev, stat.ino).is_some();
        let in_memory = crate::shared_file::is_in_memory(head.name);
        // Of those that are open the others are known by now; to close one here could give up locks.
        let is_open = || open_on(&self.open, files, stat.dev, stat.ino).next().is_some();
        let open = (T::IN_PROCESS || !in_memory) && is_open();
        let asked = matches!(save.target.carries_files(), WithFiles::Written | WithFiles::All);
        let wanted = asked || stat.size <= SMALL || in_memory;
        if known || open || !wanted || stat.ino != head.ino || stat.mode & S_IFMT != S_IFREG {
            return Ok(());
        }
        // Who may not read it now has mapped it before: it must be there, then.
        let opened = sys::fs::found(sys::fs::open_path(head.name, O_RDONLY, 0)).map_err(failed)?;
        let Some(opened) = opened else { return Ok(()) };
        let now = sys::fs::fstat(opened.fd()).map_err(failed)?;
        if is_it(&now) {
            let stat = now;
            let index = self.add(save, head.name, &stat)?;
            if let Some(object) = self.objects.get_mut(index) {
                object.kind = ContentKind::Named as u32;
                (object.fd, object.own) = (opened.release(), 1);
            }
        }
        Ok(())
    }

    pub(super) fn mappings<T: Target>(&mut self, save: &mut Save<'_, '_, T>) -> Result<()> {
        shared::each_of_all(save, |save, head| {
            let gone = head.name.ends_with(DELETED) && !head.name.starts_with(b"/anon_hugepage");
            if gone { self.mapping(save, head) } else { Ok(()) }
        })?;
        for index in 0..self.count {
            if self.known().get(index).is_none_or(|o| o.kind != ContentKind::SysV as u32) {
                continue;
            }
            let attached = self.attached(index);
            if let Some(object) = self.objects.get_mut(index) {
                object.attached = attached;
                crate::sysv::check(save.target, object)?;
            }
        }
        let unread = |o: &&source::Object| o.fd < 0 && o.size != 0 && o.seen == 0;
        if let Some(object) = self.known().iter().find(unread) {
            let object = format_args!("file {}", Shown(save.notes.kept(object.name)));
            let why = "was deleted, and the process has it open for writing alone";
            let error = Error::refused(object, why, "open it for reading, too, or save by the pid as root");
            save.target.blocked(error)?;
        }
        Ok(())
    }

    /// Bytes of each attachment of a segment, when all are alike: their parts have the same beginning.
    fn attached(&self, index: usize) -> u64 {
        let views = || self.views.iter().take(self.seen).filter(|v| v.object == index as u64);
        let beginning = |v: &View| v.addr.wrapping_sub(v.offset);
        let total = |one: &View| views().filter(|v| beginning(v) == beginning(one)).map(|v| v.len).sum();
        let first: u64 = views().next().map_or(0, total);
        if views().all(|v| total(v) == first) { first } else { 0 }
    }

    /// A mapping of an object: one that is known, or else opened as root, or read where it lies.
    fn mapping<T: Target>(&mut self, save: &mut Save<'_, '_, T>, head: &Head<'_>) -> Result<()> {
        let index = match position(self.known(), &self.index, head.dev, head.ino, head.name) {
            Some(index) => index,
            None => {
                let mode = S_IFREG | 0o600;
                let (uid, gid) = (UNKNOWN, UNKNOWN);
                let stat = Stat { dev: head.dev, ino: head.ino, mode, uid, gid, ..Stat::default() };
                self.add(save, head.name, &stat)?
            }
        };
        let Some(object) = self.objects.get_mut(index) else { return Ok(()) };
        object.mappings += 1;
        object.written |= u64::from(head.perms.get(1) == Some(&b'w'));
        if object.fd >= 0 {
            return Ok(());
        }
        let link = Text::<64>::of(format_args!("map_files/{:x}-{:x}", head.start, head.end));
        let failed = |e| {
            let object = format_args!("mapping {:x}-{:x} of file {}", head.start, head.end, Shown(head.name));
            Error::failed(object, "cannot be examined", e)
        };
        // Who may not open it, reads it where it lies.
        let opened = sys::fs::open_at(save.target.proc(), link.as_c_str(), O_RDONLY, 0);
        // What the last page holds behind the end is part of a segment, and seen in memory alone.
        if object.kind != ContentKind::SysV as u32
            && let Some(file) = sys::fs::found(opened).map_err(failed)?
        {
            let stat = sys::fs::stat_at(file.fd(), c"", AT_EMPTY_PATH).map_err(failed)?;
            let flags = if head.perms.get(1) == Some(&b'w') { O_RDWR } else { O_RDONLY };
            let named = stat.nlink != 0 && !crate::regular::is_below(flags, file.fd());
            if named && object.kind == ContentKind::Deleted as u32 {
                let object = format_args!("mapping {:x}-{:x} of file {}", head.start, head.end, Shown(head.name));
                let (why, remedy) =
                    ("was deleted, but still has another name", "map it by that name, or delete that, too");
                return save.target.blocked(Error::refused(object, why, remedy));
            }
            (object.size, object.mode) = (stat.size as u64, stat.mode);
            (object.uid, object.gid) = (stat.uid, stat.gid);
            (object.mtime_sec, object.mtime_nsec) = (stat.mtime.sec, stat.mtime.nsec);
            (object.fd, object.own) = (file.release(), 1);
            return Ok(());
        }
        let view = View {
            object: index as u64,
            offset: head.offset,
            len: head.end - head.start,
            addr: save.target.address(head.start),
        };
        object.seen = 1;
        *self.views.get_mut(self.seen).ok_or(Full)? = view;
        self.seen += 1;
        Ok(())
    }
}
