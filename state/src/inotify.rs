//! inotify instances: made again with their watches, under the same numbers. What they watch is found by its inode.

use image_format::record::inotify::{Inotify, InotifyWatch};
use image_format::writer::Full;
use image_format::{Checked, ExitCode, NoteType};
use sys::abi::{AT_FDCWD, O_DIRECTORY, O_NONBLOCK, O_PATH, PATH_MAX, S_IFDIR, S_IFMT, Stat};
use sys::fs::{Fd, FileHandle, Lines};
use sys::text::{Text, cut, decimal, hex, words};
use zerocopy::FromZeros;

use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::{Error, ErrorKind, Object, Result, Save, Target, restart};

/// The greatest number of a watch that is carried: a restart counts up to it.
const WD_MAX: u32 = 1 << 16;

/// Names that are looked at for one watch.
const SEARCH_MAX: usize = 20_000;

/// A path under construction.
type Path = Text<PATH_MAX>;

/// What a watch is on, as the kernel tells it (fs/notify/fdinfo.c):
/// `wd:1 ino:3c4a7 sdev:fe00000 mask:84000002 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a7c4…`.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    wd: u32,
    mask: u32,
    ino: u64,
    dev: u64,
    handle: FileHandle,
}

impl Watched {
    /// From the line behind `inotify wd:`.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = words(value);
        let mut watched = Self { wd: u32::try_from(hex(fields.next()?)?).ok()?, ..Self::default() };
        for (key, value) in fields.filter_map(|field| cut(field, b':')) {
            let number = hex(value).unwrap_or(0);
            match key {
                b"ino" => watched.ino = number,
                b"sdev" => watched.dev = number,
                b"mask" => watched.mask = number as u32,
                b"fhandle-bytes" => watched.handle.len = number as u32,
                b"fhandle-type" => watched.handle.kind = number as u32,
                b"f_handle" => {
                    for (byte, digits) in watched.handle.bytes.iter_mut().zip(value.chunks(2)) {
                        *byte = hex(digits)? as u8;
                    }
                }
                _ => {}
            }
        }
        Some(watched)
    }

    /// Whether this is it. The kernel's own form of a device number is not stat(2)'s.
    fn is(&self, stat: &Stat) -> bool {
        let (major, minor) = (stat.dev >> 8 & 0xfff, stat.dev & 0xff | stat.dev >> 12 & 0xfff00);
        (stat.ino, major << 20 | minor) == (self.ino, self.dev)
    }

    fn is_at(&self, path: &Path) -> bool {
        !path.is_cut() && sys::fs::stat_at(AT_FDCWD, path.as_c_str(), 0).is_ok_and(|stat| self.is(&stat))
    }

    /// By its handle, for who may.
    fn by_handle(&self, proc: Fd) -> Option<Path> {
        let mut buffer = [0; 1024];
        let mut lines = Lines::open_at(proc, c"mountinfo", &mut buffer).ok()?.pass_long();
        while let Some(line) = lines.next_line().ok()? {
            let mut fields = words(line);
            let Some((major, minor)) = fields.nth(2).and_then(|f| cut(f, b':')) else { continue };
            if decimal(major)? << 20 | decimal(minor)? != self.dev {
                continue;
            }
            let mut root = Path::new();
            root.push(fields.nth(1)?);
            let Ok(mount) = sys::fs::open(root.as_c_str(), O_DIRECTORY, 0) else { continue };
            let Ok(opened) = sys::fs::open_by_handle(mount.fd(), &self.handle, O_PATH) else { continue };
            let link = Text::<32>::of(format_args!("/proc/self/fd/{}", opened.fd()));
            let mut name = [0; PATH_MAX];
            let mut path = Path::new();
            path.push(sys::fs::read_link_at(AT_FDCWD, link.as_c_str(), &mut name).ok()?);
            if self.is_at(&path) {
                return Some(path);
            }
        }
        None
    }

    /// In a directory and, so deep, in those inside it.
    fn below(&self, dir: &Path, depth: u32, budget: &mut usize) -> Option<Path> {
        let open = sys::fs::open(dir.as_c_str(), O_DIRECTORY, 0).ok()?;
        let mut found = None;
        let _ = sys::fs::for_each_name(open.fd(), |name| {
            let mut path = *dir;
            path.push(if dir.as_bytes() == b"/" { b"" } else { b"/" });
            path.push(name);
            *budget = budget.checked_sub(1).ok_or(())?;
            let stat = sys::fs::stat_at(AT_FDCWD, path.as_c_str(), sys::abi::AT_SYMLINK_NOFOLLOW);
            let Ok(stat) = stat.as_ref().map_err(|_| ()) else { return Ok(()) };
            if self.is(stat) {
                found = Some(path);
            } else if depth > 0 && stat.mode & S_IFMT == S_IFDIR {
                found = self.below(&path, depth - 1, budget);
            }
            if found.is_some() { Err(()) } else { Ok(()) }
        });
        found
    }

    /// At a path that is known, in its directories, and beside it.
    fn near(&self, path: &[u8], mut depth: u32, budget: &mut usize) -> Option<Path> {
        let mut rest = path;
        loop {
            let mut path = Path::new();
            path.push(if rest.is_empty() { b"/" } else { rest });
            if self.is_at(&path) {
                return Some(path);
            }
            if let Some(found) = self.below(&path, depth, budget) {
                return Some(found);
            }
            depth = 0;
            let parent = rest.iter().rposition(|b| *b == b'/')?;
            rest = rest.get(..parent)?;
        }
    }

    /// Beside a file whose code is mapped: the executable of a restarted program may be the stub.
    fn beside_code(&self, proc: Fd, budget: &mut usize) -> Option<Path> {
        let mut buffer = [0; 1024];
        let mut lines = Lines::open_at(proc, c"maps", &mut buffer).ok()?.pass_long();
        while let Some(line) = lines.next_line().ok()? {
            let code = words(line).nth(1).is_some_and(|permissions| permissions.get(2) == Some(&b'x'));
            let name = line.iter().position(|byte| *byte == b'/').and_then(|at| line.get(at..));
            if let Some(found) = name.filter(|_| code).and_then(|name| self.near(name, 0, budget)) {
                return Some(found);
            }
        }
        None
    }

    fn find<T: Target>(&self, save: &Save<'_, '_, T>, files: &[OpenFile]) -> Option<Path> {
        let mut budget = SEARCH_MAX;
        let mut name = [0; PATH_MAX];
        if let Some(found) = self.by_handle(save.target.proc()) {
            return Some(found);
        }
        for (link, depth) in [(c"cwd", 2), (c"exe", 0)] {
            let path = sys::fs::read_link_at(save.target.proc(), link, &mut name).unwrap_or_default();
            if let Some(found) = self.near(path, depth, &mut budget) {
                return Some(found);
            }
        }
        if let Some(found) = self.beside_code(save.target.proc(), &mut budget) {
            return Some(found);
        }
        let mut named = files.iter().filter(|f| f.named != 0 && f.id == f.fd);
        named.find_map(|file| self.near(save.notes.kept(file.path), 0, &mut budget))
    }
}

