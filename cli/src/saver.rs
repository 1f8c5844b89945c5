//! Saves a process to a file or a stream, compressed or not.
//!
//! Must never say that an image is there before whoever took its bytes has said so.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use ckpt::output::{Output, Placing};
use ckpt::remote::{self, Destination, Options, Report};
use image_format::ExitCode;
use rustix::pipe::fcntl_setpipe_size;

use crate::compress::{self, Compression};
use crate::described::Parts;
use crate::failure::{Failure, reason};
use crate::image::ImageFile;
use crate::text;

/// Bytes that a pipe holds, if this user may have that much: fewer turns between writer and reader.
const PIPE: usize = 1 << 20;

/// Where a saved process goes.
#[derive(Debug)]
pub enum To<'a> {
    /// A file, which gets its name when it is whole and durable.
    File(&'a Path),
    /// A pipe.
    Stream(OwnedFd),
}

/// Saves process `pid`. The report's bytes are those that were written.
pub fn save(pid: i32, to: To<'_>, options: Options<'_>, compression: Option<Compression>) -> Result<Report, Failure> {
    let said = |e: state::Error| Failure::new(e.exit_code(), e);
    match (to, compression) {
        (To::File(path), compression) => {
            // One that is compressed is an image, too.
            let placing = Placing { knows: Some(compress::holds_image), guarded: true, ..options.placing };
            let options = Options { placing, ..options };
            let Some(compression) = compression else {
                return remote::save(pid, Destination::File(path), options).map_err(said);
            };
            let absolute = std::path::absolute(path).map_err(|e| unwritable(path, &e))?;
            let mut output = Output::create(absolute.as_os_str().as_bytes(), placing).map_err(said)?;
            let kills = options.kill;
            let take = move |mut from: PipeReader| {
                let bytes = into_file(&mut from, &mut output, path, compression)?;
                if kills {
                    read_back(&mut output, path)?;
                }
                Ok((output, bytes))
            };
            let mut replaced = None;
            let name = |(mut output, bytes): (Output, u64)| {
                output.finish().map_err(said)?;
                replaced = output.take_replaced();
                Ok(bytes)
            };
            let report = through(pid, options, take, name)?;
            Ok(Report { replaced, ..report })
        }
        (To::Stream(fd), None) => remote::save(pid, Destination::Stream(fd), options).map_err(said),
        (To::Stream(fd), Some(compression)) => {
            let mut out = File::from(fd);
            let take = move |mut from: PipeReader| {
                compression.copy(&mut from, &mut out).map_err(|e| unwritable(Path::new("to the stream"), &e))
            };
            through(pid, options, take, Ok)
        }
    }
}

/// Compresses a stream into a file, which is created when the first byte has come: the walk over the process is over then.
fn into_file(
    from: &mut PipeReader,
    output: &mut Output,
    path: &Path,
    compression: Compression,
) -> Result<u64, Failure> {
    let mut first = [0];
    let read = from.read(&mut first).map_err(|e| unwritable(path, &e))?;
    let mut file = open_file(output, path)?;
    let mut all = first.get(..read).unwrap_or_default().chain(from);
    compression.copy(&mut all, &mut file).map_err(|e| unwritable(path, &e))
}

/// Reads a compressed image as it was written, all of it, and checks what a restart checks of it: nobody is ended for what is no image.
fn read_back(output: &mut Output, path: &Path) -> Result<(), Failure> {
    let mut file = open_file(output, path)?;
    file.rewind().map_err(|e| unwritable(path, &e))?;
    let check = || {
        let image = ImageFile::of_parts(path, Parts::of(path, &file)?)?;
        image.checked()?;
        image.others()?.iter().try_for_each(|other| other.checked().map(drop))
    };
    check().map_err(|failure| Failure::new(ExitCode::SaveFailed, failure.into_parts().1))
}

/// The file that an image is written to.
fn open_file(output: &mut Output, path: &Path) -> Result<File, Failure> {
    let file = output.file().map_err(|e| Failure::new(e.exit_code(), e))?.unwrap_or(-1);
    // SAFETY: the output has it open, and lives on.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    file.try_clone_to_owned().map(File::from).map_err(|e| unwritable(path, &e))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let what = format_args!("image {}: cannot be written: {}", text::path(path), reason(error)).to_string();
    Failure::new(ExitCode::SaveFailed, what)
}

/// Saves through a pipe, which `take` reads to its end beside us; `arrived` then completes what came of it, while a process
/// that is to end stands still. It gives the number of bytes.
pub fn through<T: Send>(
    pid: i32,
    options: Options<'_>,
    take: impl FnOnce(PipeReader) -> Result<T, Failure> + Send,
    arrived: impl FnOnce(T) -> Result<u64, Failure>,
) -> Result<Report, Failure> {
    let no_pipe = |e| Failure::new(ExitCode::Kernel, format_args!("a pipe: cannot be made: {}", reason(&e)));
    let (read, write) = io::pipe().map_err(no_pipe)?;
    let _ = fcntl_setpipe_size(&write, PIPE);
    thread::scope(|scope| {
        let no_thread =
            |e| Failure::new(ExitCode::SaveFailed, format_args!("a thread: cannot be made: {}", reason(&e)));
        let taker = thread::Builder::new().spawn_scoped(scope, move || take(read)).map_err(no_thread)?;
        let mut parts = Some((taker, arrived));
        let mut outcome = None;
        let mut end = || match parts.take() {
            Some((taker, arrived)) => {
                let outcome = outcome.insert(join(taker).and_then(arrived));
                let lost = || state::Error::refused(format_args!("image"), "has not arrived", "save again");
                if outcome.is_ok() { Ok(()) } else { Err(lost()) }
            }
            None => Ok(()),
        };
        let saved = remote::save(pid, Destination::Arrives(write.into(), &mut end), options);
        match (saved, outcome, parts) {
            (Ok(report), Some(Ok(bytes)), _) => Ok(Report { bytes, ..report }),
            (Ok(report), None, _) => Ok(report),
            (_, Some(Err(failure)), _) => Err(failure),
            (Err(e), _, parts) => {
                let own = Failure::new(e.exit_code(), e);
                if options.given_up.is_some_and(|given_up| given_up()) {
                    // Whoever takes the bytes may wait for a reader for ever.
                    let _ = own.report();
                    sys::process::exit(i32::from(ExitCode::SaveFailed as u8));
                }
                // Who took the bytes knows best why no more could be written.
                Err(parts.and_then(|(taker, _)| join(taker).err()).unwrap_or(own))
            }
        }
    })
}

fn join<T>(taker: ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    let lost = || Failure::new(ExitCode::SaveFailed, "the image: its writer has ended early");
    taker.join().unwrap_or_else(|_| Err(lost()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What is there when it is read back is no image: the save has failed.
    #[test]
    fn what_was_written_is_read_back() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("job.ckpt");
        let error = |_| io::Error::other("no output");
        let mut output = Output::create(path.as_os_str().as_bytes(), Placing::default()).map_err(error)?;
        let mut file = open_file(&mut output, &path).map_err(|_| io::Error::other("no file"))?;
        file.write_all(&zstd::encode_all(&[7u8; 5000][..], 1)?)?;
        let failure = read_back(&mut output, &path).err().map(Failure::into_parts);
        assert_eq!(failure.map(|(code, _)| code), Some(ExitCode::SaveFailed as u8));
        Ok(())
    }
}
