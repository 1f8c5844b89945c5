//! The programs that travel, one of each kind, and what a virtual machine needs to start them itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use anyhow::{Context, Result, ensure};

use crate::Place;
use crate::programs::{Link, sources, tool};

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct Kind {
    /// A word for it.
    pub name: &'static str,
    /// Where it lies here.
    pub program: PathBuf,
    /// What it is given.
    pub arguments: Vec<String>,
}

/// Builds them into this place: a static C program, one with musl, one with a dynamic C library and threads, Go, Python.
///
/// # Errors
/// A compiler, or python3, is not installed.
pub fn kinds(place: &Place) -> Result<Vec<Kind>> {
    let bring = |from: &str, link, name: &'static str| -> Result<Kind> {
        let built = place.linked_guest(from, link)?;
        let program = place.bin().join(format!("travel-{name}"));
        fs::rename(built, &program)?;
        Ok(Kind { name, program, arguments: Vec::new() })
    };
    let script = fs::read_to_string(sources().join("travel.py"))?;
    Ok(vec![
        bring("travel", Link::Static, "static")?,
        bring("travel", Link::StaticMusl, "musl")?,
        bring("travel", Link::Dynamic, "threads")?,
        bring("travel.go", Link::Dynamic, "go")?,
        Kind { name: "python", program: tool("python3", "python3")?, arguments: vec!["-c".to_owned(), script] },
    ])
}

/// What `travel.py` loads, by absolute path: libraries, modules, and these compiled, as a virtual machine is slow.
const LOADED: &str = r#"
import hashlib, os, random, sys, threading, time
for module in list(sys.modules.values()):
    for path in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if path and os.path.isfile(path):
            print(path)
for line in open("/proc/self/maps"):
    path = line.split(maxsplit=5)[5:]
    if path and path[0].startswith("/"):
        file = path[0].strip()
        print(file)
        # A library under the names by which it is looked for.
        for entry in os.scandir(os.path.dirname(file)) if ".so" in file else ():
            if entry.is_symlink() and os.path.realpath(entry.path) == file:
                print(entry.path)
"#;

/// What a program is linked with, by absolute path: nothing, where it is static.
///
/// # Errors
/// There is no ldd.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

/// The host's files, by absolute path, which the virtual machine needs at the same places to start a program, python3 with `travel.py`.
///
/// # Errors
/// It does not run here.
pub fn needs(kind: &Kind) -> Result<Vec<PathBuf>> {
    let mut files = libraries(&kind.program)?;
    if kind.name == "python" {
        files.extend(python_needs(&kind.program)?);
    }
    Ok(files)
}

fn python_needs(python: &Path) -> Result<Vec<PathBuf>> {
    let made = Command::new(python).args(["-c", LOADED]).env_clear().output()?;
    ensure!(made.status.success(), "{}: {}", python.display(), String::from_utf8_lossy(&made.stderr));
    let listed = str::from_utf8(&made.stdout).context("paths")?;
    let mut files: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    files.push(python.to_owned());
    files.sort();
    files.dedup();
    Ok(files)
}
