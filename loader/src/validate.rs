//! What an image must fulfil beyond its own format before anything is opened or mapped: every object's `check`.

use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::pipe::Pipe;
use image_format::record::regular::Regular;
use image_format::record::rlimit::Rlimit;
use image_format::record::terminal::Terminal;
use image_format::{ExitCode, Image};
use state::{Error, Result};

/// Highest descriptor that Linux can have (`sysctl_nr_open_max`).
const FD_MAX: u32 = 1 << 30;

/// Checks all tables of an image whose seal is right.
///
/// # Errors
/// The first object that contradicts itself.
pub fn all(image: &Image<'_>) -> Result<()> {
    state::memory::check(image)?;
    state::thread::check(image)?;
    state::mm::check(image)?;
    state::sigaction::check(image)?;
    state::pending::check(image)?;
    state::itimer::check(image)?;
    state::lock::check(image)?;
    image.string(image.single::<image_format::record::cwd::Cwd>()?.path)?;
    image.single::<image_format::record::umask::Umask>()?;
    if let Some(limit) = image.table::<Rlimit>()?.iter().find(|l| l.resource.get() >= sys::abi::RLIM_NLIMITS) {
        return Err(malformed(format_args!("limit {}", limit.resource), "does not exist"));
    }
    descriptors(image)
}

fn malformed(object: core::fmt::Arguments<'_>, why: &'static str) -> Error {
    Error::refused(object, why, "").code(ExitCode::Malformed)
}

/// Whether ids ascend, so that [`has`] may search by halves: a hostile image must not make this slow.
fn ascending<R>(table: &[R], id: impl Fn(&R) -> u32) -> bool {
    table.is_sorted_by(|a, b| id(a) < id(b))
}

fn has<R>(table: &[R], wanted: u32, id: impl Fn(&R) -> u32) -> usize {
    usize::from(table.binary_search_by_key(&wanted, id).is_ok())
}

/// Descriptors ascend, and each points to one description.
fn descriptors(image: &Image<'_>) -> Result<()> {
    let regular = image.table::<Regular>()?;
    let directories = image.table::<Directory>()?;
    let devices = image.table::<Device>()?;
    let pipes = image.table::<Pipe>()?;
    let terminals = image.table::<Terminal>()?;
    let sorted = ascending(regular, |f| f.id.get())
        && ascending(directories, |f| f.id.get())
        && ascending(devices, |f| f.id.get())
        && ascending(pipes, |f| f.id.get())
        && ascending(terminals, |f| f.id.get());
    if !sorted {
        return Err(malformed(format_args!("open files"), "their ids are out of order"));
    }
    let mut last = None;
    for descriptor in image.table::<Descriptor>()? {
        let fd = descriptor.fd.get();
        if last.is_some_and(|l| fd <= l) || fd > FD_MAX {
            return Err(malformed(format_args!("descriptor {fd}"), "is out of order, or too large"));
        }
        last = Some(fd);
        let id = descriptor.file.get();
        let found = has(regular, id, |f| f.id.get())
            + has(directories, id, |f| f.id.get())
            + has(devices, id, |f| f.id.get())
            + has(pipes, id, |f| f.id.get())
            + has(terminals, id, |f| f.id.get());
        if found != 1 {
            return Err(malformed(format_args!("descriptor {fd}"), "points to no open file, or to several"));
        }
    }
    Ok(())
}
