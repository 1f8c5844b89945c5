//! Files of Unix sockets that are bound to a path: whose they are, and in which directory a relative path begins.
//!
//! A socket keeps the name that it was bound to, whatever becomes of the file; whoever connects needs the file. Must never take away a
//! file that a socket of another program may have.

use core::convert::Infallible;

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::{O_DIRECTORY, O_PATH};
use sys::fs::Fd;
use sys::text::Text;

use super::Address;
use super::one::{One, Role, failed, refuse};
use super::steps::Steps;
use crate::{Result, Target};

/// Looks for the file of a socket that is bound to a path.
///
/// # Errors
/// A socket that others find by its file is bound to one that has another name now, or may have.
pub fn find<T: Target>(target: &T, one: &mut One) -> Result<()> {
    let Some(path) = one.local.path() else { return Ok(()) };
    let (proc, _) = target.at(one.fd);
    let cwd = sys::fs::open_at(proc, c"cwd", O_DIRECTORY | O_PATH, 0).map_err(failed(one, "has no directory"))?;
    let mut name = Text::<128>::new();
    name.push(path);
    match sys::fs::stat_at(cwd.fd(), name.as_c_str(), 0) {
        Ok(stat) if stat.ino as u32 == one.file => {
            (one.mode, one.user, one.group) = (stat.mode, stat.uid, stat.gid);
            return Ok(());
        }
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        Err(e) => return Err(failed(one, "has a file that cannot be examined")(e)),
    }
    // Nobody finds a connection by its file.
    if !one.is(Role::Listens) && !one.is(Role::Plain) || is_gone(target, one, path)? {
        return Ok(());
    }
    let why = "is bound to a file that has another name now, or may have";
    Err(refuse(one, why, "bind it to that name, or close it before the save"))
}

/// Whether a file that does not have its old name has none any more. The kernel tells that only whom it allows to open it; for others
/// a file that is not in its old directory is gone, if that is known.
fn is_gone<T: Target>(target: &T, one: &One, path: &[u8]) -> Result<bool> {
    let cannot = || failed(one, "has a file that cannot be examined");
    let own = target.borrow(one.fd as Fd).map_err(cannot())?;
    match sys::socket::file(own.fd()) {
        Ok(file) => {
            return sys::fs::fstat(file.fd()).map(|stat| stat.nlink == 0).map_err(cannot());
        }
        Err(Errno::EPERM) => {}
        Err(e) => return Err(cannot()(e)),
    }
    let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|_| path.first() == Some(&b'/')) else {
        return Ok(false);
    };
    let mut folder = Text::<128>::new();
    folder.push(path.get(..slash.max(1)).unwrap_or_default());
    let folder = match sys::fs::open(folder.as_c_str(), O_DIRECTORY, 0) {
        Ok(folder) => folder,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(true),
        Err(e) => return Err(cannot()(e)),
    };
    let mut renamed = false;
    sys::fs::for_each_name(folder.fd(), |name| {
        let mut other = Text::<256>::new();
        other.push(name);
        let stat = sys::fs::stat_at(folder.fd(), other.as_c_str(), sys::abi::AT_SYMLINK_NOFOLLOW);
        renamed |= stat.is_ok_and(|stat| stat.ino as u32 == one.file);
        Ok::<_, Infallible>(())
    })
    .map_err(cannot())?
    .unwrap_or_else(|never| match never {});
    Ok(!renamed)
}

/// A step with the address of `one`, whose path may begin in the directory of its process.
///
/// # Errors
/// No room.
pub fn push<T: Target>(
    steps: &mut Steps<'_, '_, '_, T>,
    one: &One,
    (socket, step): (u32, Step),
    numbers: (u32, u32),
) -> Result<()> {
    at(steps, one, (socket, step), numbers, &one.local)
}

/// The same with another address, as the process of `one` knows it.
///
/// # Errors
/// No room.
pub fn at<T: Target>(
    steps: &mut Steps<'_, '_, '_, T>,
    one: &One,
    (socket, step): (u32, Step),
    numbers: (u32, u32),
    address: &Address,
) -> Result<()> {
    if address.path().is_some_and(|path| path.first() != Some(&b'/')) {
        // A restart makes all sockets in the directory of the root.
        let target = &steps.save.target;
        let (mut own, mut roots) = ([0; 4097], [0; 4097]);
        let cannot = || failed(one, "has no directory");
        let own = sys::fs::read_link_at(target.at(one.fd).0, c"cwd", &mut own).map_err(cannot())?;
        let roots = sys::fs::read_link_at(target.proc_of(0), c"cwd", &mut roots).map_err(cannot())?;
        if own != roots {
            steps.push(socket, Step::Within, (0, 0), own)?;
            steps.push(socket, step, numbers, address.bytes())?;
            return steps.push(socket, Step::Within, (0, 0), &[]);
        }
    }
    steps.push(socket, step, numbers, address.bytes())
}

/// Binds a socket to its path for good: the file gets back its mode, owner and group.
///
/// # Errors
/// No room.
pub fn bind<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    push(steps, one, (one.id, Step::Bind), (0, 0))?;
    if one.mode != 0 {
        push(steps, one, (one.id, Step::Owner), (one.user, one.group))?;
        // A new owner takes bits away.
        push(steps, one, (one.id, Step::Mode), (one.mode, 0))?;
    }
    Ok(())
}

/// Gives a socket its name alone. `stale`: the file that may be there is the program's own.
///
/// # Errors
/// No room.
pub fn name<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, stale: bool) -> Result<()> {
    push(steps, one, (one.id, Step::Bind), (u32::from(!stale), 0))?;
    push(steps, one, (one.id, Step::Unlink), (0, 0))
}
