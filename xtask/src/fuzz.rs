//! `cargo xtask fuzz`: valid images, mutated, thrown at the parser for some time. A panic is a failure.
//!
//! Most mutants get a new seal, so that they pass the checksums and reach the rules behind them. Every mutant
//! follows from its seed alone: `--seed` shows a failure again. Must never restart anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use image_format::elf::{PF_R, PF_W};
use image_format::reader::PROBE_LEN;
use image_format::record::descriptor::Descriptor;
use image_format::record::header::{Features, Header, MAGIC, VERSION};
use image_format::record::memory::{Vma, VmaKind};
use image_format::record::mm::Mm;
use image_format::record::thread::Thread;
use image_format::{Fault, Image, Layout, Need, Notes, PAGE, StrRef, seal};
use zerocopy::{FromZeros, IntoBytes};

/// What `cargo xtask fuzz` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Start with this mutant.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mutate this image instead of a small built-in one.
    #[arg(long)]
    image: Option<PathBuf>,
}

/// An image without its memory: all that the parser looks at.
struct Sample {
    prefix: Vec<u8>,
    sealed: Vec<u8>,
    file_len: u64,
}

/// Mutates and parses until the time is over.
///
/// # Errors
/// The parser panicked, named by its seed; or refused the unharmed image.
pub fn run(options: &Options) -> Result<()> {
    let valid = options.image.as_deref().map_or_else(valid_image, real_image)?;
    read_all(&valid.prefix, &valid.sealed, valid.file_len)
        .map_err(|fault| anyhow!("the unharmed image is refused: {fault}"))?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (mut tried, mut accepted) = (0u64, 0u64);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut culprit = None;
    while Instant::now() < end && culprit.is_none() {
        let seed = options.seed.wrapping_add(tried);
        match catch_unwind(AssertUnwindSafe(|| one(&valid, seed))) {
            Ok(sound) => accepted += u64::from(sound),
            Err(_) => culprit = Some(seed),
        }
        tried += 1;
    }
    std::panic::set_hook(quiet);
    if let Some(seed) = culprit {
        // Once more with the usual hook, which prints where.
        let _ = catch_unwind(AssertUnwindSafe(|| one(&valid, seed)));
        bail!("the parser panicked: cargo xtask fuzz --seconds 1 --seed {seed} shows it again");
    }
    println!("{tried} mutants in {} s, {accepted} still sound, no panic", options.seconds);
    Ok(())
}

/// One mutant: true when it was accepted.
fn one(valid: &Sample, seed: u64) -> bool {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut prefix = valid.prefix.clone();
    for _ in 0..=random.below(4) {
        mutate(&mut prefix, &mut random);
    }
    let mut sealed = valid.sealed.clone();
    let mut file_len = claimed_length(&prefix);
    match random.below(4) {
        0 => mutate(&mut sealed, &mut random),
        1 => file_len = random.interesting(),
        _ => {
            let end = Need::probe(&aligned(&prefix), file_len).map_or(prefix.len(), |need| need.prefix_len as usize);
            let segments = sealed.len().saturating_sub(seal::size(0) as usize) / 8;
            let body = prefix.get(..end).unwrap_or(&prefix);
            if seal::write(&mut sealed, file_len, body, &vec![0; segments]).is_err() {
                return false;
            }
        }
    }
    read_all(&prefix, &sealed, file_len).is_ok()
}

/// Reads everything that a restart would look at.
fn read_all(prefix: &[u8], sealed: &[u8], file_len: u64) -> Result<(), Fault> {
    let words = aligned(prefix);
    let bytes = words.get(..prefix.len()).unwrap_or_default();
    let image = Image::parse(bytes, file_len)?;
    image.check_seal(sealed)?;
    // Few mutants are sound beyond their tables; those that are not must be refused without a panic, too.
    std::hint::black_box(image_format::check::records(&image).is_ok());
    for segment in image.segments() {
        std::hint::black_box(segment);
    }
    for vma in image.table::<Vma>()? {
        image.string(vma.name)?;
    }
    image.string(image.single::<Mm>()?.exe)?;
    std::hint::black_box((image.header(), image.table::<Thread>()?, image.table::<Descriptor>()?));
    image.string(StrRef { at: u32::MAX.into(), len: u32::MAX.into() }).map_or(Ok(()), |_| Err(Fault::Empty))
}

/// A copy that begins at a multiple of 8, as the parser wants it, zero-padded.
fn aligned(bytes: &[u8]) -> Aligned {
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    Aligned(words)
}

struct Aligned(Vec<u64>);

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The length that the last program header says the file has, so that mutants of it are not all "truncated".
fn claimed_length(prefix: &[u8]) -> u64 {
    let word = |at: usize| prefix.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let count = prefix.get(56..58).map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
    let last = (word(32) as usize).saturating_add(count.saturating_sub(1) * 56).min(prefix.len());
    word(last + 8).saturating_add(word(last + 32))
}

