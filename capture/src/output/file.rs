//! The file that an image becomes. It has no name while it is written; then it gets its own, whole and durable.
//!
//! Where a file system has no nameless files (`O_TMPFILE`), it has a hidden name meanwhile. Must never show in a directory before
//! the walk over the process is over, which may watch that directory; nor take the place of what is no image.

use image_format::reader::{NOTE_LEAD, Need, PROBE_LEN, is_first_note};
use state::{Error, Result};
use sys::Errno;
use sys::abi::{
    AT_SYMLINK_NOFOLLOW, LOCK_EX, LOCK_NB, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
    O_RDWR, O_TMPFILE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, Stat,
};
use sys::fs::{Fd, Owned};
use sys::text::{Shown, Text};

use super::older;

/// Most hidden names that are tried: as many savers may write to one image at a time.
const NAMES_MAX: u32 = 64;

/// What is to be done about a file that is no image.
const FORCE: &str = "choose another name; `ckpt save --force` replaces it";

/// A hidden name.
type Hidden = Text<40>;

/// How an image takes its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placing {
    /// Replace a file that is no image, too.
    pub force: bool,
    /// How many older images are kept, as IMAGE.1 and so on.
    pub older: u32,
    /// Tells of an open file whether it is an image of another kind than this crate knows.
    pub knows: Option<fn(Fd) -> bool>,
    /// A child of the saver sees to it that no hidden name stays when the saver is killed.
    pub guarded: bool,
}

/// An image's file.
#[derive(Debug)]
pub struct NewFile {
    dir: Owned,
    name: Text<256>,
    placing: Placing,
    /// None before the first byte.
    file: Option<Owned>,
    /// The name that it has meanwhile.
    hidden: Option<Hidden>,
    /// The id of the child that would take this name away.
    guard: Option<i32>,
    /// The image that had the name: the kernel frees what it occupied when nobody has it open any more, which takes time.
    replaced: Option<Owned>,
}

impl NewFile {
    /// Looks whether an image can be put there; creates nothing. `path` must be absolute.
    ///
    /// # Errors
    /// The directory is not there or not writable; what has the name is no image.
    pub fn new(path: &[u8], placing: Placing) -> Result<Self> {
        let failed = |why| move |e| Error::failed(format_args!("image {}", Shown(path)), why, e);
        let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        let (dir, base) = path.split_at_checked(cut).unwrap_or((b"", path));
        let mut dir_name = Text::<{ sys::abi::PATH_MAX }>::new();
        dir_name.push(if dir.is_empty() { b"." } else { dir });
        let mut name = Text::<256>::new();
        name.push(base);
        if base.is_empty() || name.is_cut() || dir_name.is_cut() {
            return Err(failed("is no name of a file")(Errno::ENAMETOOLONG));
        }
        // To open it in another way would be told to who watches it.
        let dir = sys::fs::open(dir_name.as_c_str(), O_DIRECTORY | O_PATH, 0)
            .map_err(failed("its directory cannot be opened"))?;
        sys::fs::may_create_in(dir.fd()).map_err(failed("no file can be created in its directory"))?;
        let this = Self { dir, name, placing, file: None, hidden: None, guard: None, replaced: None };
        this.stands_free()?;
        Ok(this)
    }

    /// Refuses to replace what is no regular file.
    fn stands_free(&self) -> Result<Option<Stat>> {
        let image = format_args!("image {}", self.name);
        let stat = self.there().map_err(|e| Error::failed(image, "cannot be examined", e))?;
        let other = stat.as_ref().and_then(other_kind);
        other.map_or(Ok(stat), |kind| {
            Err(Error::refused(image, kind, "give the name of a file, or - for standard output"))
        })
    }

