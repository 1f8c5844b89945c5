//! Compressed images: zstd around the whole stream, never inside the image.
//!
//! What is read is an image before it is believed to be one: the stream's first bytes must be an image's, and it may not be
//! longer than these say, so that a small file does not fill the memory. Must never hand on a stream that ended early.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::thread::available_parallelism;

use ckpt::output::begins_image;
use image_format::elf::ZSTD_MAGIC;
use image_format::reader::PROBE_LEN;
use image_format::{ExitCode, Fault, Image, Need, Rule};
use sys::fs::Fd;
use zerocopy::IntoBytes;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::failure::{Failure, reason};
use crate::text;

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;

/// zstd's own default.
const LEVEL: i32 = 3;

/// The levels above need memory out of all proportion.
const LEVEL_MAX: i32 = 19;

/// How an image is compressed: `zstd` or `zstd:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    level: i32,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = level.map_or(Ok(LEVEL), str::parse);
        match (name, level) {
            ("zstd", Ok(level @ 1..=LEVEL_MAX)) => Ok(Self { level }),
            _ => Err(format!("give it as zstd, or zstd:N with a level N from 1 to {LEVEL_MAX}")),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zstd:{}", self.level)
    }
}

impl Compression {
    /// Copies a stream to its end, compressed on all processors, with a checksum; returns the bytes that were written.
    pub fn copy(self, from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
        let mut encoder = Encoder::new(Counted { to, bytes: 0 }, self.level)?;
        encoder.include_checksum(true)?;
        // Where no more threads may be made, this one does it.
        let workers = available_parallelism().map_or(1, |n| n.get().min(64) as u32);
        encoder.multithread(workers).or_else(|_| encoder.multithread(0))?;
        copy(from, &mut encoder)?;
        encoder.finish().map(|counted| counted.bytes)
    }
}

/// Whether an open file is a compressed image, as far as its beginning tells; false also when it cannot be read.
pub fn holds_image(fd: Fd) -> bool {
    /// Headers of more segments than any process has.
    const MOST: usize = 64 << 20;
    // SAFETY: whoever asks has it open meanwhile.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let Ok(file) = file.try_clone_to_owned().map(File::from) else { return false };
    let mut magic = [0; ZSTD_MAGIC.len()];
    if file.read_exact_at(&mut magic, 0).is_err() || magic != ZSTD_MAGIC {
        return false;
    }
    let Ok(decoder) = Decoder::new(file) else { return false };
    let held = RefCell::new((decoder, Vec::new()));
    begins_image(|at, to| {
        let (decoder, bytes) = &mut *held.borrow_mut();
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let end = start.saturating_add(to.len()).min(MOST);
        let more = end.saturating_sub(bytes.len());
        decoder.take(more as u64).read_to_end(bytes)?;
        let from = bytes.get(start..end).filter(|from| from.len() == to.len());
        from.map(|from| to.copy_from_slice(from)).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))
    })
}

/// Copies a stream to its end in large pieces; returns the number of bytes.
pub fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut all = 0;
    loop {
        let piece = match from.read(&mut buffer) {
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if piece.is_empty() {
            return to.flush().map(|()| all);
        }
        to.write_all(piece)?;
        all += piece.len() as u64;
    }
}

struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A compressed stream that begins as an image does.
pub struct Packed<'n, R: Read> {
    /// The stream's name, for messages.
    pub name: &'n Path,
    decoder: Decoder<'static, BufReader<R>>,
    /// What was unpacked already: headers and notes, or a little more.
    words: Vec<u64>,
    have: usize,
    /// Headers and notes.
    prefix: usize,
    /// How long its headers say that the image is.
    pub whole: u64,
}

impl<'n, R: Read> Packed<'n, R> {
    /// Unpacks headers and notes.
    pub fn open(name: &'n Path, from: R) -> Result<Self, Failure> {
        let fault = |fault| Failure::image(name, fault);
        let broken = |e: io::Error| broken(name, &e);
        let mut decoder = Decoder::new(from).map_err(broken)?;
        let mut words = vec![0u64; PROBE_LEN.div_ceil(8)];
        let have = fill(&mut decoder, words.as_mut_bytes(), 0, PROBE_LEN).map_err(broken)?;
        let need = Need::probe(words.as_bytes().get(..have).unwrap_or_default(), u64::MAX).map_err(fault)?;
        let len = usize::try_from(need.prefix_len).unwrap_or(usize::MAX);
        room(name, need.prefix_len)?;
        words.resize(len.max(PROBE_LEN).div_ceil(8), 0);
        let have = fill(&mut decoder, words.as_mut_bytes(), have, len).map_err(broken)?;
        let begin = words.as_bytes().get(..have).unwrap_or_default();
        // Of a file that is no longer, its headers tell how long it should be.
        let whole = match Image::parse(begin.get(..len).unwrap_or(begin), need.prefix_len) {
            Err(Fault::Truncated { need, .. }) => need,
            Err(other) => return Err(fault(other)),
            Ok(_) => have as u64,
        };
        Ok(Self { name, decoder, words, have, prefix: len, whole })
    }

