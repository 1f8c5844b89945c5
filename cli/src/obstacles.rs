//! Files of an image that stand in the way of its restart, all of them at once: gone, shorter, changed, or not to be had.
//!
//! Asks the objects what the restart asks them, so that both say the same. Must never write or make anything, nor wait.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use image_format::checked::Renames;
use image_format::record::content::{Content, ContentFile, ContentKind};
use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::io_uring::IoUring;
use image_format::record::memory::{Backing, BackingFlags, Vma, VmaFlags, VmaKind};
use image_format::record::pipe::Pipe;
use image_format::record::process::FD_MASK;
use image_format::record::regular::Regular;
use image_format::record::shared_file::SharedFile;
use image_format::record::terminal::Terminal;
use image_format::{Checked, ExitCode, OpenFile, PAGE, SEGMENT_MAX, align_up};
use state::FilesPolicy;
use state::restart::{self, Error};

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::stub::{Files, Options};

/// What stands in the way of a restart with these options: a code and a line each. `images` are those of all processes, the root's last, which
/// has the descriptors of all.
pub fn files(images: &[ImageFile], options: &Options) -> Result<Vec<(ExitCode, String)>, Failure> {
    let mut found = Vec::new();
    for (place, file) in images.iter().enumerate() {
        of_one(file, options, place + 1 == images.len(), &mut found)?;
    }
    Ok(found)
}

fn of_one(
    file: &ImageFile,
    options: &Options,
    is_root: bool,
    found: &mut Vec<(ExitCode, String)>,
) -> Result<(), Failure> {
    let checked = file.checked()?;
    let pairs: Vec<_> = options.map_path.iter().map(|pair| split(pair.as_bytes())).collect();
    // Paths of the image that are another's here live until this command ends.
    let renames = Renames { pairs: &pairs, room: |len| Box::leak(vec![0; len].into_boxed_slice()) };
    let image = Checked::new(checked.image).map_err(|fault| file.fault(fault))?.renamed(renames);
    let policy = match options.files {
        None | Some(Files::Verify) => FilesPolicy::Verify,
        Some(Files::Rollback) => FilesPolicy::Rollback,
        Some(Files::Ignore) => FilesPolicy::Ignore,
    };
    let mut note = |error: Error| found.push((error.exit_code(), crate::text::plain(error.line().as_bytes())));
    let numbers: HashSet<u64> =
        options.fd.iter().filter_map(|one| split(one.as_bytes())).filter_map(|(n, _)| sys::text::decimal(n)).collect();
    let number = |descriptor: &Descriptor| descriptor.fd.get() & FD_MASK;
    let is_given = |descriptor: &&Descriptor| numbers.contains(&number(descriptor).into());
    // Descriptors of one open file share what any of them is given; each file is looked at once.
    let mut done: HashSet<u32> = image.each::<Descriptor>().filter(is_given).map(|one| one.file.get()).collect();
    for descriptor in image.each::<Descriptor>().filter(|_| is_root) {
        let id = descriptor.file.get();
        if let Some(open) = image.open_file(id).filter(|_| done.insert(id)) {
            one(&image, open, number(descriptor), policy).err().into_iter().for_each(&mut note);
        }
    }
    mapped(&image, policy, &mut note);
    for ring in image.each::<IoUring>().filter(|_| is_root) {
        state::io_uring::check(ring).err().into_iter().for_each(&mut note);
    }
    let carried = |path: &[u8]| policy == FilesPolicy::Rollback && state::content::is_carried(&image, path);
    if policy != FilesPolicy::Ignore {
        // Room for the largest piece, which is a part of a segment.
        let room = image
            .each::<SharedFile>()
            .map(|one| align_up(one.len.get().into(), PAGE))
            .max()
            .unwrap_or(0)
            .min(SEGMENT_MAX);
        let shared = state::shared_file::check(&image, &mut vec![0; room as usize], carried);
        shared.err().into_iter().for_each(&mut note);
    }
    Ok(())
}

/// The two sides of an equals sign.
fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..at)?, pair.get(at + 1..)?))
}

/// Whether the image has a file of this name.
fn has(image: &Checked<'_>, path: &[u8]) -> bool {
    let named = |content: &&Content| content.kind.get() == ContentKind::Named as u32;
    image.each::<Content>().filter(named).any(|content| image.string(content.name) == path)
}

/// One open file.
fn one(image: &Checked<'_>, file: OpenFile<'_>, fd: u32, policy: FilesPolicy) -> restart::Result<()> {
    if let Some(file) = file.of::<Regular>() {
        let path = image.string(file.path);
        // What the image has is made again.
        let comes_back = sys::fs::lstat_path(path).is_err() && has(image, path);
        return if comes_back { Ok(()) } else { state::regular::restore(image, file, fd, policy).map(drop) };
    }
    if let Some(file) = file.of::<Directory>() {
        // What was removed is made again.
        let is_removed = state::directory::removed(image.string(file.path)).is_some();
        return if is_removed { Ok(()) } else { state::directory::restore(image, file, fd).map(drop) };
    }
    if let Some(file) = file.of::<Device>() {
        return state::device::restore(image, file, fd).map(drop);
    }
    let Some(pipe) =
        file.of::<Pipe>().filter(|_| file.of::<Terminal>().is_none() && file.of::<ContentFile>().is_none())
    else {
        return Ok(());
    };
    let is_inside = state::pipe::is_inner(image, pipe);
    if pipe.named.get() != 0 {
        return state::pipe::is_there(image, pipe, fd);
    }
    let is_pipe = |stat: sys::abi::Stat| stat.mode & sys::abi::S_IFMT == sys::abi::S_IFIFO;
    let has_its_like = fd <= 2 || sys::fs::fstat(fd.cast_signed()).is_ok_and(is_pipe);
    if is_inside || has_its_like {
        return Ok(());
    }
    Err(state::pipe::led_outside(image, pipe, fd))
}

/// Mapped files that must be there: those that are shared.
fn mapped(image: &Checked<'_>, policy: FilesPolicy, note: &mut impl FnMut(Error)) {
    let vmas = image.table::<Vma>();
    for (index, backing) in image.each::<Backing>().enumerate() {
        let is_shared = |vma: &&Vma| {
            vma.backing.get() as usize == index
                && vma.kind.get() == VmaKind::FileShared as u32
                && vma.flags.get() & VmaFlags::READ_ALONG.bits() == 0
        };
        let path = image.string(backing.path);
        let of_image = backing.flags.get() & (BackingFlags::CONTENT | BackingFlags::RING).bits() != 0
            || sys::fs::lstat_path(path).is_err() && has(image, path)
            || policy == FilesPolicy::Rollback && state::content::is_carried(image, path);
        if let Some(vma) = vmas.iter().find(is_shared).filter(|_| !of_image) {
            state::memory::reopened::open_shared(image, backing, vma, policy).err().into_iter().for_each(&mut *note);
        }
    }
}
