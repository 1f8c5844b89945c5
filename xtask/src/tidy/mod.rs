//! `cargo xtask tidy`: the project lints that a program can check, each violation with its file and line.
//!
//! A rule is a function over the tree of files, so that a test can give it a tree of three lines. Must never
//! change a file, nor know an exception that is not written here with its reason.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::workspace::Workspace;

mod circles;
mod code;
mod docs;
mod exit_codes;
pub mod objects;
mod source;

/// The files of the repository that hold text: path from the root, contents.
#[derive(Default)]
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    /// What git tracks, or would if it were added.
    fn of(ws: &Workspace) -> Result<Self> {
        let sh = ws.shell()?;
        let listed = cmd!(sh, "git ls-files --cached --others --exclude-standard").quiet().read()?;
        let mut tree = Self::default();
        for path in listed.lines() {
            let bytes = match fs::read(ws.root.join(path)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue, // Deleted, not committed yet.
                bytes => bytes.with_context(|| format!("reading {path}"))?,
            };
            if let Ok(text) = String::from_utf8(bytes) {
                tree.0.insert(path.to_string(), text);
            }
        }
        Ok(tree)
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Files whose path begins and ends so.
    fn files(&self, start: &str, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(move |(path, _)| path.starts_with(start) && path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether this is a file, or a folder with files.
    fn exists(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.0.contains_key(path) || self.0.keys().any(|file| file.starts_with(&folder))
    }
}

/// A broken rule, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    path: String,
    line: usize,
    rule: String,
}

impl Violation {
    fn new(path: &str, line: usize, rule: impl Into<String>) -> Self {
        Self { path: path.into(), line, rule: rule.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Checks all rules.
///
/// # Errors
/// At least one is broken; all were printed.
pub fn run(ws: &Workspace) -> Result<()> {
    let tree = Tree::of(ws)?;
    let mut found = Vec::new();
    for rule in [code::check, circles::check, objects::check, docs::check, exit_codes::check] {
        rule(&tree, &mut found);
    }
    found.sort();
    for violation in &found {
        println!("{violation}");
    }
    match found.len() {
        0 => println!("tidy: {} files, all in order", tree.0.len()),
        n => bail!("{n} violations of the project lints"),
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::{Tree, Violation};

    /// What `rule` says about a tree of these files, as `file:line` and the rule's text.
    pub fn found(rule: fn(&Tree, &mut Vec<Violation>), files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect());
        let mut found = Vec::new();
        rule(&tree, &mut found);
        found.iter().map(ToString::to_string).collect()
    }
}
