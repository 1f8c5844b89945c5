//! The Debian packages that tests need: `tests/packages.txt` names them, with a command (or file) that tells whether each is there.
//!
//! Root installs the missing ones where there is an apt-get. Must never stop the tests: whoever calls decides what a missing one means.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, on_path};

/// Installs what is missing where that can be done; returns what is missing still.
///
/// # Errors
/// The list cannot be read.
pub fn set_up(sh: &Shell, ws: &Workspace) -> Result<Vec<String>> {
    let list = ws.root.join("tests/packages.txt");
    let text = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let missing = missing_packages(&text, is_there)?;
    if missing.is_empty() || !rustix::process::geteuid().is_root() || on_path("apt-get").is_none() {
        return Ok(missing);
    }
    println!("installing what tests need: {}", missing.join(" "));
    if let Err(error) = install(sh, &missing) {
        println!("they cannot be installed: {error:#}");
    }
    missing_packages(&text, is_there)
}

fn install(sh: &Shell, packages: &[String]) -> Result<()> {
    sh.set_var("DEBIAN_FRONTEND", "noninteractive");
    cmd!(sh, "apt-get update -q").ignore_stdout().run()?;
    cmd!(sh, "apt-get install -q -y --no-install-recommends {packages...}").ignore_stdout().run()?;
    Ok(())
}

/// The same for those who can do nothing without them.
///
/// # Errors
/// One is missing.
pub fn require(sh: &Shell, ws: &Workspace) -> Result<()> {
    let missing = set_up(sh, ws)?;
    if missing.is_empty() { Ok(()) } else { bail!("these Debian packages are needed: {}", missing.join(" ")) }
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
