//! What to do with files that are not as they were.

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
    /// The policy at this place of the list above.
    #[must_use]
    pub const fn from_number(n: usize) -> Self {
        match n {
            0 => Self::Verify,
            1 => Self::Rollback,
            _ => Self::Ignore,
        }
    }
}

/// Which open files' contents go into the image, for where they are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithFiles {
    /// None: they are where they were.
    #[default]
    None,
    /// The small ones, but not these, by device and inode: what a job removes or renames behind the save, and a restart from it needs.
    Small([(u64, u64); 3]),
    /// Those that are open for writing.
    Written,
    /// All.
    All,
}
