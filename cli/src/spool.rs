//! An image from a stream (standard input or a FIFO) or out of a compressed file, kept in memory, where the stub can read
//! it at any place.
//!
//! Must never hand on a stream that might still change: the file is sealed before anybody looks at it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use image_format::elf::ZSTD_MAGIC;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, memfd_create, open};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::stdio::dup2_stdin;

use crate::compress;
use crate::described::Parts;
use crate::failure::{Failure, errno};
use crate::progress::{Bar, Progress};
use crate::text;

/// Whether `path` names a stream: standard input (`-`), a FIFO or another end of a pipe.
pub fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// How messages call it.
pub fn name(path: &Path) -> PathBuf {
    if path == Path::new("-") { "standard input".into() } else { path.to_owned() }
}

/// Reads the stream to its end, unpacked, into a file of its own in memory, which nobody can change any more.
pub fn spool(path: &Path, trust: bool) -> Result<File, Failure> {
    let name = name(path);
    keep_stream(&name, source(path, trust)?)
}

/// The same of a stream that messages call `name`.
pub fn keep_stream(name: &Path, mut from: impl Read) -> Result<File, Failure> {
    let mut first = Vec::new();
    let read = (&mut from).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut first);
    read.map_err(|e| compress::not_kept(name, &e))?;
    keep(name, first == ZSTD_MAGIC, first.chain(from))
}

/// What a compressed file holds, in such a file; none if it is not compressed. Files that others may write are refused, with
/// `distrust`.
pub fn unpacked(path: &Path, file: &File, distrust: bool) -> Result<Option<File>, Failure> {
    let mut first = [0; ZSTD_MAGIC.len()];
    if file.read_exact_at(&mut first, 0).is_err() || first != ZSTD_MAGIC {
        return Ok(None);
    }
    if distrust {
        check_owner(path, file)?;
    }
    PROGRESS.at_least(file.metadata().map_or(0, |meta| meta.len()));
    keep(path, true, file).map(Some)
}

/// What describes the image in a compressed file; none if it is not compressed.
pub fn described(path: &Path, file: &File) -> Result<Option<Parts>, Failure> {
    let mut first = [0; ZSTD_MAGIC.len()];
    if file.read_exact_at(&mut first, 0).is_err() || first != ZSTD_MAGIC {
        return Ok(None);
    }
    Parts::of(path, file).map(Some)
}

/// The same of a file by its name, if it is a regular one that can be opened: of any other the stub says what is wrong.
pub fn unpacked_file(path: &Path, trust: bool) -> Result<Option<File>, Failure> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    match file {
        Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => unpacked(path, &file, !trust),
        _ => Ok(None),
    }
}

/// How far it is.
static PROGRESS: Progress = Progress::new();

/// A stream whose bytes are counted.
struct Counted<R>(R);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(to)?;
        PROGRESS.add(n as u64);
        Ok(n)
    }
}

/// Keeps a stream in memory.
fn keep(name: &Path, compressed: bool, from: impl Read) -> Result<File, Failure> {
    let _bar = Bar::new("reading", &PROGRESS);
    let mut from = Counted(from);
    let memory = memfd_create("image", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|e| errno("memory for the image: cannot be had", e))?;
    let mut file = File::from(memory);
    if compressed {
        compress::unpack(name, from, &mut file)?;
    } else {
        compress::copy(&mut from, &mut file).map_err(|e| compress::not_kept(name, &e))?;
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fchmod(&file, Mode::RUSR)
        .and_then(|()| fcntl_add_seals(&file, seals))
        .map_err(|e| errno("memory for the image: cannot be sealed", e))?;
    Ok(file)
}

fn source(path: &Path, trust: bool) -> Result<File, Failure> {
    if path == Path::new("-") {
        let own = io::stdin().as_fd().try_clone_to_owned();
        return own.map(File::from).map_err(|e| Failure::unreadable(&name(path), "cannot be read", &e));
    }
    let file = File::open(path).map_err(|e| Failure::unreadable(path, "the image cannot be opened", &e))?;
    if !trust {
        check_owner(path, &file)?;
    }
    Ok(file)
}

/// The stub's rule for files: whoever may write it may run as the caller.
fn check_owner(path: &Path, file: &File) -> Result<(), Failure> {
    let meta = file.metadata().map_err(|e| Failure::unreadable(path, "the image cannot be examined", &e))?;
    let uid = rustix::process::geteuid().as_raw();
    if (meta.uid() == 0 || meta.uid() == uid) && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let what = format_args!("{}: others may write it: an image is code: --trust", text::path(path)).to_string();
    Err(Failure::new(ExitCode::Untrusted, what))
}

/// The file under a number of at least `above` that stays open across an exec, and a path that leads to it.
pub fn hand_on(file: &File, above: i32) -> Result<(OwnedFd, PathBuf), Failure> {
    let kept = fcntl_dupfd_cloexec(file, above).map_err(|e| errno("descriptors: above the limit (ulimit -n)", e))?;
    fcntl_setfd(&kept, FdFlags::empty()).map_err(|e| errno("descriptor", e))?;
    let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
    Ok((kept, path.into()))
}

/// After the stream: the program's standard input is the terminal again, if there is one; else the stream's end.
pub fn terminal_as_input() {
    if let Ok(terminal) = open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = dup2_stdin(&terminal);
    }
}
