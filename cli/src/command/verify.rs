//! `ckpt verify`: every checksum and every rule of an image.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image_format::record::content::Content;
use image_format::{Fault, PAGE, Part, Rule, Segment, align_up};
use xxhash_rust::xxh3::Xxh3;

use crate::failure::Failure;
use crate::image::{Checked, ImageFile};
use crate::progress::{Bar, Progress};
use crate::stdout;
use crate::text;

/// Bytes that each thread reads at once: large enough for the disk, small enough for the cache.
const CHUNK: usize = 1 << 20;

/// How far it is.
pub static PROGRESS: Progress = Progress::new();

/// Check every checksum and every rule of an image
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exits with 0 and one line, or with the code and the name of the first fault.")]
pub struct Args {
    /// The image
    image: PathBuf,
}

/// Prints one line about a sound image.
pub fn main(args: Args) -> Result<(), Failure> {
    let file = ImageFile::open(&args.image)?;
    let bar = Bar::new("checking", &PROGRESS);
    let checked = all(&file);
    drop(bar);
    let n = checked?;
    let line = format_args!(
        "{}: sound: {}, {} and all records checked\n",
        text::path(file.path()),
        text::size(file.len()),
        text::count(n, "segment")
    )
    .to_string();
    stdout::print(line)
}

/// Checks all that an image holds; returns the number of segments.
pub fn all(file: &ImageFile) -> Result<usize, Failure> {
    PROGRESS.at_least(file.len());
    let checked = file.checked()?;
    padding(file, checked.image.prefix().len() as u64)?;
    segments(file, &checked)?;
    let others = file.others()?.iter().map(all).sum::<Result<usize, _>>()?;
    Ok(checked.sums.len() - checked.image.processes().len() + others)
}

/// The one part that no checksum covers: from the end of the notes to the next page.
fn padding(file: &ImageFile, prefix: u64) -> Result<(), Failure> {
    let mut pad = [0; PAGE as usize];
    let len = usize::try_from(align_up(prefix, PAGE) - prefix).unwrap_or(0);
    let pad = pad.get_mut(..len).unwrap_or_default();
    file.read(pad, prefix)?;
    if pad.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    Err(file.fault(Fault::malformed(Rule::PaddingBehindNotesNotZero, prefix)))
}

/// Compares the memory with its checksums, on all processors; the fault is that of the first wrong segment.
fn segments(file: &ImageFile, checked: &Checked<'_>) -> Result<(), Failure> {
    let of_memory = checked.image.segments().map(|segment| (segment, Part::Segment(segment.addr)));
    let contents = checked.image.table::<Content>().unwrap_or_default();
    let owner = |index| contents.partition_point(|content| content.first.get() as usize <= index).saturating_sub(1);
    let of_contents = checked.image.content_segments().enumerate();
    let of_contents = of_contents.map(|(i, segment)| (segment, Part::Content(u32::try_from(owner(i)).unwrap_or(0))));
    let segments: Vec<_> = of_memory.chain(of_contents).zip(checked.sums.iter().copied()).collect();
    let next = AtomicUsize::new(0);
    let first: Mutex<Option<(usize, Failure)>> = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        // Segments are handed out in order, so none before a wrong one is left out.
        while let Some((index, ((segment, part), sum))) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            segments.get(index).map(|item| (index, item))
        } {
            if let Err(failure) = segment_sum(file, (segment, *part), *sum, &mut buffer) {
                next.store(segments.len(), Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if first.as_ref().is_none_or(|(known, _)| index < *known) {
                    *first = Some((index, failure));
                }
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(segments.len().max(1));
    thread::scope(|scope| {
        // Where no more threads may be made, fewer do it.
        for _ in 1..workers {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    match first.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some((_, failure)) => Err(failure),
        None => Ok(()),
    }
}

fn segment_sum(
    file: &ImageFile,
    (segment, part): (&Segment, Part),
    sum: u64,
    buffer: &mut [u8],
) -> Result<(), Failure> {
    let mut hasher = Xxh3::new();
    let mut done = 0;
    while done < segment.len {
        let len = buffer.len().min(usize::try_from(segment.len - done).unwrap_or(usize::MAX));
        let chunk = buffer.get_mut(..len).unwrap_or_default();
        file.read_segment(chunk, segment, done)?;
        hasher.update(chunk);
        done += len as u64;
        PROGRESS.add(len as u64);
    }
    if hasher.digest() == sum { Ok(()) } else { Err(file.fault(Fault::Checksum(part))) }
}
