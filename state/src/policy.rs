//! What to do with files that are not as they were.

use sys::text::choice;

/// `--files` of the restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilesPolicy {
    /// A file that is gone, shorter, replaced, or written since is an error.
    #[default]
    Verify,
    /// A file that has grown goes back to its saved size; the cut tail is kept beside it.
    Rollback,
    /// Files are taken as they are.
    Ignore,
}

impl FilesPolicy {
    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Verify, Self::Rollback, Self::Ignore].get(choice(name, b"verify rollback ignore")?).copied()
    }
}
