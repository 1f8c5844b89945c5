//! The working directory.

use super::{StrRef, record};

record! {
    /// Its absolute path.
    Cwd, Cwd, 8, {
        /// The path; with a slash at its end: a directory that was removed.
        path: StrRef,
    }
}
