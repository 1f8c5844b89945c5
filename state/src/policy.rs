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
    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"verify" => Self::Verify,
            b"rollback" => Self::Rollback,
            b"ignore" => Self::Ignore,
            _ => return None,
        })
    }
}
