//! Contents without a named file: made again and filled, before any descriptor or mapping of them is opened.

use image_format::record::content::Content;
use image_format::seal::{self, Sum};
use image_format::{Checked, Fault, Part};
use loader::options::Options;
use state::{Error, Result};
use sys::fs::Fd;
use sys::text::{Decimal, Shown};
use zerocopy::little_endian::U64;

use super::Input;
use super::descriptors::move_above;
use crate::heap;
use crate::start::tell;

/// Bytes that are read, checked and written at a time.
const CHUNK: usize = 64 << 10;

/// Makes all of them; for each the descriptor of its file.
///
/// # Errors
/// No file can be made, no room for it, or a checksum that does not match.
pub fn make(image: &Checked<'_>, input: &Input, options: &Options<'_>, base: Fd) -> Result<&'static mut [Fd]> {
    let table = image.table::<Content>();
    let files = heap::descriptors(table.len())?;
    let sums = seal::read(input.seal, image.image().seal_span().0)?.1;
    let sums = sums.get(image.segments().len()..).unwrap_or_default();
    for (content, slot) in table.iter().zip(&mut *files) {
        let made = state::content::make(image, content)?;
        let id = content.id.get();
        if made.elsewhere && options.verbose {
            let path = Shown(image.string(content.name));
            tell(2, format_args!("deleted file {path}: its directory takes none without a name: it is in memory now"));
        }
        let failed = |e| {
            Error::failed(format_args!("shared contents {}", Decimal(id)), "cannot be written", e)
                .code(image_format::ExitCode::NoRoom)
        };
        *slot = move_above(made.file.release(), base).map_err(failed)?;
        if !fill(image, input, content, *slot, sums).map_err(failed)? {
            return Err(Error::of_image(options.image, Fault::Checksum(Part::Content(id))));
        }
    }
    Ok(files)
}

/// Fills a file; false: what the image has is not what was saved.
#[inline(never)] // For its buffer.
fn fill(image: &Checked<'_>, input: &Input, content: &Content, to: Fd, sums: &[U64]) -> sys::Result<bool> {
    let mut buffer = [0; CHUNK];
    let (segments, first) = (image.content_segments(), content.first.get() as usize);
    for index in first..first.saturating_add(content.segments.get() as usize) {
        let (Some(segment), Some(expected)) = (segments.get(index), sums.get(index)) else { return Ok(false) };
        let (mut sum, mut done) = (Sum::new(), 0);
        while done < segment.len {
            let len = ((segment.len - done) as usize).min(CHUNK);
            let piece = buffer.get_mut(..len).unwrap_or_default();
            sys::fs::pread_exact(input.file.fd(), piece, segment.offset + done)?;
            sum.update(piece);
            let at = segment.addr + done;
            // The last page goes beyond the end.
            let rest = content.identity.size.get().saturating_sub(at).min(len as u64) as usize;
            sys::fs::pwrite_all(to, piece.get(..rest).unwrap_or_default(), at)?;
            done += len as u64;
        }
        if expected.get() != sum.digest() {
            return Ok(false);
        }
    }
    Ok(true)
}
