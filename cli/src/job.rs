//! The job of an image: how `ckpt run` was asked for it, or, where nobody has said, its process's own command line.
//!
//! Must never take one job for another: what cannot be read is an error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use image_format::record::job::Job as Record;
use image_format::record::mm::Mm;
use image_format::{Fault, Image};
use serde::Serialize;

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::text;

/// The most bytes of a command line that a kernel lets exec(2) have.
const COMMAND_MAX: u64 = 6 << 20;

/// What `ckpt run` was asked for, as `ckpt show` tells it.
#[derive(Debug, Serialize)]
pub struct Job {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The same as one line.
    #[serde(skip)]
    pub line: String,
    /// Where it was started.
    pub directory: String,
    /// On which host.
    pub host: String,
}

impl Job {
    /// That of an image, if it names one.
    pub fn of(image: &Image<'_>) -> Result<Option<Self>, Fault> {
        let [job] = image.table::<Record>()? else { return Ok(None) };
        let shown = |reference| image.string(reference).map(text::plain);
        Ok(Some(Self {
            command: words(command(image, job)).map(text::plain).collect(),
            line: line(command(image, job)),
            directory: shown(job.directory)?,
            host: shown(job.host)?,
        }))
    }
}

/// The command of a job's record: each word ends with a NUL.
pub fn command<'a>(image: &Image<'a>, job: &Record) -> &'a [u8] {
    image.bytes(job.command).unwrap_or_default()
}

/// The words of a command in which each ends with a NUL.
pub fn words(command: &[u8]) -> impl Iterator<Item = &[u8]> {
    command.strip_suffix(b"\0").unwrap_or(command).split(|byte| *byte == 0)
}

/// Words as a command in which each ends with a NUL.
pub fn joined<'w>(words: impl IntoIterator<Item = &'w OsStr>) -> Vec<u8> {
    words.into_iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
}

/// A command for people: one line, not too long, words with blanks in quotes.
pub fn line(command: &[u8]) -> String {
    const MOST: usize = 120;
    let word = |word: &[u8]| {
        let word = text::plain(word);
        let plain =
            !word.is_empty() && !word.contains([' ', '\'', '"', '\\', '$', ';', '&', '|', '(', ')', '<', '>', '*']);
        if plain { word } else { format!("'{word}'") }
    };
    let line = words(command).map(word).collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain("…".chars()).collect() }
}

/// The command line of an image's process, as `/proc/PID/cmdline` would show it; empty where the image has none of it.
pub fn own_command(file: &ImageFile, image: &Image<'_>) -> Result<Vec<u8>, Failure> {
    let mm = image.single::<Mm>().map_err(|fault| file.fault(fault))?;
    let (start, end) = (mm.arg_start.get(), mm.arg_end.get());
    if end.saturating_sub(start) > COMMAND_MAX {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
    for segment in image.segments() {
        let (from, to) = (segment.addr.max(start), (segment.addr + segment.len).min(end));
        if from < to {
            let place = usize::try_from(from - start).unwrap_or(0)..usize::try_from(to - start).unwrap_or(0);
            file.read_segment(bytes.get_mut(place).unwrap_or_default(), &segment, from - segment.addr)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_line() {
        assert_eq!(line(b"sh\0-c\0sleep 1\0\0"), "sh -c 'sleep 1' ''");
        assert_eq!(line(&[b'a'; 200]).chars().count(), 121);
        assert_eq!(joined([OsStr::new("a"), OsStr::new("")]), b"a\0\0");
        assert_eq!(words(b"a\0\0").collect::<Vec<_>>(), [&b"a"[..], b""]);
    }
}
