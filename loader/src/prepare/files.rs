//! The files behind mappings: the original where it is still the same, the image's copy else.

use image_format::record::descriptor::Descriptor;
use image_format::record::memory::{Backing, BackingFlags, Vma, VmaFlags, VmaKind};
use image_format::{Checked, ExitCode, PAGE};
use loader::options::Options;
use state::memory::reopened::{mapped_mode, open_shared};
use state::regular::{Change, compare};
use state::restart::{Error, Result};
use sys::abi::{O_RDONLY, O_RDWR};
use sys::fs::{Fd, Owned};

use super::{Input, input};
use crate::heap;

/// What was opened.
#[derive(Debug, Default)]
pub struct Files {
    /// For each backing its descriptor, or -1: take the copy.
    pub backings: &'static mut [Fd],
    /// For each of the program's descriptors the one that is to take its place.
    pub descriptors: &'static mut [Fd],
    /// For each of the contents without a named file the file that was made.
    pub contents: &'static mut [Fd],
    /// The executable's descriptor, or -1.
    pub exe: Fd,
}

/// Opens the file of each backing that is still what it was; what takes a place of the program's as `base` or a greater number.
///
/// # Errors
/// A file mapped shared is missing or has changed: its contents are not in the image.
pub fn open_backings(
    image: &Checked<'_>,
    input: &Input,
    options: &Options<'_>,
    base: Fd,
    files: &mut Files,
) -> Result<()> {
    let exe = image.string(image.single::<image_format::record::mm::Mm>().exe);
    let vmas = image.table::<Vma>();
    let users = users(image, files.backings.len())?;
    for (index, (backing, users)) in image.table::<Backing>().iter().zip(&*users).enumerate() {
        let [shared, along, begins] = users.map(|place| place.checked_sub(1).and_then(|at| vmas.get(at as usize)));
        // The file that was mapped is shared again, or says that it was written; its copy is for where it is not.
        let shared = shared.or(along.filter(|_| is_same(image, backing)));
        let fd = match shared {
            _ if backing.flags.get() & BackingFlags::RING.bits() != 0 => {
                let id = backing.content.get();
                let made = state::io_uring::restore(image, id, base)?;
                for (descriptor, place) in image.table::<Descriptor>().iter().zip(&mut *files.descriptors) {
                    if descriptor.file == id {
                        *place = made;
                    }
                }
                made
            }
            _ if backing.flags.get() & BackingFlags::CONTENT.bits() != 0 => {
                let made = files.contents.get(backing.content.get() as usize).copied().unwrap_or(-1);
                let failed = |e| Error::about(ExitCode::NoRoom, "shared contents: cannot be opened (!)", 0u32, b"", e);
                // A System V segment is attached, not mapped. What is open for writing is mapped as it is: one number less, and none
                // that keeps a memfd from being executed.
                if made < -1 || mapped_mode(backing) == O_RDWR {
                    made
                } else {
                    state::content::open_again(made, mapped_mode(backing)).map_err(failed)?.release()
                }
            }
            Some(vma) => open_shared(image, backing, vma, options.files)?.release(),
            None => open_private(image, backing, begins, input).map_or(-1, Owned::release),
        };
        if fd >= 0 && image.string(backing.path) == exe {
            files.exe = fd;
        }
        if let Some(slot) = files.backings.get_mut(index) {
            *slot = fd;
        }
    }
    Ok(())
}

/// For each file the first of its mappings that is shared, that is shared where it is the very file, and that begins with the file's first
/// page: their places, plus one.
fn users(image: &Checked<'_>, count: usize) -> Result<&'static mut [[u32; 3]]> {
    let users = heap::list(count, [0; 3])?;
    for (place, vma) in (1..).zip(image.each::<Vma>()) {
        let Some(own) = users.get_mut(vma.backing.get() as usize) else { continue };
        let is = [
            vma.kind.get() == VmaKind::FileShared as u32,
            vma.flags.get() & VmaFlags::READ_ALONG.bits() != 0,
            vma.offset.get() == 0,
        ];
        for (first, _) in own.iter_mut().zip(is).filter(|(first, is)| **first == 0 && *is) {
            *first = place;
        }
    }
    Ok(users)
}

/// Whether the path leads to the very file.
fn is_same(image: &Checked<'_>, backing: &Backing) -> bool {
    let then = (backing.identity.dev.get(), backing.identity.ino.get());
    sys::fs::stat_path(image.string(backing.path)).is_ok_and(|now| (now.dev, now.ino) == then)
}

/// The file, when size and time are what they were and its first page is the one in the image (which holds the
/// build id of an ELF file).
#[inline(never)] // For its buffers.
fn open_private(image: &Checked<'_>, backing: &Backing, begins: Option<&Vma>, input: &Input) -> Option<Owned> {
    if backing.flags.get() & BackingFlags::GONE.bits() != 0 {
        return None;
    }
    let file = sys::fs::open_path(image.string(backing.path), O_RDONLY, 0).ok()?;
    let stat = sys::fs::fstat(file.fd()).ok()?;
    if stat.size as u64 != backing.identity.size.get() || compare(&backing.identity, &stat, false) != Change::None {
        return None;
    }
    // What the program executes of it is in the image.
    if sys::fs::is_noexec(file.fd()) {
        return None;
    }
    let segment = begins.and_then(|first| image.segments().at(first.start.get()));
    if let Some(segment) = segment.filter(|segment| segment.file_bytes) {
        let (mut then, mut now) = ([0; PAGE as usize], [0; PAGE as usize]);
        input::pread(input.file, &mut then, segment.place(input.base)).ok()?;
        sys::fs::pread(file.fd(), &mut now, 0).ok()?;
        if then != now {
            return None;
        }
    }
    Some(file)
}
