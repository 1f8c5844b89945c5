//! Standard output, which survives a closed pipe.

use std::fmt;
use std::io::{self, Write as _};

use image_format::ExitCode;

use crate::failure::{Failure, reason};

/// Prints to standard output. A reader that has left (`ckpt show … | head`) is no failure.
pub fn print(what: impl fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{what}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Usage, format_args!("standard output: {}", reason(&error))))
        }
        Err(_) => Err(Failure::QUIET),
        Ok(()) => Ok(()),
    }
}
