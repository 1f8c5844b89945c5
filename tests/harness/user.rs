//! Whom a test runs as: the user who runs the tests, and `nobody`, who may do least.

use anyhow::Result;

use crate::left_out::{self, Needs};

/// Uid and gid of `nobody` on Debian.
pub const NOBODY: u32 = 65534;

/// A user that guests run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Own,
    /// Uid and gid 65534 without any capability; only root can become that.
    Nobody,
}

impl User {
    /// Every user that the tests can be; says so when `nobody` is not among them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        if rustix::process::geteuid().is_root() {
            return vec![Self::Own, Self::Nobody];
        }
        left_out::in_part(Needs::Root, "as nobody: only root can become another user");
        vec![Self::Own]
    }

    /// Whether it is root.
    #[must_use]
    pub fn is_root(self) -> bool {
        self == Self::Own && rustix::process::geteuid().is_root()
    }

    /// Runs a test as every user that is possible; the error names the user.
    ///
    /// # Errors
    /// The test's own.
    pub fn each(test: impl Fn(Self) -> Result<()>) -> Result<()> {
        for user in Self::all() {
            test(user).map_err(|error| error.context(format!("as {user:?}")))?;
        }
        Ok(())
    }
}
