//! `ckpt man`: the man pages. What the flags mean comes from the same definitions as `--help`; the rest is prose in `cli/man/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;
use image_format::ExitCode;

use crate::failure::{self, Failure, reason};
use crate::text;

/// Write the man pages of ckpt, of its commands, of restart-stub and of libckpt into a directory
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "DIR gets the folders man1, man3 and man5, as man(1) looks for them. `man -M DIR ckpt` shows one without any \
installation."
)]
pub struct Args {
    /// Where to: ~/.local/share/man, for example
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Pages that are all prose: file, text.
const PROSE: [(&str, &str); 3] = [
    ("man1/restart-stub.1", include_str!("../../man/restart-stub.1")),
    ("man3/ckpt.3", include_str!("../../man/ckpt.3")),
    ("man5/ckpt-image.5", include_str!("../../man/ckpt-image.5")),
];

/// What a page of a command has behind its options, in roff.
const BEHIND: [(&str, &str); 9] = [
    ("ckpt", include_str!("../../man/ckpt.roff")),
    ("ckpt-save", include_str!("../../man/ckpt-save.roff")),
    ("ckpt-run", include_str!("../../man/ckpt-run.roff")),
    ("ckpt-restart", include_str!("../../man/ckpt-restart.roff")),
    ("ckpt-migrate", include_str!("../../man/ckpt-migrate.roff")),
    ("ckpt-show", include_str!("../../man/ckpt-show.roff")),
    ("ckpt-check", include_str!("../../man/ckpt-check.roff")),
    ("ckpt-bundle", include_str!("../../man/ckpt-bundle.roff")),
    ("ckpt-man", include_str!("../../man/ckpt-man.roff")),
];

/// In front of the codes.
const STATUS: &str = ".SH \"EXIT STATUS\"\nAfter a restart the status is the program's own. Otherwise:\n";

/// Writes them.
pub fn main<C: CommandFactory>(args: Args) -> Result<(), Failure> {
    let mut ckpt = C::command().disable_help_subcommand(true);
    ckpt.build();
    for command in std::iter::once(&ckpt).chain(ckpt.get_subcommands()) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let page = page(command.clone(), name).map_err(|e| unwritable(&args.directory, &e))?;
        write(&args.directory, &format!("man1/{name}.1"), &page)?;
    }
    PROSE.iter().try_for_each(|(file, text)| write(&args.directory, file, text.as_bytes()))
}

/// The page of one command: `name` is `ckpt`, or `ckpt-save`.
fn page(mut command: clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let all = command.has_subcommands();
    // What stands behind the options in `--help` stands in front of them in a page; the codes have a section of their own.
    if !all && let (Some(about), Some(more)) = (command.get_about(), command.get_after_long_help()) {
        let text = format!("{about}.\n\n{more}");
        command = command.long_about(text);
    }
    let title = format!(".TH {} 1 \"\" \"ckpt {}\" \"ckpt manual\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let man = Man::new(command);
    let mut out = title.into_bytes();
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if all {
        man.render_subcommands_section(&mut out)?;
    }
    man.render_options_section(&mut out)?;
    let behind = BEHIND.iter().find(|(of, _)| *of == name).map_or("", |(_, text)| text);
    out.extend_from_slice(behind.as_bytes());
    out.extend_from_slice(STATUS.as_bytes());
    for (code, meaning) in failure::EXIT_CODES {
        out.extend_from_slice(format!(".TP\n{code}\n{meaning}\n").as_bytes());
    }
    let others = if all { ".BR restart-stub (1),\n.BR ckpt (3)," } else { ".BR ckpt (1),\n.BR restart-stub (1)," };
    out.extend_from_slice(format!(".SH \"SEE ALSO\"\n{others}\n.BR ckpt-image (5)\n").as_bytes());
    Ok(out)
}

fn write(directory: &Path, file: &str, bytes: &[u8]) -> Result<(), Failure> {
    let file = directory.join(file);
    let write = || -> io::Result<()> {
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&file, bytes)
    };
    write().map_err(|e| unwritable(&file, &e))
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(ExitCode::Usage, format_args!("{}: cannot be written: {}", text::path(file), reason(error)))
}