    /// Refuses to replace what is no image.
    fn replaces_image(&self) -> Result<()> {
        let failed = |why, e| Error::failed(format_args!("image {}", self.name), why, e);
        let stat = self.stands_free()?;
        if self.placing.force || stat.is_none_or(|stat| stat.size == 0) {
            return Ok(());
        }
        let file = sys::fs::open_at(self.dir.fd(), self.name.as_c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
            .map_err(|e| failed("is there, and cannot be read to see whether it is an image", e).remedy(FORCE))?;
        let is_image = begins_image(|at, to| sys::fs::pread_exact(file.fd(), to, at));
        if is_image || self.placing.knows.is_some_and(|knows| knows(file.fd())) {
            return Ok(());
        }
        Err(Error::refused(format_args!("image {}", self.name), "is there, and is no image", FORCE))
    }

    /// What has the name.
    fn there(&self) -> sys::Result<Option<Stat>> {
        match sys::fs::stat_at(self.dir.fd(), self.name.as_c_str(), AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Its descriptors: the directory's, and, once there is one, the file's own.
    pub fn descriptors(&self) -> [Fd; 2] {
        [self.dir.fd(), self.file.as_ref().map_or(-1, Owned::fd)]
    }

    /// The file, which is created by the first call.
    ///
    /// # Errors
    /// What has the name is no image; no file can be created.
    pub fn open(&mut self) -> Result<Fd> {
        if let Some(file) = &self.file {
            return Ok(file.fd());
        }
        self.replaces_image()?;
        let file = self.created().map_err(|e| self.failed(e))?;
        Ok(self.file.insert(file).fd())
    }

    /// What the kernel says of the file.
    pub fn failed(&self, errno: Errno) -> Error {
        Error::failed(format_args!("image {}", self.name), "cannot be written", errno)
    }

    fn created(&mut self) -> sys::Result<Owned> {
        match sys::fs::open_at(self.dir.fd(), c".", O_RDWR | O_TMPFILE, 0o600) {
            // As a file system that knows no such files says it, and a kernel.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => self.open_hidden(),
            other => other,
        }
    }

    /// A file with a hidden name. One that a saver has left which was killed is taken away first: nobody holds its lock.
    fn open_hidden(&mut self) -> sys::Result<Owned> {
        let dir = self.dir.fd();
        if self.placing.guarded {
            // SAFETY: it makes system calls alone.
            self.guard = Some(unsafe { sys::child::guard(|| self.clean_up()) }?);
        }
        for n in 0..NAMES_MAX {
            let hidden = self.hidden_name(n);
            for _ in 0..NAMES_MAX {
                let create = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
                match sys::fs::open_at(dir, hidden.as_c_str(), create, 0o600) {
                    Ok(file) => {
                        if lock(dir, &file, &hidden)? {
                            self.hidden = Some(hidden);
                            return Ok(file);
                        }
                    }
                    Err(Errno::EEXIST) if !take_away(dir, &hidden) => break,
                    Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Err(Errno::EEXIST)
    }

    /// When the saver has been killed: what it has written. Its own files, locks too, go with their last descriptors, which are here.
    fn clean_up(&self) {
        let dir = self.dir.fd() as u32;
        // SAFETY: the guard's own table has only the directory left to do with.
        let _ = dir.checked_sub(1).map(|last| unsafe { sys::fs::close_range(0, last) });
        // SAFETY: as above.
        let _ = unsafe { sys::fs::close_range(dir + 1, u32::MAX) };
        for n in 0..NAMES_MAX {
            take_away(self.dir.fd(), &self.hidden_name(n));
        }
    }

    /// The same for each saver to this image, so that what is left by one that was killed does not add up.
    fn hidden_name(&self, n: u32) -> Hidden {
        Text::of(format_args!(".ckpt-{:016x}-{n}", image_format::seal::sum(self.name.as_bytes())))
    }

    /// Begins anew after a failed attempt.
    ///
    /// # Errors
    /// The kernel's.
    pub fn restart(&mut self) -> sys::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| sys::fs::truncate(file.fd(), 0))
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// The kernel's; then the old image is whole.
    pub fn finish(&mut self) -> Result<()> {
        let file = self.open()?;
        self.stands_free()?;
        let named = sys::fs::chmod(file, 0o400).and_then(|()| sys::fs::fsync(file)).and_then(|()| self.name_it(file));
        named.map_err(|e| self.failed(e))?;
        self.dismiss();
        let synced = sys::fs::open_at(self.dir.fd(), c".", O_DIRECTORY, 0).and_then(|dir| sys::fs::fsync(dir.fd()));
        // The name is in place already: a directory that cannot be synced (some network file systems) is no failure,
        // but one that could not be written is.
        match synced {
            Err(e @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)) => Err(self.failed(e)),
            _ => Ok(()),
        }
    }

    fn name_it(&mut self, file: Fd) -> sys::Result<()> {
        let dir = self.dir.fd();
        if self.hidden.is_none() {
            // Where there is no old image, it shows once.
            match sys::fs::link_at(file, dir, self.name.as_c_str()) {
                Err(Errno::EEXIST) => {}
                done => return done,
            }
            let hidden = self.hidden_name(0);
            for _ in 0..NAMES_MAX {
                match sys::fs::link_at(file, dir, hidden.as_c_str()) {
                    // Left by one that was killed just there.
                    Err(Errno::EEXIST) => {
                        let _ = sys::fs::unlink_at(dir, hidden.as_c_str());
                    }
                    done => {
                        done?;
                        self.hidden = Some(hidden);
                        break;
                    }
                }
            }
        }
        let hidden = self.hidden.as_ref().ok_or(Errno::EEXIST)?;
        older::shift(dir, &self.name, self.placing.older, &self.hidden_name(NAMES_MAX))?;
        self.replaced = sys::fs::open_at(dir, self.name.as_c_str(), O_PATH | O_NOFOLLOW, 0).ok();
        sys::fs::rename_at(dir, hidden.as_c_str(), self.name.as_c_str())?;
        self.hidden = None;
        Ok(())
    }

    /// The image that was replaced.
    pub fn take_replaced(&mut self) -> Option<Owned> {
        self.replaced.take()
    }

    fn dismiss(&mut self) {
        if let Some(guard) = self.guard.take() {
            let _ = sys::process::kill(guard, sys::abi::signal::SIGKILL);
            sys::child::reap(guard as u32);
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            let _ = sys::fs::unlink_at(self.dir.fd(), hidden.as_c_str());
        }
        self.dismiss();
    }
}

/// Takes away what a saver has left that was killed: nobody has its lock. False: somebody writes it.
fn take_away(dir: Fd, hidden: &Hidden) -> bool {
    match sys::fs::open_at(dir, hidden.as_c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0) {
        Ok(left) if lock(dir, &left, hidden).is_ok_and(|is| is) => sys::fs::unlink_at(dir, hidden.as_c_str()).is_ok(),
        Err(Errno::ENOENT) => true,
        _ => false,
    }
}

/// Takes the lock on a file with a hidden name; false: another one has it, or the name is not the file's any more.
fn lock(dir: Fd, file: &Owned, hidden: &Hidden) -> sys::Result<bool> {
    match sys::fs::flock(file.fd(), LOCK_EX | LOCK_NB) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => return Ok(false),
        Err(e) => return Err(e),
    }
    let own = sys::fs::fstat(file.fd())?;
    let named = sys::fs::stat_at(dir, hidden.as_c_str(), AT_SYMLINK_NOFOLLOW);
    Ok(named.is_ok_and(|named| (named.dev, named.ino) == (own.dev, own.ino)))
}

/// What something is that is no regular file.
fn other_kind(stat: &Stat) -> Option<&'static str> {
    match stat.mode & S_IFMT {
        S_IFREG => None,
        S_IFDIR => Some("is a directory"),
        S_IFLNK => Some("is a symbolic link"),
        S_IFCHR | S_IFBLK => Some("is a device"),
        S_IFIFO => Some("is a FIFO"),
        _ => Some("is a socket"),
    }
}

/// Whether a file begins as an image does; `read` fills a buffer from an offset on.
pub fn begins_image<E>(read: impl Fn(u64, &mut [u8]) -> core::result::Result<(), E>) -> bool {
    let (mut first, mut note) = ([0; PROBE_LEN], [0; NOTE_LEAD]);
    if read(0, &mut first).is_err() {
        return false;
    }
    let notes = Need::probe(&first, u64::MAX).map(|need| need.notes());
    notes.is_ok_and(|at| read(at, &mut note).is_ok() && is_first_note(&note))
}
