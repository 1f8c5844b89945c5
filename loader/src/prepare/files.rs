//! The files behind mappings: the original where it is still the same, the image's copy else.

use image_format::record::memory::{Backing, BackingFlags, Vma, VmaFlags, VmaKind};
use image_format::{Checked, ExitCode, PAGE};
use loader::options::Options;
use state::regular::{Change, compare};
use state::{Error, FilesPolicy, Result};
use sys::abi::{O_RDONLY, O_RDWR};
use sys::fs::{Fd, Owned};
use sys::packed;

use super::Input;

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

/// Opens the file of each backing that is still what it was.
///
/// # Errors
/// A file mapped shared is missing or has changed: its contents are not in the image.
pub fn open_backings(image: &Checked<'_>, input: &Input, options: &Options<'_>, files: &mut Files) -> Result<()> {
    let exe = image.string(image.single::<image_format::record::mm::Mm>().exe);
    let vmas = image.table::<Vma>();
    for (backing, (index, slot)) in image.each::<Backing>().zip(files.backings.iter_mut().enumerate()) {
        let users = || vmas.iter().filter(move |v| v.backing.get() as usize == index);
        let shared = users().find(|v| {
            let along = v.flags.get() & VmaFlags::READ_ALONG.bits() != 0;
            // The file that was mapped is shared again, or says that it was written; its copy is for where it is not.
            v.kind.get() == VmaKind::FileShared as u32 || along && is_same(image, backing)
        });
        let fd = match shared {
            _ if backing.flags.get() & BackingFlags::CONTENT.bits() != 0 => {
                let made = files.contents.get(backing.content.get() as usize).copied().unwrap_or(-1);
                let failed = |e| Error::about(packed!("shared contents: cannot be opened (!)"), 0u32, b"", e);
                // A System V segment is attached, not mapped.
                if cfg!(feature = "tree") && made < -1 {
                    made
                } else {
                    state::content::open_again(made, mode(backing)).map_err(failed)?.release()
                }
            }
            Some(vma) => open_shared(image, backing, vma, options.files)?,
            None => open_private(image, backing, users(), input).map_or(-1, Owned::release),
        };
        if fd >= 0 && image.string(backing.path) == exe {
            files.exe = fd;
        }
        *slot = fd;
    }
    Ok(())
}

/// Whether the path leads to the very file.
fn is_same(image: &Checked<'_>, backing: &Backing) -> bool {
    let then = (backing.identity.dev.get(), backing.identity.ino.get());
    sys::fs::stat_path(image.string(backing.path)).is_ok_and(|now| (now.dev, now.ino) == then)
}

/// How a mapped file must be open.
fn mode(backing: &Backing) -> u32 {
    if backing.flags.get() & BackingFlags::WRITTEN.bits() != 0 { O_RDWR } else { O_RDONLY }
}

fn open_shared(image: &Checked<'_>, backing: &Backing, vma: &Vma, policy: FilesPolicy) -> Result<Fd> {
    let (start, path) = (vma.start.get(), image.string(backing.path));
    let failed = |code, why, e| {
        Error::about(packed!("mapping * of file @"), start, path, e)
            .code(code)
            .why(why)
            .hint(packed!("put the file back"))
    };
    let written = mode(backing) == O_RDWR;
    let file = sys::fs::open_path(path, mode(backing), 0)
        .map_err(|e| failed(ExitCode::FileMissing, packed!("cannot be opened"), e))?;
    let stat =
        sys::fs::fstat(file.fd()).map_err(|e| failed(ExitCode::FileMissing, packed!("cannot be examined"), e))?;
    match compare(&backing.identity, &stat, written) {
        _ if policy == FilesPolicy::Ignore => {}
        Change::None => {}
        Change::Shrank => {
            return Err(failed(
                ExitCode::FileShrank,
                packed!("is shorter than it was at the save"),
                sys::Errno::ESTALE,
            ));
        }
        // A longer file does not disturb what is mapped of it; rollback cuts it when it is open, too.
        Change::Grown if policy == FilesPolicy::Rollback => {}
        Change::Grown | Change::Replaced => {
            return Err(failed(
                ExitCode::FileChanged,
                packed!("was written or replaced since the save"),
                sys::Errno::ESTALE,
            ));
        }
    }
    Ok(file.release())
}

/// The file, when size and time are what they were and its first page is the one in the image (which holds the
/// build id of an ELF file).
#[inline(never)] // For its buffers.
fn open_private<'v>(
    image: &Checked<'_>,
    backing: &Backing,
    mut users: impl Iterator<Item = &'v Vma>,
    input: &Input,
) -> Option<Owned> {
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
    if let Some(first) = users.find(|v| v.offset.get() == 0) {
        let mut segments = image.segments();
        if let Some(segment) = segments.find(|s| s.addr == first.start.get() && s.file_bytes) {
            let (mut then, mut now) = ([0; PAGE as usize], [0; PAGE as usize]);
            sys::fs::pread_exact(input.file.fd(), &mut then, input.base + segment.offset).ok()?;
            sys::fs::pread(file.fd(), &mut now, 0).ok()?;
            if then != now {
                return None;
            }
        }
    }
    Some(file)
}
