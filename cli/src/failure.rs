//! What a person or a script is told when a command could not do its work: one line, and an exit code.
//!
//! Messages name the object, the reason and the remedy. Must never print bytes of an image as they are.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use image_format::{ExitCode, Fault};

use crate::text;

/// Shown below `--help`; `docs/cli.md` has the same table with remedies.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done; 64 usage; 66 no such image; 69 stub or library not installed; 70 empty; 71 not an image; \
72 other machine; 73 truncated; 74 damaged; 75 malformed; 76 bad address; 77 newer format; 78 untrusted; 79 CPU; \
80 kernel; 81 file missing; 82 file shrank; 83 file changed; 84 descriptor; 85 saved and ended; 86 no room; \
87 restore failed; 88 save refused; 89 damaged memory; 126 cannot be executed; 127 not found. \
After a restart the status is the program's own.";

/// A failed command. An empty message is not printed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Nothing to say and nothing wrong: help was printed, or the reader of our output has left.
    pub const QUIET: Self = Self { code: 0, message: String::new() };

    /// A failure of one of the project's kinds.
    pub fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self { code: code as u8, message: message.to_string() }
    }

    /// As a shell would: 127 when a program is not found, 126 when it cannot be executed.
    pub fn exec(program: &Path, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Self { code, message: format!("{}: cannot be executed: {}", text::path(program), reason(error)) }
    }

    /// An image that breaks a rule.
    pub fn image(path: &Path, fault: Fault) -> Self {
        Self::new(fault.exit_code(), format_args!("{}: {fault}", text::path(path)))
    }

    /// An image that cannot be opened or read.
    pub fn unreadable(path: &Path, what: &str, error: &io::Error) -> Self {
        Self::new(ExitCode::NoImage, format_args!("{}: {what}: {}", text::path(path), reason(error)))
    }

    /// A wrong command line; `rendered` is clap's text, whose first paragraph says what is wrong.
    pub fn usage(rendered: &str) -> Self {
        let what = rendered.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        Self::new(ExitCode::Usage, format_args!("{}: see ckpt --help", what.trim_end_matches('.')))
    }

    /// Prints the line and gives the status to end with.
    pub fn report(self) -> std::process::ExitCode {
        if !self.message.is_empty() {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "ckpt: {}", self.message);
        }
        self.code.into()
    }
}

/// The system's reason without the number that std appends.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
