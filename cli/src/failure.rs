//! What a person or a script gets when a command could not do its work: one line, and an exit code.
//!
//! Messages name the object, the reason and the remedy. Must never print bytes of an image as they are.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use image_format::{ExitCode, Fault};

use crate::text;

/// What each status means, besides 0; `docs/cli.md` has the same table with remedies.
pub const EXIT_CODES: [(u8, &str); 27] = [
    (64, "wrong command line"),
    (66, "no such image"),
    (69, "part not installed"),
    (70, "empty file"),
    (71, "not an image"),
    (72, "image of another machine"),
    (73, "truncated image"),
    (74, "damaged image"),
    (75, "malformed image"),
    (76, "bad address in the image"),
    (77, "image of a newer format"),
    (78, "somebody else may have written it"),
    (79, "CPU lacks features"),
    (80, "kernel or limit forbids it"),
    (81, "open file is missing"),
    (82, "open file shrank"),
    (83, "open file changed"),
    (84, "descriptor cannot be given"),
    (85, "saved and ended, as asked"),
    (86, "no room"),
    (87, "restart failed half-way"),
    (88, "save refused or failed"),
    (89, "damaged memory in the image"),
    (90, "image of another job"),
    (91, "image in use by another run"),
    (126, "program cannot be executed"),
    (127, "program not found"),
];

/// The same as text below `--help`, in two columns.
pub fn exit_codes() -> String {
    let mut out = String::from("Exit codes (after a restart the status is the program's own):");
    let rows = EXIT_CODES.len().div_ceil(2);
    for (row, (code, meaning)) in EXIT_CODES.iter().enumerate().take(rows) {
        out += &format!("\n{code:>5}  {meaning:<34}");
        out += &EXIT_CODES.get(row + rows).map_or_else(String::new, |(code, meaning)| format!("{code:>4}  {meaning}"));
    }
    out + "\n"
}

/// A failed command. An empty message is not printed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Nothing to say and nothing wrong: help was printed, or the reader of our output has left.
    pub const QUIET: Self = Self { code: 0, message: String::new() };

    /// Whether there is nothing to say.
    pub fn is_quiet(&self) -> bool {
        self.code == 0
    }

    /// The status to end with.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The same with something more to say.
    pub fn but(mut self, more: impl fmt::Display) -> Self {
        self.message += &format!("; {more}");
        self
    }

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
        Self::wrong(rendered, &help_of(std::env::args_os().nth(1)))
    }

    /// The same where there is no such command.
    pub fn no_command(rendered: &str) -> Self {
        Self::wrong(rendered, "ckpt -h")
    }

    fn wrong(rendered: &str, help: &str) -> Self {
        let mut parts = rendered.trim_start_matches("error: ").split("\n\n");
        let what = parts.next().unwrap_or_default();
        let tip = parts.find_map(|part| part.trim_start().strip_prefix("tip: ")?.lines().next());
        let what = core::iter::once(what).chain(tip);
        let what = what.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let what = what.map(|part| part.trim_end_matches('.').to_owned()).collect::<Vec<_>>().join(": ");
        Self::new(ExitCode::Usage, format_args!("{what}: see {help}"))
    }

    /// What another part has said already: only the status.
    pub fn status(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// Code and message, to be handed from one process to another.
    pub fn into_parts(self) -> (u8, String) {
        (self.code, self.message)
    }

    /// The failure that another process had.
    pub fn of_parts(code: u8, message: String) -> Self {
        Self { code, message }
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

/// What to type for the help that fits: that of the command which was given, if it is a word.
fn help_of(command: Option<OsString>) -> String {
    let command = command.and_then(|word| word.into_string().ok());
    match command.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())) {
        Some(command) => format!("ckpt {command} -h"),
        None => "ckpt -h".to_owned(),
    }
}

/// A number of errno(3), whichever crate it comes from.
pub trait Number {
    /// The number.
    fn number(self) -> i32;
}

impl Number for rustix::io::Errno {
    fn number(self) -> i32 {
        self.raw_os_error()
    }
}

impl Number for sys::Errno {
    fn number(self) -> i32 {
        self.into_raw()
    }
}

/// What this kernel or a limit does not allow: the object, what cannot be done with it, the kernel's word.
pub fn errno(what: &str, error: impl Number) -> Failure {
    let error = io::Error::from_raw_os_error(error.number());
    Failure::new(ExitCode::Kernel, format_args!("{what}: {}", reason(&error)))
}

/// The system's reason without the number that std appends.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
