//! Where a watched inode has a name: looked for near what is known of the process, and then everywhere in the inode's file system.
//!
//! Must never take a name for the inode's without having asked for both: the kernel tells device and number of either. Must open no directory
//! whose opening a watch tells of.

use core::ops::Range;

use image_format::record::StrRef;
use sys::Errno;
use sys::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, CLOCK_MONOTONIC, O_DIRECTORY, PATH_MAX, S_IFDIR, S_IFMT, Stat};
use sys::fs::{Entry, Lines};
use sys::text::{Text, cut, decimal, words};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Result, Save, Target};

/// How long the whole search may take: the process stands still meanwhile.
pub(super) const SECONDS: u64 = 2;

/// Levels that are looked through before all else: few directories lie so high.
const DEPTH_FIRST: u32 = 5;

/// How deep: each level takes some room on the stack.
const DEPTH_MAX: u32 = 16;

/// `IN_ACCESS`, `IN_CLOSE_NOWRITE`, `IN_OPEN`.
const OPENS: u32 = 0x31;

/// `d_type` of a directory, and where the file system does not tell.
const DIRECTORY: u8 = 4;
const UNKNOWN: u8 = 0;

/// A path under construction.
pub(super) type Path = Text<PATH_MAX>;

/// In [`Watched::found`]: its path is known.
pub(super) const FOUND: u32 = 1;
/// It has none any more.
pub(super) const NOWHERE: u32 = 2;

/// A watch, and where its inode has a name.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Watched {
    pub ino: u64,
    /// In the kernel's own form, which is not that of stat(2).
    pub dev: u64,
    pub inotify: u32,
    pub wd: u32,
    pub mask: u32,
    /// [`FOUND`], [`NOWHERE`], or 0: that is not known.
    pub found: u32,
    pub path: StrRef,
}

/// The device in the kernel's own form.
fn device(stat: &Stat) -> u64 {
    let (major, minor) = (stat.dev >> 8 & 0xfff, stat.dev & 0xff | stat.dev >> 12 & 0xfff00);
    major << 20 | minor
}

impl Watched {
    fn is(&self, stat: &Stat) -> bool {
        (stat.ino, device(stat)) == (self.ino, self.dev)
    }

    /// Whether it tells of the inode's being opened.
    fn tells_opening(&self) -> bool {
        self.mask & OPENS != 0
    }

    /// Whether this path leads to it.
    pub fn is_at(&self, path: &Path) -> bool {
        !path.is_cut() && sys::fs::stat_at(AT_FDCWD, path.as_c_str(), 0).is_ok_and(|stat| self.is(&stat))
    }
}

/// A search for all of them, which ascend by inode.
pub(super) struct Search<'s, 't, 'b, T> {
    save: &'s mut Save<'t, 'b, T>,
    wanted: &'s mut [Watched],
    left: usize,
    /// Some tell of an inode's being opened.
    tells_opening: bool,
    path: Path,
    /// When it ends, on the monotonic clock.
    end: u64,
    /// Of the file system that is searched; 0: any.
    dev: u64,
    /// There were directories below those that were listed.
    goes_deeper: bool,
}

impl<'s, 't, 'b, T: Target> Search<'s, 't, 'b, T> {
    pub fn of(save: &'s mut Save<'t, 'b, T>, wanted: &'s mut [Watched]) -> Self {
        let left = wanted.iter().filter(|one| one.found == 0).count();
        let end = sys::time::nanoseconds(CLOCK_MONOTONIC).saturating_add(SECONDS * 1_000_000_000);
        wanted.sort_unstable_by_key(|one| one.ino);
        let tells_opening = wanted.iter().any(Watched::tells_opening);
        Self { save, wanted, left, tells_opening, path: Path::new(), end, dev: 0, goes_deeper: false }
    }