/// Writes both tables.
///
/// # Errors
/// Events that wait; a watch on something that has no path any more, or none that can be found.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.each(files, Kind::Inotify, |_, file| Ok(Inotify { id: file.id.into(), flags: file.flags.into() }))?;
    save.notes.begin(NoteType::InotifyWatch)?;
    // All are asked first: the search for one's paths may be news to another.
    for file in files.iter().filter(|f| f.is_first(Kind::Inotify)) {
        let failed = |e| Error::failed(Object::descriptor(file.fd, format_args!("inotify")), "cannot be examined", e);
        let own = save.target.borrow(file.fd as Fd).map_err(failed)?;
        if sys::fs::waiting(own.fd()).map_err(failed)? != 0 {
            let object = Object::descriptor(file.fd, format_args!("inotify"));
            let why = "has events waiting, which cannot be carried";
            return Err(Error::refused(object, why, "let the program read them").kind(ErrorKind::EventsWait));
        }
    }
    for file in files.iter().filter(|f| f.is_first(Kind::Inotify)) {
        let refuse = |why, remedy| Error::refused(Object::descriptor(file.fd, format_args!("inotify")), why, remedy);
        let (at, mut count) = (save.target.at(file.fd), 0);
        each_fact(at, |key, _| {
            count += usize::from(key == b"inotify wd");
            Ok(())
        })?;
        let table = save.scratch.take::<InotifyWatch>(count)?;
        let mut rest = &mut *table;
        each_fact(at, |key, value| {
            if key != b"inotify wd" {
                return Ok(());
            }
            let watched = Watched::parse(value).ok_or_else(|| refuse("has an unreadable entry", "remove the watch"))?;
            if watched.wd > WD_MAX {
                return Err(refuse("has made more than 65536 watches, too many to be counted again", "open a new one"));
            }
            let Some(path) = watched.find(save, files) else {
                return Err(Error::refused(
                    Object::descriptor(file.fd, format_args!("inotify, watch {} on inode {}", watched.wd, watched.ino)),
                    "leads to something whose path cannot be found",
                    "remove the watch, or let root save",
                ));
            };
            let (first, others) = core::mem::take(&mut rest).split_first_mut().ok_or(Full)?;
            let path = save.notes.string(path.as_bytes())?;
            *first = InotifyWatch {
                inotify: file.id.into(),
                wd: watched.wd.into(),
                mask: watched.mask.into(),
                path,
                ..InotifyWatch::new_zeroed()
            };
            rest = others;
            Ok(())
        })?;
        table.sort_unstable_by_key(|watch| watch.wd.get());
        for watch in table {
            save.notes.push(watch)?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// Makes it, with its watches.
///
/// # Errors
/// What is watched is not there, or this user may not watch it, or no more of them.
pub fn restore(image: &Checked<'_>, inotify: &Inotify) -> restart::Result<sys::Result<Fd>> {
    let made = match sys::fs::inotify(O_NONBLOCK) {
        Ok(made) => made.release(),
        Err(e) => return Ok(Err(e)),
    };
    for watch in image.each::<InotifyWatch>().with(inotify.id.get()) {
        let path = image.string(watch.path);
        let mut text = Path::new();
        text.push(path);
        // Numbers only ever rise: those in between are used up.
        loop {
            let wd = sys::fs::watch(made, text.as_c_str(), watch.mask.get()).map_err(|e| {
                restart::Error::descriptor(
                    ExitCode::FileMissing,
                    inotify.id.get(),
                    "inotify of @",
                    path,
                    e,
                    ["cannot be watched", ""],
                )
            })?;
            if wd as u32 >= watch.wd.get() {
                break;
            }
            let _ = sys::fs::unwatch(made, wd);
        }
    }
    // What that has told.
    let mut buffer = [0; 4096];
    while sys::fs::read(made, &mut buffer).is_ok_and(|n| n > 0) {}
    Ok(Ok(made))
}
