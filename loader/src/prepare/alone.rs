//! No trees: the smaller stub restarts one process, and refuses an image of several, which only `ckpt` can give their ids, and one with
//! System V memory that has an id, or semaphores.
//! Stands in for `tree.rs`, with the same names.

use image_format::record::header::Features;
use image_format::{Checked, ExitCode};
use loader::options::Options;
use state::setting::When;
use state::{Error, Result};
use sys::packed;

use super::files::Files;
use super::region::Plan;

/// Nobody meets.
pub const MEETING_LEN: u64 = 0;

/// A process's place in its tree: the only one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tree(());

impl Tree {
    /// Its place.
    pub const fn place(self) -> u32 {
        0
    }

    /// Nobody else is there.
    pub const fn meeting(self) -> u64 {
        0
    }

    /// Nobody has others than those of the restart.
    ///
    /// # Errors
    /// Never.
    #[allow(clippy::unnecessary_wraps, reason = "as in tree.rs")]
    pub const fn with_rights(self, _: &Checked<'_>) -> Result<Self> {
        Ok(self)
    }

    /// There is nothing to be moved.
    ///
    /// # Errors
    /// Never.
    #[allow(clippy::unnecessary_wraps, reason = "as in tree.rs")]
    pub const fn moved_to(self, _: u64) -> sys::Result<Self> {
        Ok(self)
    }
}

/// There are no others to be told.
pub const fn fail(_: i32) {}

/// As above.
pub const fn meets_at(_: &Tree) {}

/// There are no others to be met.
pub const fn meet(_: &Tree, _: u32) {}

/// As above.
pub const fn join(_: &Plan) {}

/// Settings come all at once.
pub const fn settings_first(_: &Plan) -> When {
    When::First
}

/// There is nobody who has other ones.
pub const fn rights(_: &Plan, _: &Checked<'_>, _: bool) {}

/// Descriptors have their own numbers.
pub const fn told(_: &Checked<'_>, error: Error) -> Error {
    error
}

/// There are none of others.
///
/// # Errors
/// Never.
#[allow(clippy::unnecessary_wraps, reason = "as in tree.rs")]
pub const fn pidfds(_: &Plan, _: &Checked<'_>) -> sys::Result<()> {
    Ok(())
}

/// Makes no other process.
///
/// # Errors
/// Never.
#[allow(clippy::unnecessary_wraps, reason = "as in tree.rs")]
pub fn grow(_: &Checked<'static>, _: &Options<'_>, _: &Files) -> Result<Tree> {
    Ok(Tree::default())
}

/// Whether this stub can restart it: asked before anything is missed that only the larger one makes.
///
/// # Errors
/// The image is of several processes, or of one that the larger stub is for.
pub fn check(image: &Checked<'_>) -> Result<()> {
    let larger = Features::TREE.union(Features::SYSV).union(Features::SECCOMP).union(Features::PIPES_AGAIN);
    if image.header().required.get() & larger.bits() == 0 {
        return Ok(());
    }
    let what = packed!(
        "process #: is one of a tree, or has System V objects, seccomp filters or a pipe opened again: ckpt restart IMAGE"
    );
    Err(Error::about(what, image.header().pid, b"", None).code(ExitCode::Newer))
}
