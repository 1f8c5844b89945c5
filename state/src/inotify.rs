//! inotify instances: made again with their watches, under the same numbers. What they watch is found by its inode.

use image_format::record::inotify::{Inotify, InotifyWatch};
use image_format::writer::Full;
use image_format::{Checked, ExitCode, NoteType};
use sys::abi::{AT_FDCWD, O_DIRECTORY, O_NONBLOCK, O_PATH, PATH_MAX};
use sys::fs::{Fd, FileHandle, Lines};
use sys::text::{Text, cut, hex, words};
use zerocopy::FromZeros;

mod search;

use self::search::{FOUND, NOWHERE, Path, Search, Watched, mount_of};
use crate::descriptor::{Kind, OpenFile, each_fact};
use crate::{Error, ErrorKind, Object, Result, Save, Target, restart};

/// The greatest number of a watch that is carried: a restart counts up to it.
const WD_MAX: u32 = 1 << 16;

/// What a watch is on, as the kernel tells it (fs/notify/fdinfo.c):
/// `wd:1 ino:3c4a7 sdev:fe00000 mask:84000002 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a7c4…`; from the line behind
/// `inotify wd:`.
fn parse(value: &[u8]) -> Option<(Watched, FileHandle)> {
    let mut fields = words(value);
    let number = |value| hex(value).and_then(|n| u32::try_from(n).ok());
    let mut watched = Watched { wd: number(fields.next()?)?, ..Watched::new_zeroed() };
    let mut handle = FileHandle::default();
    for (key, value) in fields.filter_map(|field| cut(field, b':')) {
        match key {
            b"ino" => watched.ino = hex(value)?,
            b"sdev" => watched.dev = hex(value)?,
            b"mask" => watched.mask = number(value)?,
            b"fhandle-bytes" => handle.len = number(value)?,
            b"fhandle-type" => handle.kind = number(value)?,
            b"f_handle" => {
                for (byte, digits) in handle.bytes.iter_mut().zip(value.chunks(2)) {
                    *byte = hex(digits)? as u8;
                }
            }
            _ => {}
        }
    }
    Some((watched, handle))
}

/// The path of a watched inode by its handle, for who may; of one that has none any more nothing is in it.
fn by_handle(proc: Fd, watched: &Watched, handle: &FileHandle) -> Option<Path> {
    let mut buffer = [0; 1024];
    let mut lines = Lines::open_at(proc, c"mountinfo", &mut buffer).ok()?.pass_long();
    let mut nowhere = None;
    while let Some(line) = lines.next_line().ok()? {
        let Some((_, root)) = mount_of(line).filter(|(dev, _)| *dev == watched.dev) else { continue };
        let mut path = Path::new();
        path.push(root);
        let Ok(mount) = sys::fs::open(path.as_c_str(), O_DIRECTORY, 0) else { continue };
        let Ok(opened) = sys::fs::open_by_handle(mount.fd(), handle, O_PATH) else { continue };
        let link = Text::<32>::of(format_args!("/proc/self/fd/{}", opened.fd()));
        let mut name = [0; PATH_MAX];
        path.shorten(0);
        path.push(sys::fs::read_link_at(AT_FDCWD, link.as_c_str(), &mut name).ok()?);
        if watched.is_at(&path) {
            return Some(path);
        }
        // Through another mount it may have one.
        nowhere = Some(Path::new());
    }
    nowhere
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
    let watches = read(save, files)?;
    Search::of(save, watches).run(files)?;
    watches.sort_unstable_by_key(|one| (one.inotify, one.wd));
    for one in &*watches {
        if one.found != FOUND {
            let object =
                Object::descriptor(one.inotify, format_args!("inotify, watch {} on inode {}", one.wd, one.ino));
            let why = "leads to something whose path cannot be found within 2 seconds";
            save.target.blocked(Error::refused(object, why, "remove the watch, or let root save"))?;
        }
        let (inotify, wd, mask) = (one.inotify.into(), one.wd.into(), one.mask.into());
        save.notes.push(&InotifyWatch { inotify, wd, mask, reserved: 0.into(), path: one.path })?;
    }
    save.notes.end()?;
    Ok(())
}

/// All watches of all instances; where something is by its handle.
fn read<'b, T: Target>(save: &mut Save<'_, 'b, T>, files: &[OpenFile]) -> Result<&'b mut [Watched]> {
    let instances = || files.iter().filter(|f| f.is_first(Kind::Inotify));
    let mut count = 0;
    for file in instances() {
        each_fact(save.target.at(file.fd), |key, _| {
            count += usize::from(key == b"inotify wd");
            Ok(())
        })?;
    }
    let table = save.scratch.take::<Watched>(count)?;
    let mut used = 0;
    for file in instances() {
        let refuse = |why, remedy| Error::refused(Object::descriptor(file.fd, format_args!("inotify")), why, remedy);
        each_fact(save.target.at(file.fd), |key, value| {
            if key != b"inotify wd" {
                return Ok(());
            }
            let (mut watched, handle) =
                parse(value).ok_or_else(|| refuse("has an unreadable entry", "remove the watch"))?;
            if watched.wd > WD_MAX {
                return Err(refuse("has made more than 65536 watches, too many to be counted again", "open a new one"));
            }
            watched.inotify = file.id;
            if let Some(path) = by_handle(save.target.at(file.fd).0, &watched, &handle) {
                watched.found = if path.as_bytes().is_empty() { NOWHERE } else { FOUND };
                watched.path = save.notes.string(path.as_bytes())?;
            }
            *table.get_mut(used).ok_or(Full)? = watched;
            used += 1;
            Ok(())
        })?;
    }
    // Who only asks lets it run, and it may have removed one meanwhile.
    Ok(table.get_mut(..used).unwrap_or_default())
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
