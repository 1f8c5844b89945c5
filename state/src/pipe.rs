//! Pipes and FIFOs. Those that lead outside: at restart the program gets what the restart itself has under that number, and a FIFO is
//! opened by its name. Those inside the process are made again, with what they hold.
//!
//! A pipe lies inside when both of its sides are open here, or when nobody has the other one. Whether another process
//! holds the same ends too is not asked: after a restart it has the old pipe, and this process a new one.

mod contents;
mod restore;

use image_format::NoteType;
use image_format::record::pipe::{HUNG_UP, NONE, OPENED, Pipe};
use sys::Errno;
use sys::abi::{O_ACCMODE, O_LARGEFILE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};
use sys::fs::Fd;
use sys::text::{Shown, Text};

use crate::descriptor::{Kind, OpenFile};
use crate::{Error, Object, Result, Save, Target, content, regular};

pub use restore::{OUTSIDE, is_inner, is_there, led_outside, restore, restore_all};

fn mode(file: &OpenFile) -> u32 {
    file.flags & O_ACCMODE
}

fn failed(file: &OpenFile) -> impl Fn(Errno) -> Error {
    let (fd, ino) = (file.fd, file.ino);
    move |e| Error::failed(Object::descriptor(fd, format_args!("pipe:[{ino}]")), "cannot be looked into", e)
}

/// Whether a FIFO can be opened by its name again. One whose name is gone is a pipe without a name.
///
/// # Errors
/// Another file has its name, or it has another one.
pub fn check(proc: Fd, file: &mut OpenFile, path: &[u8]) -> Result<()> {
    let same = |stat: sys::abi::Stat| (stat.dev, stat.ino) == (file.dev, file.ino);
    let (why, remedy) = match sys::fs::stat_path(path) {
        _ if file.named == 0 => return Ok(()),
        Ok(stat) if same(stat) => return Ok(()),
        // Somebody else may open it again.
        Err(Errno::EACCES) if file.nlink != 0 => return Ok(()),
        _ if file.nlink == 0 => {
            file.named = 0;
            return Ok(());
        }
        _ if regular::stat_inside(proc, path).is_ok_and(same) => {
            ("lies in mounts of the process's own", crate::cwd::FROM_INSIDE)
        }
        _ if path.ends_with(content::DELETED) => {
            ("was deleted, but still has another name", "open it by that name, or delete that, too")
        }
        _ => ("cannot be found under its name, which something else has", "close it before the save"),
    };
    Err(Error::refused(Object::descriptor(file.fd, format_args!("FIFO {}", Shown(path))), why, remedy))
}

/// Finds which ends are of one pipe, and the pipes that lie inside.
///
/// # Errors
/// A pipe that cannot be looked at; no room.
pub fn pair<T: Target>(save: &mut Save<'_, '_, T>, files: &mut [OpenFile]) -> Result<()> {
    let order = save.scratch.take::<u32>(files.iter().filter(|f| f.is_first(Kind::Pipe)).count())?;
    let indices = (0..).zip(&*files).filter(|(_, file)| file.is_first(Kind::Pipe)).map(|(index, _)| index);
    order.iter_mut().zip(indices).for_each(|(place, index)| *place = index);
    let identity = |files: &[OpenFile], index: u32| files.get(index as usize).map(|file| (file.dev, file.ino));
    order.sort_unstable_by_key(|index| (identity(files, *index), *index));
    // The root's standard input, output and error are the restart's own.
    let mut standard = [None; 3];
    for (place, file) in standard.iter_mut().zip(files.iter().filter(|f| f.place() == 0 && f.number() <= 2)) {
        *place = Some((file.dev, file.ino));
    }
    let mut rest = &*order;
    while let Some(own) = rest.first().map(|first| identity(files, *first)) {
        let (pipe, others) = rest.split_at(rest.iter().take_while(|index| identity(files, **index) == own).count());
        rest = others;
        link(files, pipe);
        let standard = standard.contains(&own);
        if is_inside(save.target, files, pipe, standard)? {
            for index in pipe {
                files.get_mut(*index as usize).into_iter().for_each(|end| end.kind = Kind::InnerPipe as u32);
            }
        }
    }
    for index in 0..files.len() {
        let (known, rest) = files.split_at_mut(index);
        let Some(twin) = rest.first_mut().filter(|f| f.id != f.fd && f.kind == Kind::Pipe as u32) else { continue };
        twin.kind = crate::descriptor::first_of(known, twin.id).map_or(twin.kind, |first| first.kind);
    }
    Ok(())
}

