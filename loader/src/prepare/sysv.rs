//! System V shared memory: segments that are still there are compared, others made again and filled. A part of the larger stub alone.
//!
//! Must never write to a segment that it did not make.

use image_format::record::content::Content;
use image_format::record::sysv::Sysv;
use image_format::{Checked, Fault, PAGE, Part, seal};
use loader::options::Options;
use state::FilesPolicy;
use state::restart::{Error, Result};
use state::sysv::Attached;
use sys::abi::O_RDWR;
use sys::fs::Fd;
use zerocopy::little_endian::U64;

use super::{Input, input};

/// What the image says of contents that are a segment.
pub fn of<'i>(image: &Checked<'i>, content: &Content) -> Option<&'i Sysv> {
    let table = image.table::<Sysv>();
    table.binary_search_by_key(&content.id.get(), |one| one.content.get()).ok().and_then(|at| table.get(at))
}

/// Makes one ready for its mappings; returns what stands for it where descriptors do.
///
/// # Errors
/// It cannot be had, or was written since the save; the image is damaged.
pub fn open(
    image: &Checked<'_>,
    input: &Input,
    options: &Options<'_>,
    (content, one): (&Content, &Sysv),
    sums: &[U64],
    buffer: &mut [u8],
) -> Result<Fd> {
    let failed = |e| {
        Error::about(
            image_format::ExitCode::NoRoom,
            "System V memory #: cannot be read or written (!)",
            one.id.get(),
            b"",
            e,
        )
    };
    let Attached { id, at, is_new } = state::sysv::open(one)?;
    // It is this process's memory, and nothing else leads to it.
    let memory = sys::fs::open(c"/proc/self/mem", O_RDWR, 0).map_err(failed)?;
    let mut sums = sums.get(content.first.get() as usize..).unwrap_or_default().iter();
    for segment in image.segments_of(content) {
        let piece = buffer.get_mut(..segment.len as usize).unwrap_or_default();
        let place = (at as u64).wrapping_add(segment.addr);
        let (from, offset) = if is_new { (input.file, segment.offset + input::start()) } else { (memory.fd(), place) };
        if !is_new && options.files == FilesPolicy::Ignore {
            break;
        }
        sys::fs::pread_exact(from, piece, offset).map_err(failed)?;
        let is_same = sums.next().is_some_and(|expected| expected.get() == seal::sum(piece));
        match (is_same, is_new) {
            (true, true) => sys::fs::pwrite_all(memory.fd(), piece, place).map_err(failed)?,
            (true, false) => {}
            (false, true) => {
                return Err(Error::of_image(options.image, Fault::Checksum(Part::Content(content.id.get()))));
            }
            (false, false) => return Err(state::sysv::changed(one)),
        }
    }
    if !is_new && options.files != FilesPolicy::Ignore && !is_zero_elsewhere(image, content, at).map_err(failed)? {
        return Err(state::sysv::changed(one));
    }
    Ok(state::sysv::slot(id))
}

/// Whether a segment that is attached here has nothing but zeros where the image has nothing.
fn is_zero_elsewhere(image: &Checked<'_>, content: &Content, at: usize) -> sys::Result<bool> {
    let there = input::memory(content.identity.size.get() / PAGE)?;
    sys::sysv::resident(at, there)?;
    for segment in image.segments_of(content) {
        let range = (segment.addr / PAGE) as usize..((segment.addr + segment.len) / PAGE) as usize;
        there.get_mut(range).unwrap_or_default().fill(0);
    }
    // SAFETY: as long as the attachment, which nobody takes away; what others write meanwhile is not relied on.
    let bytes = unsafe { core::slice::from_raw_parts(at as *const u8, there.len() * PAGE as usize) };
    Ok(there
        .iter()
        .zip(bytes.chunks(PAGE as usize))
        .all(|(there, page)| there & 1 == 0 || page.iter().all(|b| *b == 0)))
}
