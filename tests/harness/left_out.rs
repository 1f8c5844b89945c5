//! What a test cannot do on this machine, said in one form, so that `cargo xtask test` counts it by name.
//!
//! A test that cannot run at all returns [`LeftOut`]: `cargo test` alone calls that a failure, `cargo xtask test` lists it with what it needs.
//! A test of which a part cannot run says so by [`in_part`] and goes on. Must never hide a failure: a panic, or any other error, stays one.

use std::path::Path;
use std::{fmt, io};

use anyhow::{Error, Result};

/// How a line that says so begins; what it needs and `): ` follow. `xtask/src/test/report.rs` reads it.
pub const MARK: &str = "LEFT OUT (needs ";

const PACKAGES: &str = include_str!("../packages.txt");

/// What would have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A Debian package.
    Package(&'static str),
    /// That root runs the tests.
    Root,
    /// Another machine, kernel or account.
    Machine,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(name) => write!(f, "package {name}"),
            Self::Root => write!(f, "root"),
            Self::Machine => write!(f, "another machine"),
        }
    }
}

/// The error of a test that cannot run here.
#[derive(Debug)]
pub struct LeftOut {
    /// What it needs.
    pub needs: Needs,
    /// What is missing, in words.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}): {}", self.needs, self.why)
    }
}

impl std::error::Error for LeftOut {}

/// For a test that cannot run at all.
#[must_use]
pub fn whole(needs: Needs, why: impl Into<String>) -> Error {
    LeftOut { needs, why: why.into() }.into()
}

/// For a program that could not be started: left out when it is of a package in `tests/packages.txt` and not there.
#[must_use]
pub fn not_started(program: &Path, error: io::Error) -> Error {
    let mut lines = PACKAGES.lines().filter_map(|line| line.split('#').next()?.trim().split_once(' '));
    let package = lines.find(|(_, command)| Path::new(command.trim()).file_name() == program.file_name());
    match package {
        // Only then: the working directory may be what is not there.
        Some((package, command))
            if error.kind() == io::ErrorKind::NotFound && program.is_absolute() && !program.exists() =>
        {
            let name = command.trim().rsplit('/').next().unwrap_or(command);
            whole(Needs::Package(package), format!("{name} is not installed"))
        }
        _ => error.into(),
    }
}

/// For a test of which a part cannot run.
pub fn in_part(needs: Needs, why: impl Into<String>) {
    println!("{}", LeftOut { needs, why: why.into() });
}

/// A test of what root alone can do.
///
/// # Errors
/// Somebody else runs the tests.
pub fn unless_root(why: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(whole(Needs::Root, why)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_left_out_and_no_other() {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let needs =
            |program: &str, error| Some(not_started(Path::new(program), error).downcast::<LeftOut>().ok()?.needs);
        assert_eq!(needs("/nowhere/unknown", gone()), None);
        // One that is there fails for another reason: its working directory is gone, say.
        assert_eq!(needs("/bin/sh", gone()), None);
        assert_eq!(needs("/nowhere/gdb", io::ErrorKind::PermissionDenied.into()), None);
        assert_eq!(needs("/nowhere/gdb", gone()), Some(Needs::Package("gdb")));
    }

    #[test]
    fn a_reason_keeps_its_form_below_others() {
        let error = whole(Needs::Package("gdb"), "gdb is not installed").context("as Own");
        assert!(format!("{error:?}").contains("LEFT OUT (needs package gdb): gdb is not installed"));
        assert!(error.downcast_ref::<LeftOut>().is_some());
    }
}