/// Tells each end of a pipe, given by ascending indices, the first one and the next one, and how it came about.
fn link(files: &mut [OpenFile], pipe: &[u32]) {
    let id = |files: &[OpenFile], index: Option<&u32>| {
        index.and_then(|index| files.get(*index as usize)).map_or(NONE, |file| file.id)
    };
    let (first, mut made) = (id(files, pipe.first()), [false; 2]);
    for (place, index) in pipe.iter().enumerate() {
        let next = id(files, pipe.get(place + 1));
        let Some(end) = files.get_mut(*index as usize) else { continue };
        (end.pipe, end.next) = (first, next);
        // What pipe(2) has made bears no `O_LARGEFILE`, in contrast to what open(2) has opened.
        let other = made.get_mut(mode(end) as usize).filter(|made| !**made && end.flags & O_LARGEFILE == 0);
        match other {
            Some(made) => *made = true,
            None => end.how |= OPENED,
        }
    }
}

/// Whether a pipe lies inside, by its ends; `standard`: one of them is the root's standard input, output or error.
fn is_inside<T: Target>(target: &T, files: &mut [OpenFile], pipe: &[u32], standard: bool) -> Result<bool> {
    let ends = || pipe.iter().filter_map(|index| files.get(*index as usize));
    let has = |wanted: u32| ends().any(|end| mode(end) == wanted);
    if has(O_RDWR) || has(O_RDONLY) && has(O_WRONLY) {
        return Ok(true);
    }
    let Some(first) = ends().next().copied().filter(|_| target.shows_descriptors()) else { return Ok(false) };
    let mut hung = false;
    for index in pipe {
        let Some(end) = files.get_mut(*index as usize) else { continue };
        let own = target.borrow(end.fd as Fd).map_err(failed(end))?;
        // Of a FIFO: one that was opened while its other side had no end sees no hang-up.
        if sys::fs::hung_up(own.fd()).map_err(failed(end))? {
            (end.how, hung) = (end.how | HUNG_UP, true);
        }
    }
    let own = target.borrow(first.fd as Fd).map_err(failed(&first))?;
    let left = mode(&first) == O_RDONLY && sys::fs::waiting(own.fd()).map_err(failed(&first))? != 0;
    if first.named != 0 {
        return Ok(hung || left);
    }
    // Standard ends are the restart's own also when their other side is gone by now: but not what a writer that has ended has
    // left in one, which nobody else will ever read.
    Ok((hung || is_quiet(target, &first)) && (left || !standard))
}

/// Whether nobody writes into a FIFO whose name is gone, although its reader was not told so.
fn is_quiet<T: Target>(target: &T, end: &OpenFile) -> bool {
    if mode(end) != O_RDONLY || end.nlink != 0 {
        return false;
    }
    let (proc, number) = target.at(end.fd);
    let link = Text::<32>::of(format_args!("fd/{number}"));
    let Ok(own) = sys::fs::open_at(proc, link.as_c_str(), O_RDONLY | O_NONBLOCK, 0) else { return false };
    // The end of the file, and not that nothing is there yet. What waits would be taken out.
    sys::fs::waiting(own.fd()).is_ok_and(|waits| waits != 0) || sys::fs::read(own.fd(), &mut [0]) == Ok(0)
}

/// Whether it is an end, of a pipe inside that has no name, which was opened by way of another end (`/dev/fd/N`), as shells do.
#[must_use]
pub fn is_again(file: &OpenFile) -> bool {
    file.is_first(Kind::InnerPipe) && file.named == 0 && file.how & OPENED != 0
}

/// Writes both tables.
///
/// # Errors
/// Contents that cannot be read or told apart; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::Pipe)?;
    for file in files.iter().filter(|f| f.is_first(Kind::Pipe) || f.is_first(Kind::InnerPipe)) {
        save.notes.push(&Pipe {
            id: file.id.into(),
            flags: file.flags.into(),
            path: file.path,
            pipe: file.pipe.into(),
            next: file.next.into(),
            named: u32::from(file.named != 0).into(),
            how: file.how.into(),
        })?;
    }
    save.notes.end()?;
    save.notes.begin(NoteType::PipeData)?;
    for first in files.iter().filter(|f| f.is_first(Kind::InnerPipe) && f.pipe == f.id) {
        contents::save(save, files, first)?;
    }
    save.notes.end()?;
    Ok(())
}