    /// What was unpacked already.
    pub fn begin(&self) -> &[u8] {
        self.words.as_bytes().get(..self.have).unwrap_or_default()
    }

    /// Headers and notes, as far as they are there.
    pub fn prefix(&self) -> &[u8] {
        self.begin().get(..self.prefix).unwrap_or(self.begin())
    }

    /// The rest of the stream.
    pub fn decoder(&mut self) -> &mut impl Read {
        &mut self.decoder
    }

    /// Why it cannot be unpacked.
    pub fn broken(&self, error: &io::Error) -> Failure {
        broken(self.name, error)
    }

    /// It ends before its image does.
    pub fn ended(&self) -> Failure {
        self.broken(&io::ErrorKind::UnexpectedEof.into())
    }

    /// Makes sure that nothing follows.
    pub fn ends(&mut self) -> Result<(), Failure> {
        let mut more = [0];
        match self.decoder.read(&mut more).map_err(|e| self.broken(&e))? {
            0 => Ok(()),
            _ => Err(Failure::image(self.name, Fault::malformed(Rule::BytesFollowSeal, self.whole))),
        }
    }
}

/// Unpacks a stream into `to`, an empty file in memory. `name` is the stream's, for messages.
pub fn unpack(name: &Path, from: impl Read, to: &mut File) -> Result<(), Failure> {
    let mut stream = Packed::open(name, from)?;
    room(name, stream.whole)?;
    let rest = stream.whole.saturating_sub(stream.have as u64);
    to.write_all(stream.begin()).map_err(|e| not_kept(name, &e))?;
    let copied = copy(&mut stream.decoder.by_ref().take(rest), to);
    copied.map_err(|e| if e.raw_os_error().is_some() { not_kept(name, &e) } else { broken(name, &e) })?;
    stream.ends()
}

/// Refuses what would take more memory than this system can give.
pub fn room(name: &Path, bytes: u64) -> Result<(), Failure> {
    let told = std::fs::read_to_string("/proc/meminfo")
        .map_err(|e| Failure::new(ExitCode::Kernel, format_args!("/proc/meminfo: cannot be read: {}", reason(&e))))?;
    let kib = |key: &str| -> u64 {
        let value = told.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok());
        value.unwrap_or(0)
    };
    let free = (kib("MemAvailable:") + kib("SwapFree:")) << 10;
    if bytes <= free {
        return Ok(());
    }
    let (bytes, free) = (text::size(bytes), text::size(free));
    let what = format_args!("{}: takes {bytes} of memory when it is unpacked, and {free} are free", text::path(name))
        .to_string();
    Err(Failure::new(ExitCode::NoRoom, what))
}

/// Reads up to `until` of `buffer`; returns how much there is.
fn fill(from: &mut impl Read, buffer: &mut [u8], mut at: usize, until: usize) -> io::Result<usize> {
    while at < until {
        match from.read(buffer.get_mut(at..until).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

/// Why a stream could not be kept in memory.
pub fn not_kept(name: &Path, error: &io::Error) -> Failure {
    let name = text::path(name);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => {
            Failure::new(ExitCode::NoRoom, format_args!("{name}: no memory left to keep it"))
        }
        io::ErrorKind::UnexpectedEof => {
            Failure::new(ExitCode::Truncated, format_args!("{name}: truncated: the stream ends early"))
        }
        _ => Failure::new(ExitCode::NoImage, format_args!("{name}: the image cannot be read: {}", reason(error))),
    }
}

/// Why a compressed stream cannot be unpacked: it cannot be read, has ended early, or is not what was written.
fn broken(name: &Path, error: &io::Error) -> Failure {
    let shown = text::path(name);
    match error.kind() {
        _ if error.raw_os_error().is_some() => not_kept(name, error),
        io::ErrorKind::UnexpectedEof => Failure::new(
            ExitCode::Truncated,
            format_args!("{shown}: truncated: the zstd stream ends early: copy it again"),
        ),
        _ => Failure::new(ExitCode::Damaged, format_args!("{shown}: damaged: zstd: {error}: copy it again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!("zstd".parse(), Ok(Compression { level: 3 }));
        assert_eq!("zstd:19".parse(), Ok(Compression { level: 19 }));
        for text in ["", "gzip", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:x", "zstd:3:3"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