/// A small image with two mappings and two segments: prefix, seal, length.
fn valid_image() -> Result<Sample> {
    let (mut out, mut strings) = (vec![0; 1 << 16], vec![0; 4096]);
    let mut notes = Notes::new(&mut out, &mut strings);
    let full = |_| anyhow!("the buffer is too small");
    let mut header = Header::new_zeroed();
    header.magic = MAGIC;
    (header.major, header.minor) = (VERSION.0.into(), VERSION.1.into());
    header.required = Features::JMP_CONTEXT.bits().into();
    notes.table(&[header]).map_err(full)?;
    let name = notes.string(b"[heap]").map_err(full)?;
    let exe = notes.string(b"/usr/bin/true").map_err(full)?;
    let vma = |start: u64, pages: u64| {
        let mut vma = Vma::new_zeroed();
        (vma.start, vma.end) = (start.into(), (start + pages * PAGE).into());
        vma.kind = (VmaKind::Anonymous as u32).into();
        vma.name = name;
        vma
    };
    let vmas = [vma(0x40_0000, 4), vma(0x7f00_0000_0000, 16)];
    notes.table(&vmas).map_err(full)?;
    let mut mm = Mm::new_zeroed();
    mm.exe = exe;
    notes.table(&[mm]).map_err(full)?;
    notes.table(&[Thread::new_zeroed(); 3]).map_err(full)?;
    notes.table(&[Descriptor::new_zeroed(); 3]).map_err(full)?;
    let notes_len = notes.finish().map_err(full)?;

    let segments = [(0x40_0000, PAGE, PF_R | PF_W), (0x7f00_0000_2000, 4 * PAGE, PF_R)];
    let layout = Layout::new(2, 5 * PAGE, notes_len as u64);
    let headers = layout.headers_len() as usize;
    let mut prefix = vec![0; headers];
    layout.write_headers(&mut prefix, segments.into_iter()).map_err(full)?;
    prefix.extend_from_slice(out.get(..notes_len).context("notes fit")?);
    let mut sealed = vec![0; layout.seal_len as usize];
    seal::write(&mut sealed, layout.file_len(), &prefix, &[0; 2]).map_err(full)?;
    Ok(Sample { prefix, sealed, file_len: layout.file_len() })
}

/// Prefix and seal of an image file.
fn real_image(path: &Path) -> Result<Sample> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let file_len = file.metadata()?.len();
    let mut first = vec![0; usize::try_from(file_len)?.min(PROBE_LEN)];
    file.read_exact_at(&mut first, 0)?;
    let need = Need::probe(&aligned(&first), file_len).map_err(|fault| anyhow!("{}: {fault}", path.display()))?;
    let mut prefix = vec![0; usize::try_from(need.prefix_len)?];
    file.read_exact_at(&mut prefix, 0)?;
    let words = aligned(&prefix);
    let image = Image::parse(&words, file_len).map_err(|fault| anyhow!("{}: {fault}", path.display()))?;
    let (at, len) = image.seal_span();
    let mut sealed = vec![0; usize::try_from(len)?];
    file.read_exact_at(&mut sealed, at)?;
    Ok(Sample { prefix, sealed, file_len })
}

/// Changes bytes in one of several ways.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    let at = random.below(len as u64) as usize;
    match random.below(8) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = random.interesting() as u8,
        // Words lie at multiples of four: where they are numbers, replace whole ones.
        3 | 4 => put(bytes, at & !3, &(random.interesting() as u32).to_le_bytes()),
        5 => put(bytes, at & !7, &random.interesting().to_le_bytes()),
        6 => bytes.truncate(at),
        _ => {
            let run = 1 + random.below(64) as usize;
            let copy: Vec<u8> = bytes[at..(at + run).min(len)].to_vec();
            put(bytes, random.below(len as u64) as usize, &copy);
        }
    }
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}

/// xorshift64*: small, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Numbers at which arithmetic goes wrong, and small and random ones.
    fn interesting(&mut self) -> u64 {
        let edges = [0, 1, 3, 7, PAGE, PAGE - 1, u64::MAX, u64::MAX - PAGE + 1, 1 << 63, 0x7fff_ffff_f000, 0xffff_ffff];
        match self.below(3) {
            0 => self.below(64),
            1 => self.next(),
            _ => edges[self.below(edges.len() as u64) as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unharmed_image_is_accepted_and_a_short_run_finds_no_panic() -> Result<()> {
        run(&Options { seconds: 1, seed: 1, image: None })
    }

    #[test]
    fn a_seed_gives_the_same_mutant_again() -> Result<()> {
        let valid = valid_image()?;
        for seed in 1..200 {
            assert_eq!(one(&valid, seed), one(&valid, seed));
        }
        Ok(())
    }
}
