//! The working directory.

use super::{StrRef, record};

record! {
    /// Its absolute path.
    Cwd, Cwd, 8, {
        /// The path.
        path: StrRef,
    }
}