    /// Looks for all, until its time is over.
    ///
    /// # Errors
    /// The process, or the list of its mounts, cannot be asked.
    pub fn run(mut self, files: &[OpenFile]) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let searched = (|| {
            self.near(files)?;
            self.everywhere(0..DEPTH_FIRST)?;
            self.beside(files)?;
            self.everywhere(DEPTH_FIRST..DEPTH_MAX)
        })();
        match searched {
            // All are found, or there was no time for more.
            Err(Errno::ECANCELED | Errno::ETIMEDOUT) | Ok(()) => Ok(()),
            Err(e) => Err(Error::failed(format_args!("paths of inotify watches"), "cannot be searched for", e)),
        }
    }

    /// In the working directories of those that watch, and beside their executables.
    fn near(&mut self, files: &[OpenFile]) -> sys::Result<()> {
        let mut name = [0; PATH_MAX];
        for file in files.iter().filter(|file| file.is_first(Kind::Inotify)) {
            let proc = self.save.target.at(file.fd).0;
            for (link, depth) in [(c"cwd", 2), (c"exe", 0)] {
                // Who has none has no directory there.
                if let Ok(path) = sys::fs::read_link_at(proc, link, &mut name) {
                    self.around(path, depth)?;
                }
            }
        }
        Ok(())
    }

    /// Beside open files.
    fn beside(&mut self, files: &[OpenFile]) -> sys::Result<()> {
        let (mut last, mut name) = (Path::new(), Path::new());
        for file in files.iter().filter(|f| f.named != 0 && f.id == f.fd) {
            name.shorten(0);
            name.push(self.save.notes.kept(file.path));
            let folder = name.as_bytes().rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
            if folder != last.as_bytes() {
                last.shorten(0);
                last.push(folder);
                self.around(folder, 0)?;
            }
        }
        Ok(())
    }

    /// At a path, in its directories, and beside it.
    fn around(&mut self, path: &[u8], mut depth: u32) -> sys::Result<()> {
        let mut rest = path;
        loop {
            self.go(rest)?;
            self.list(depth)?;
            depth = 0;
            let Some(parent) = rest.iter().rposition(|byte| *byte == b'/') else { return Ok(()) };
            rest = rest.get(..parent).unwrap_or_default();
        }
    }

    /// Takes a path, and looks at it.
    fn go(&mut self, path: &[u8]) -> sys::Result<()> {
        self.path = Path::new();
        self.path.push(if path.is_empty() { b"/" } else { path });
        self.look()
    }

    /// In all mounts of the file systems on which the inodes lie, level by level.
    fn everywhere(&mut self, depths: Range<u32>) -> sys::Result<()> {
        for depth in depths {
            let mut buffer = [0; 1024];
            let mut lines = Lines::open_at(self.save.target.proc(), c"mountinfo", &mut buffer)?.pass_long();
            self.goes_deeper = false;
            while let Some(line) = lines.next_line()? {
                let Some((dev, root)) = mount_of(line) else { continue };
                if self.wanted.iter().any(|one| one.found == 0 && one.dev == dev) {
                    self.dev = dev;
                    self.go(root)?;
                    self.list(depth)?;
                }
            }
            self.dev = 0;
            if !self.goes_deeper {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Those on an inode of this number.
    fn on(&self, ino: u64) -> Range<usize> {
        let begin = self.wanted.partition_point(|one| one.ino < ino);
        begin..begin + self.wanted.iter().skip(begin).take_while(|one| one.ino == ino).count()
    }

    /// Whether some of them are where the path leads.
    fn look(&mut self) -> sys::Result<()> {
        if self.path.is_cut() {
            return Ok(());
        }
        let Ok(stat) = sys::fs::stat_at(AT_FDCWD, self.path.as_c_str(), 0) else { return Ok(()) };
        let on = self.on(stat.ino);
        let found = self.wanted.get_mut(on).unwrap_or_default().iter_mut();
        for one in found.filter(|one| one.found == 0 && one.is(&stat)) {
            one.path = self.save.notes.string(self.path.as_bytes()).map_err(|_| Errno::ENOMEM)?;
            one.found = FOUND;
            self.left -= 1;
        }
        if self.left == 0 { Err(Errno::ECANCELED) } else { Ok(()) }
    }

    /// Whether the directory at the path can be opened and read without a watch's telling of that: one of its own, or of what it lies in.
    fn is_silent(&self) -> bool {
        let told = |stat: &Stat| {
            let mut on = self.wanted.get(self.on(stat.ino)).unwrap_or_default().iter();
            on.any(|one| one.tells_opening() && one.is(stat))
        };
        let mut parent = self.path;
        parent.push(b"/..");
        [&self.path, &parent]
            .iter()
            .all(|path| !path.is_cut() && sys::fs::stat_at(AT_FDCWD, path.as_c_str(), 0).is_ok_and(|stat| !told(&stat)))
    }

    /// Looks at what is in the directory at the path and, so deep, in those inside it.
    fn list(&mut self, depth: u32) -> sys::Result<()> {
        if self.tells_opening && !self.is_silent() {
            return Ok(());
        }
        if sys::time::nanoseconds(CLOCK_MONOTONIC) > self.end {
            return Err(Errno::ETIMEDOUT);
        }
        // What cannot be opened is passed over: it is not there any more, or another user's.
        let Ok(dir) = sys::fs::open(self.path.as_c_str(), O_DIRECTORY, 0) else { return Ok(()) };
        if self.dev != 0 && !sys::fs::fstat(dir.fd()).is_ok_and(|stat| device(&stat) == self.dev) {
            return Ok(());
        }
        let len = self.path.as_bytes().len();
        let mut ends = Ok(());
        // So is what is removed while it is read.
        let _ = sys::fs::for_each_entry(dir.fd(), |entry| {
            ends = self.enter(entry, depth);
            self.path.shorten(len);
            ends
        });
        ends
    }

    fn enter(&mut self, entry: &Entry<'_>, depth: u32) -> sys::Result<()> {
        let is_wanted = !self.on(entry.ino).is_empty();
        if !is_wanted && entry.kind != DIRECTORY && entry.kind != UNKNOWN {
            return Ok(());
        }
        if self.path.as_bytes() != b"/" {
            self.path.push(b"/");
        }
        self.path.push(entry.name);
        if is_wanted {
            self.look()?;
        }
        let is_directory = || {
            let stat = sys::fs::stat_at(AT_FDCWD, self.path.as_c_str(), AT_SYMLINK_NOFOLLOW);
            entry.kind == DIRECTORY || stat.is_ok_and(|stat| stat.mode & S_IFMT == S_IFDIR)
        };
        if self.path.is_cut() || !is_directory() {
            return Ok(());
        }
        if depth == 0 {
            self.goes_deeper = true;
            return Ok(());
        }
        self.list(depth - 1)
    }
}

/// The device of a line of `mountinfo`, in the kernel's own form, and where it is mounted.
pub fn mount_of(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = words(line);
    let (major, minor) = fields.nth(2).and_then(|field| cut(field, b':'))?;
    Some((decimal(major)? << 20 | decimal(minor)?, fields.nth(1)?))
}
