//! Older images beside the one under its name: IMAGE.1 is the one before, IMAGE.2 the one before that.
//!
//! Must never leave a moment without an image, where the file system has links.

use sys::Errno;
use sys::fs::Fd;
use sys::text::Text;

/// Names are at most 255 bytes long; what is longer, the kernel refuses.
type Name = Text<272>;

fn numbered(name: &Text<256>, n: u32) -> Name {
    let mut older = Name::new();
    older.push(name.as_bytes());
    if n > 0 {
        older.push(Text::<16>::of(format_args!(".{n}")).as_bytes());
    }
    older
}

/// Gives the image that has `name` the name of an older one, and so on up to `keep` of them; it keeps its own, too. `hidden`: a name that is
/// free for a moment.
///
/// # Errors
/// The kernel's; no image is lost.
pub(super) fn shift(dir: Fd, name: &Text<256>, keep: u32, hidden: &Text<40>) -> sys::Result<()> {
    for n in (1..keep).rev() {
        rename(dir, &numbered(name, n), &numbered(name, n + 1))?;
    }
    if keep == 0 {
        return Ok(());
    }
    let (own, first) = (numbered(name, 0), numbered(name, 1));
    let linked = match sys::fs::link_name_at(dir, own.as_c_str(), hidden.as_c_str()) {
        // Left by one that was killed just there.
        Err(Errno::EEXIST) => {
            sys::fs::unlink_at(dir, hidden.as_c_str())?;
            sys::fs::link_name_at(dir, own.as_c_str(), hidden.as_c_str())
        }
        done => done,
    };
    match linked {
        Ok(()) => sys::fs::rename_at(dir, hidden.as_c_str(), first.as_c_str()),
        Err(Errno::ENOENT) => Ok(()),
        // A file system without links.
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => rename(dir, &own, &first),
        Err(e) => Err(e),
    }
}

fn rename(dir: Fd, from: &Name, to: &Name) -> sys::Result<()> {
    match sys::fs::rename_at(dir, from.as_c_str(), to.as_c_str()) {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    }
}
