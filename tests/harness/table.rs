//! What became of each kernel object, for the table of `cargo xtask test --objects`.
//!
//! Lines of a file that `CKPT_TABLE` names: object, way, user, outcome, with tabs between them. Must never fail a test.

use std::fs::File;
use std::io::Write;

use anyhow::Result;

use crate::User;

/// What became of an object in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there again, and all that its guest verified.
    Pass,
    /// The save named it, and nothing was touched.
    Refused,
    /// This kernel cannot make one.
    Skipped,
    /// Neither.
    Fail,
}

impl Outcome {
    /// `Fail` for an error, else this.
    pub fn or_fail<T>(self, result: &Result<T>) -> Self {
        if result.is_ok() { self } else { Self::Fail }
    }
}

/// Enters an outcome, when somebody wants a table.
pub fn enter(object: &str, way: &str, user: User, outcome: Outcome) {
    let Some(path) = std::env::var_os("CKPT_TABLE") else { return };
    let line = format!("{object}\t{way}\t{user:?}\t{outcome:?}\n");
    let entered =
        File::options().append(true).create(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = entered {
        println!("no line for the table: {error}");
    }
}
