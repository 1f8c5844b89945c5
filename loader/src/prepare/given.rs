//! What `--fd N=…` puts in the place of a descriptor: a file, this process's own descriptor of that number (`inherit`), or an end whose
//! other side is gone (`closed`).
//!
//! Must never reach another process's descriptor that only has the same number: N is the root's, if that has one.

use image_format::record::descriptor::Descriptor;
use image_format::record::process::FD_MASK;
use image_format::record::regular::Regular;
use image_format::{Checked, ExitCode, NoteType, OpenFile};
use loader::options::Options;
use state::restart::{Error, Result};
use sys::Errno;
use sys::abi::net::{AF_UNIX, SOCK_STREAM};
use sys::abi::{O_ACCMODE, O_APPEND, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, SEEK_SET, Stat};
use sys::fs::{Fd, Owned};

use super::is_in_transit;

/// `--fd ID=stream:N`, which `ckpt run` says: all descriptors of the open file with this id are to be this process's own descriptor N: 0, 1 or 2.
const STREAM: &[u8] = b"stream:";

/// What is asked for a descriptor of the program's table.
pub fn asked_for<'o>(image: &Checked<'_>, options: &Options<'o>, descriptor: &Descriptor) -> Option<&'o [u8]> {
    if is_in_transit(image, descriptor) {
        // It is no number of the program's.
        return None;
    }
    let fd = descriptor.fd.get() & FD_MASK;
    let is_meant = descriptor.fd.get() == fd || !image.each::<Descriptor>().any(|d| d.fd.get() == fd);
    let asked = options.fds.iter().flatten();
    let mut asked =
        asked.filter(|(n, what)| if what.starts_with(STREAM) { descriptor.file == *n } else { *n == fd && is_meant });
    asked.next().map(|(_, what)| *what)
}

/// The root's descriptor of the same number as this one of another process, if it leads to the same open file and something is asked
/// for it: both get that.
pub fn shared_with(image: &Checked<'_>, options: &Options<'_>, descriptor: &Descriptor) -> Option<usize> {
    let fd = descriptor.fd.get() & FD_MASK;
    let index = image.each::<Descriptor>().position(|d| d.fd.get() == fd && d.file == descriptor.file)?;
    let root = image.table::<Descriptor>().get(index).filter(|root| root.fd != descriptor.fd)?;
    asked_for(image, options, root).map(|_| index)
}

/// Makes or opens it.
///
/// # Errors
/// What cannot be had.
pub fn open(image: &Checked<'_>, fd: u32, file: OpenFile<'_>, what: &[u8]) -> Result<Fd> {
    let mode = file.flags() & O_ACCMODE;
    let failed = |e| Error::about(ExitCode::Descriptor, "--fd #=@: cannot be opened (!)", fd, what, e);
    if let Some([digit]) = what.strip_prefix(STREAM) {
        return inherit(image, u32::from(digit & 3), file).map_err(failed);
    }
    match what {
        b"inherit" => inherit(image, fd, file).map_err(failed),
        b"closed" => closed(file, mode).map_err(failed),
        path => {
            // Standard output and error may be led to the same file; and nothing that is there is lost.
            let flags = if mode == O_RDONLY { mode } else { mode | O_APPEND | O_CREAT };
            sys::fs::open_path(path, flags, 0o666).map(Owned::release).map_err(failed)
        }
    }
}

/// This process's own. Where it is the very file that the program had, and can be cut back, the position is the program's.
fn inherit(image: &Checked<'_>, fd: u32, file: OpenFile<'_>) -> sys::Result<Fd> {
    let own = Fd::try_from(fd).map_err(|_| Errno::EBADF)?;
    let now = sys::fs::fstat(own)?;
    if let Some(regular) = file.of::<Regular>()
        && is_old(image, regular, &now)
        && now.size as u64 >= regular.offset.get()
    {
        sys::fs::seek(own, regular.offset.get() as i64, SEEK_SET)?;
    }
    sys::fs::dup_above(own, 64)
}

/// An end whose other side is gone.
fn closed(file: OpenFile<'_>, mode: u32) -> sys::Result<Fd> {
    let is_socket = file.kind == NoteType::Socket || ![O_RDONLY, O_WRONLY].contains(&mode);
    let ends =
        if is_socket { sys::socket::pair([AF_UNIX as usize, SOCK_STREAM as usize, 0])? } else { sys::fs::pipe(0)? };
    let [read, write] = ends;
    Ok(if mode == O_RDONLY { read } else { write }.release())
}

/// Whether a file that the program had open is another one now, which was given to it, or cannot be opened by its name: it is not cut back.
pub fn replaces(image: &Checked<'_>, descriptors: &[Fd], file: &Regular) -> bool {
    let open = state::descriptor::now(image, descriptors, file.id.get());
    open.is_some_and(|open| !sys::fs::fstat(open).is_ok_and(|now| is_old(image, file, &now)))
}

/// Whether a file is the one that has the old name, and may be opened by it for all that the restart does with it.
fn is_old(image: &Checked<'_>, file: &Regular, now: &Stat) -> bool {
    let mode = if file.flags.get() & O_ACCMODE == O_RDONLY { O_RDONLY } else { O_RDWR };
    let named = sys::fs::open_path(image.string(file.path), mode | O_NONBLOCK, 0);
    let named = named.and_then(|named| sys::fs::fstat(named.fd()));
    named.is_ok_and(|named| (named.dev, named.ino) == (now.dev, now.ino))
}
