//! Saves a process to a file or a stream, compressed or not.
//!
//! Must never say that an image is there before whoever took its bytes has said so.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use ckpt::output::Output;
use ckpt::remote::{self, Destination, Options, Report};
use image_format::ExitCode;
use rustix::pipe::fcntl_setpipe_size;

use crate::compress::Compression;
use crate::failure::{Failure, reason};
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
pub fn save(pid: i32, to: To<'_>, options: Options, compression: Option<Compression>) -> Result<Report, Failure> {
    let said = |e: state::Error| Failure::new(e.exit_code(), e);
    match (to, compression) {
        (To::File(path), None) => remote::save(pid, Destination::File(path), options).map_err(said),
        (To::Stream(fd), None) => remote::save(pid, Destination::Stream(fd), options).map_err(said),
        (To::File(path), Some(compression)) => {
            let absolute = std::path::absolute(path).map_err(|e| unwritable(path, &e))?;
            let mut output = Output::create(absolute.as_os_str().as_bytes()).map_err(said)?;
            let [_, file] = output.descriptors();
            // SAFETY: the output has it open, and lives on.
            let file = unsafe { BorrowedFd::borrow_raw(file) };
            let mut file = file.try_clone_to_owned().map(File::from).map_err(|e| unwritable(path, &e))?;
            let take =
                move |mut from: PipeReader| compression.copy(&mut from, &mut file).map_err(|e| unwritable(path, &e));
            through(pid, options, take, |bytes| output.finish().map(|()| bytes).map_err(said))
        }
        (To::Stream(fd), Some(compression)) => {
            let mut out = File::from(fd);
            let take = move |mut from: PipeReader| {
                compression.copy(&mut from, &mut out).map_err(|e| unwritable(Path::new("to the stream"), &e))
            };
            through(pid, options, take, Ok)
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let what = format_args!("image {}: cannot be written: {}", text::path(path), reason(error)).to_string();
    Failure::new(ExitCode::SaveFailed, what)
}

/// Saves through a pipe, which `take` reads to its end beside us; `arrived` then completes what came of it, while a process
/// that is to end stands still. It gives the number of bytes.
pub fn through<T: Send>(
    pid: i32,
    options: Options,
    take: impl FnOnce(PipeReader) -> Result<T, Failure> + Send,
    arrived: impl FnOnce(T) -> Result<u64, Failure>,
) -> Result<Report, Failure> {
    let no_pipe = |e| Failure::new(ExitCode::Kernel, format_args!("a pipe: cannot be made: {}", reason(&e)));
    let (read, write) = io::pipe().map_err(no_pipe)?;
    let _ = fcntl_setpipe_size(&write, PIPE);
    thread::scope(|scope| {
        let mut parts = Some((scope.spawn(move || take(read)), arrived));
        let mut outcome = None;
        let mut end = || match parts.take() {
            Some((taker, arrived)) => {
                let outcome = outcome.insert(join(taker).and_then(arrived));
                let lost = || state::Error::refused(format_args!("image"), "has not arrived", "");
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
