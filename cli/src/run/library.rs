//! Where `libckpt.so` is, and how it gets into a program.

use std::ffi::OsString;
use std::path::PathBuf;

use image_format::ExitCode;

use crate::failure::{Failure, reason};
use crate::text;

const NAME: &str = "libckpt.so";

/// The value for `LD_PRELOAD`: the library, before whatever is preloaded already.
pub fn preload() -> Result<OsString, Failure> {
    let library = find()?;
    // The dynamic linker would only warn, and the first signal would end the program.
    if let Err(errno) = rustix::fs::access(&library, rustix::fs::Access::READ_OK) {
        let what = format_args!("{}: cannot be read: {}: mend its mode", text::path(&library), reason(&errno.into()))
            .to_string();
        return Err(Failure::new(ExitCode::NotInstalled, what));
    }
    // The dynamic linker splits at both, and has no way to quote them.
    if library.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        let what = "a path with a space or a colon cannot be preloaded: install it elsewhere";
        return Err(Failure::new(ExitCode::NotInstalled, format_args!("{}: {what}", text::path(&library))));
    }
    let mut value = library.into_os_string();
    if let Some(more) = std::env::var_os("LD_PRELOAD").filter(|more| !more.is_empty()) {
        value.push(":");
        value.push(more);
    }
    Ok(value)
}

/// `CKPT_LIB`, else beside this program, else in the `lib` beside its directory.
fn find() -> Result<PathBuf, Failure> {
    if let Some(given) = std::env::var_os("CKPT_LIB") {
        let path = std::path::absolute(&given).unwrap_or_else(|_| PathBuf::from(&given));
        if path.is_file() {
            return Ok(path);
        }
        let what = format_args!("{}: not a file: mend CKPT_LIB", text::path(&path)).to_string();
        return Err(Failure::new(ExitCode::NotInstalled, what));
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let here = exe.parent().map(|dir| dir.join(NAME));
    let lib = exe.parent().and_then(|dir| dir.parent()).map(|dir| dir.join("lib").join(NAME));
    here.into_iter().chain(lib).find(|path| path.is_file()).ok_or_else(|| {
        let what = "not found beside this program nor in ../lib: install it there, or name it in CKPT_LIB";
        Failure::new(ExitCode::NotInstalled, format_args!("{NAME}: {what}"))
    })
}
