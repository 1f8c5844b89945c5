//! Contents without a named file: made again and filled, before any descriptor or mapping of them is opened. Those of named
//! files that are mapped shared: compared.

use image_format::record::content::{Content, ContentKind};
use image_format::record::memory::Backing;
use image_format::{Checked, ExitCode, Fault, Part, SEGMENT_MAX, seal};
use loader::options::Options;
use state::FilesPolicy;
use state::regular::{Change, compare};
use state::restart::{Error, Result};
use sys::fs::Fd;
use zerocopy::little_endian::U64;

use super::descriptors::move_above;
use super::{Input, input};
use crate::heap;
use crate::start::tell;

/// Makes all of them; for each the descriptor of its file.
///
/// # Errors
/// No file can be made, no room for it, or a checksum that does not match; a named file was written.
pub fn make(image: &Checked<'_>, input: &Input, options: &Options<'_>, base: Fd) -> Result<&'static mut [Fd]> {
    let table = image.table::<Content>();
    let files = heap::descriptors(table.len())?;
    let failed = |e| Error::about(ExitCode::NoRoom, "shared contents: cannot be made again (!)", 0u32, b"", e);
    let buffer = input::memory(SEGMENT_MAX).map_err(failed)?;
    if options.files != FilesPolicy::Ignore {
        roll_back(image, options, buffer)?;
    }
    let sums = seal::read(input.seal, image.image().seal_span().0)?.1;
    let sums = sums.get(image.segments().len()..).unwrap_or_default();
    for (content, slot) in table.iter().zip(&mut *files) {
        if content.kind.get() == ContentKind::Named as u32 {
            state::content::bring_back(image, content, |file| fill(image, input, content, file, sums, buffer))?;
            continue;
        }
        if let Some(one) = super::sysv::of(image, content) {
            *slot = super::sysv::open(image, input, options, (content, one), sums, buffer)?;
            continue;
        }
        let made = state::content::make(image, content).and_then(|(file, elsewhere)| {
            *slot = move_above(file.release(), base)?;
            if elsewhere && options.verbose {
                tell(2, "deleted file @ lies in memory now", 0, image.string(content.name), 0);
            }
            let filled = fill(image, input, content, *slot, sums, buffer)?;
            state::content::own(image, content, *slot).map(|()| filled)
        });
        if !made.map_err(failed)? {
            return Err(Error::of_image(options.image, Fault::Checksum(Part::Content(content.id.get()))));
        }
    }
    Ok(files)
}

/// Compares the named files that are mapped shared. Under `--files rollback` one that was written, as its contents or its time say, and that the
/// image has, too, is moved aside, as soon as it is known that there is no other one that was written: it is made again as a missing one.
fn roll_back(image: &Checked<'_>, options: &Options<'_>, buffer: &mut [u8]) -> Result<()> {
    let carried = |path: &[u8]| options.files == FilesPolicy::Rollback && state::content::is_carried(image, path);
    state::shared_file::check(image, buffer, carried)?;
    state::shared_file::check(image, buffer, |path| carried(path) && state::regular::set_aside(path).is_ok())?;
    for content in image.each::<Content>().filter(|content| content.kind.get() == ContentKind::Named as u32) {
        let path = image.string(content.name);
        let is_other = |now: sys::abi::Stat| compare(&content.identity, &now, true) != Change::None;
        if image.each::<Backing>().any(|backing| image.string(backing.path) == path)
            && carried(path)
            && sys::fs::stat_path(path).is_ok_and(is_other)
            && let Err(e) = state::regular::set_aside(path)
        {
            return Err(Error::about(ExitCode::FileChanged, "file @: cannot be moved aside (!)", 0u32, path, e));
        }
    }
    Ok(())
}

/// Fills a file; false: what the image has is not what was saved. `buffer` has room for any segment.
fn fill(
    image: &Checked<'_>,
    input: &Input,
    content: &Content,
    to: Fd,
    sums: &[U64],
    buffer: &mut [u8],
) -> sys::Result<bool> {
    let (segments, first) = (image.content_segments(), content.first.get() as usize);
    for index in first..first.saturating_add(content.segments.get() as usize) {
        let (Some(segment), Some(expected)) = (segments.get(index), sums.get(index)) else { return Ok(false) };
        let piece = buffer.get_mut(..segment.len as usize).unwrap_or_default();
        input::pread(input.file, piece, segment.offset)?;
        if expected.get() != seal::sum(piece) {
            return Ok(false);
        }
        // The last page goes beyond the end.
        let rest = content.identity.size.get().saturating_sub(segment.addr).min(segment.len) as usize;
        sys::fs::pwrite_all(to, piece.get(..rest).unwrap_or_default(), segment.addr)?;
    }
    Ok(true)
}
