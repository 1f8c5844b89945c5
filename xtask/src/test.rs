//! `cargo xtask test`: the set-up that tests need, then all of them.
//!
//! `tests/packages.txt` names Debian packages and a command (or file) of each that tests need. As root on a system
//! with apt-get the missing ones are installed; anybody else is told what to install. Nothing is left out silently.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, on_path};
use crate::{dist, objects};

/// What `cargo xtask test` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// Play the kernel objects only, and print what became of each in each way.
    #[arg(long)]
    objects: bool,
    /// Passed on to `cargo test --workspace`.
    #[arg(last = true)]
    cargo_args: Vec<String>,
}

/// Sets up, builds `dist/`, runs the tests.
///
/// # Errors
/// A package is missing and may not be installed, the build fails, or a test fails.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let sh = ws.shell()?;
    set_up(&sh, ws)?;
    dist::run(ws)?;
    sh.set_var("CKPT_STUB", ws.dist("restart-stub"));
    let args = &options.cargo_args;
    if options.objects {
        return objects::run(&sh, ws, args);
    }
    // As a shell gives them: signals that nohup(1) or a CI's runner ignores would stay ignored in the tests' programs.
    cmd!(sh, "env --default-signal cargo test --workspace {args...}").run()?;
    Ok(())
}

/// Installs what tests need, or says what is missing.
///
/// # Errors
/// A package is missing and may not be installed.
pub fn set_up(sh: &Shell, ws: &Workspace) -> Result<()> {
    let list = ws.root.join("tests/packages.txt");
    let text = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let missing = missing_packages(&text, is_there)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || on_path("apt-get").is_none() {
        bail!("tests need these Debian packages, install them first: {}", missing.join(" "));
    }
    println!("installing what tests need: {}", missing.join(" "));
    sh.set_var("DEBIAN_FRONTEND", "noninteractive");
    cmd!(sh, "apt-get update -q").ignore_stdout().run()?;
    cmd!(sh, "apt-get install -q -y --no-install-recommends {missing...}").ignore_stdout().run()?;
    let still = missing_packages(&text, is_there)?;
    if still.is_empty() { Ok(()) } else { bail!("installed, but their commands are not there: {}", still.join(" ")) }
}

/// Whether a command is on PATH, or a file of this absolute path is there.
fn is_there(command: &str) -> bool {
    if command.starts_with('/') { Path::new(command).exists() } else { on_path(command).is_some() }
}

/// Packages whose command is not there, each once, in the list's order. `#` opens a comment.
fn missing_packages(list: &str, there: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut missing: Vec<String> = Vec::new();
    for (number, line) in list.lines().enumerate() {
        let words: Vec<_> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match words[..] {
            [] => {}
            [package, command] => {
                if !there(command) && !missing.iter().any(|have| have == package) {
                    missing.push(package.into());
                }
            }
            _ => bail!("tests/packages.txt:{}: not `package command`", number + 1),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named_and_once() -> Result<()> {
        let list = "# for the tests\ngdb gdb\nvim-tiny vim # an editor\nvim-tiny vi\n\n";
        assert_eq!(missing_packages(list, |c| c == "gdb")?, ["vim-tiny"]);
        assert!(missing_packages(list, |_| true)?.is_empty());
        assert!(missing_packages("gdb\n", |_| true).is_err());
        Ok(())
    }
}
