//! Where the built product lies: `dist/`, or what `CKPT_DIST` names. Tests use only what is there, as a user would.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The files that `cargo xtask dist` makes.
pub const FILES: [&str; 5] = ["ckpt", "restart-stub", "libckpt.so", "libckpt.a", "ckpt.h"];

/// The directory with all of [`FILES`].
///
/// # Errors
/// One is missing: the message says how to make it.
pub fn dir() -> Result<PathBuf> {
    let dir =
        env::var_os("CKPT_DIST").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist"), PathBuf::from);
    for file in FILES {
        ensure!(dir.join(file).exists(), "{} is missing: run `cargo xtask dist` first", dir.join(file).display());
    }
    Ok(dir.canonicalize()?)
}
