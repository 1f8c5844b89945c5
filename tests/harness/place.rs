//! A test's own directory: a copy of `dist/` that every user can reach, and a working directory of the guest's user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::programs::{self, Link};
use crate::user::{NOBODY, User};
use crate::{dist, job};

/// Puts a program where every user can run it: a link, or a copy where links do not reach.
///
/// A link, as a copy is open for writing for a moment, and a child that another test starts just then keeps it so.
/// What is there already stays: a copy over a link would write into the program that all tests share.
fn bring(from: &Path, to: &Path) -> Result<()> {
    if to.try_exists()? {
        return Ok(());
    }
    let runs = fs::metadata(from)?.permissions().mode() & 0o555 == 0o555;
    if runs && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A directory that disappears with the value.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    user: User,
}

impl Place {
    /// Makes the directory and fills its `bin`.
    ///
    /// # Errors
    /// `dist/` is not built, or the disk is full.
    pub fn new(user: User) -> Result<Self> {
        default_signals();
        let dist = dist::dir()?;
        let dir = tempfile::Builder::new().prefix("ckpt-test-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let place = Self { dir, user };
        fs::create_dir(place.bin())?;
        for file in ["ckpt", "restart-stub", "libckpt.so"] {
            bring(&dist.join(file), &place.bin().join(file))?;
        }
        fs::create_dir(place.work())?;
        place.give(&place.work())?;
        Ok(place)
    }

    /// Makes a file or directory the guest's user's own.
    ///
    /// # Errors
    /// It is not there.
    pub fn give(&self, path: &Path) -> Result<()> {
        if self.user == User::Nobody {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        Ok(())
    }

    /// Whom guests run as.
    #[must_use]
    pub fn user(&self) -> User {
        self.user
    }

    /// Where the product and the guests lie.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// The guests' working directory.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A file in the working directory.
    #[must_use]
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.work().join(name)
    }

    /// Writes such a file; it belongs to the guest's user.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, contents)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Builds a guest and puts it into `bin`.
    ///
    /// # Errors
    /// It does not build.
    pub fn guest(&self, name: &str) -> Result<PathBuf> {
        self.linked_guest(name, Link::Dynamic)
    }

    /// The same for one that is linked with the library.
    ///
    /// # Errors
    /// It does not build.
    pub fn linked_guest(&self, name: &str, link: Link) -> Result<PathBuf> {
        let path = self.bin().join(name);
        bring(&programs::build(name, link)?, &path)?;
        Ok(path)
    }

    /// Lets waiting guests go on.
    ///
    /// # Errors
    /// The disk is full.
    pub fn go(&self) -> Result<()> {
        Ok(fs::write(self.file("go"), "")?)
    }

    /// Makes guests wait again.
    ///
    /// # Errors
    /// There was no [`Place::go`].
    pub fn halt(&self) -> Result<()> {
        Ok(fs::remove_file(self.file("go"))?)
    }

    /// A command as the place's user, in its working directory, with a small environment and a session of its own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.bare(program);
        job::in_own_session(&mut command, false);
        command
    }

    /// The same without the session: for a terminal, which makes one.
    #[must_use]
    pub fn bare(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        job::with_no_other_descriptors(&mut command);
        command.current_dir(self.work()).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.work()).env("LANG", "C.UTF-8");
        // tmux takes it; that of nobody lets nobody in.
        command.env("SHELL", "/bin/sh");
        command.env("TERM", "xterm").env("GUEST_GO", self.file("go"));
        if self.user == User::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Adds what arms a command: SIGUSR1 saves it to `image` and it goes on.
    pub fn arm<'c>(&self, command: &'c mut Command, image: &Path) -> &'c mut Command {
        command.env("LD_PRELOAD", self.bin().join("libckpt.so")).env("CKPT_IMAGE", image).env("CKPT_SIGNAL", "USR1")
    }

    /// An armed command.
    #[must_use]
    pub fn armed(&self, program: impl AsRef<OsStr>, image: &Path) -> Command {
        let mut command = self.command(program);
        self.arm(&mut command, image);
        command
    }

    /// `restart-stub IMAGE`; options may follow.
    #[must_use]
    pub fn stub(&self, image: &Path) -> Command {
        let mut command = self.command(self.bin().join("restart-stub"));
        command.arg(image);
        command
    }

    /// `ckpt`; arguments follow.
    #[must_use]
    pub fn ckpt(&self) -> Command {
        self.command(self.bin().join("ckpt"))
    }
}

/// Programs inherit ignored signals, and whoever runs the tests in the background has SIGINT and SIGQUIT ignored: a guest
/// would be saved so, and Ctrl-C have no effect on it.
fn default_signals() {
    for name in ["INT", "QUIT"] {
        if let Some(signal) = sys::signal::number(name.as_bytes()) {
            // SAFETY: the default action is no code.
            let _ = unsafe { sys::signal::set_action(signal, &sys::abi::signal::Sigaction::default()) };
        }
    }
}
