//! Builds the programs under `tests/programs` once, into the target directory: C by `cc`, Rust by `rustc` alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::dist;
use crate::left_out::{self, Needs};

/// How a guest is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// As usual: can be preloaded.
    Dynamic,
    /// All static, with nothing of ours.
    Static,
    /// The same with musl as the C library.
    StaticMusl,
    /// With `libckpt.a`, and all else static too.
    StaticLibrary,
    /// With `libckpt.so`, found beside the program.
    SharedLibrary,
}

/// Where the sources lie.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// The built guest of this name: `NAME.c`, or `NAME.rs` when the name says so.
///
/// # Errors
/// It does not build; the message has the compiler's.
pub fn guest(name: &str) -> Result<PathBuf> {
    build(name, Link::Dynamic)
}

/// The built guest, linked in this way.
///
/// # Errors
/// It does not build.
pub fn build(name: &str, link: Link) -> Result<PathBuf> {
    let exe = env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).context("the test lies in target/PROFILE/deps")?;
    let dir = target.join("guests");
    fs::create_dir_all(&dir)?;
    let built = dir.join(format!("{}-{link:?}", name.replace('.', "-")));
    let partial = dir.join(format!("{}-{link:?}.{}-{:?}", name, std::process::id(), std::thread::current().id()));
    let mut command = match name.strip_suffix(".rs") {
        Some(_) => rust(name),
        None if name.ends_with(".go") => go(&dir)?,
        None => c(name, link)?,
    };
    command.arg("-o").arg(&partial);
    if name.ends_with(".go") {
        command.arg(sources().join(name));
    }
    let made = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
    // By rename, as tests run side by side.
    fs::rename(&partial, &built)?;
    Ok(built)
}

fn rust(name: &str) -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition", "2024", "-O", "-g"]).arg(sources().join(name));
    command
}

fn go(dir: &Path) -> Result<Command> {
    let mut command = Command::new(tool("go", "golang-go")?);
    command.env("GOCACHE", dir.join("go-cache")).env("GO111MODULE", "off").env("HOME", dir);
    command.arg("build");
    Ok(command)
}

fn c(name: &str, link: Link) -> Result<Command> {
    let compiler = if link == Link::StaticMusl { tool("musl-gcc", "musl-tools") } else { tool("cc", "gcc") };
    let mut command = Command::new(compiler?);
    command.args(["-std=gnu11", "-O2", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-pthread"]);
    command.arg("-I").arg(sources()).arg(sources().join(format!("{name}.c")));
    if name == "threads8" {
        command.arg(sources().join("float.S"));
    }
    if matches!(link, Link::StaticLibrary | Link::SharedLibrary) {
        command.arg("-I").arg(dist::dir()?);
    }
    match link {
        Link::Dynamic => {}
        Link::Static | Link::StaticMusl => drop(command.arg("-static")),
        Link::StaticLibrary => drop(command.arg("-static").arg(dist::dir()?.join("libckpt.a"))),
        Link::SharedLibrary => drop(command.arg(dist::dir()?.join("libckpt.so")).arg("-Wl,-rpath,$ORIGIN")),
    }
    Ok(command)
}

/// A file of a Debian package that is no program.
///
/// # Errors
/// [`left_out::LeftOut`]: not installed.
pub fn part(path: &Path, package: &'static str) -> Result<()> {
    let missing = || left_out::whole(Needs::Package(package), format!("{} is not installed", path.display()));
    if path.exists() { Ok(()) } else { Err(missing()) }
}

/// Finds a program of a Debian package.
///
/// # Errors
/// [`left_out::LeftOut`], with the package that brings it: not installed.
pub fn tool(name: &str, package: &'static str) -> Result<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];
    let found = places.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
    found.ok_or_else(|| left_out::whole(Needs::Package(package), format!("{name} is not installed")))
}

/// Packages of other registries than Debian's, installed once into the target directory by their own clients.
#[derive(Debug)]
pub struct Provided {
    dir: PathBuf,
}

impl Provided {
    /// A package of npm.
    ///
    /// # Errors
    /// [`left_out::LeftOut`]: it cannot be had here.
    pub fn by_npm(package: &'static str) -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(npm) = env::split_paths(&path).map(|dir| dir.join("npm")).find(|npm| npm.exists()) else {
            return Err(left_out::whole(Needs::Machine, "npm is not installed"));
        };
        Self::by(package, |dir| {
            let mut command = Command::new(npm);
            command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(dir).arg(package);
            command
        })
    }

    /// A package of Python's index.
    ///
    /// # Errors
    /// [`left_out::LeftOut`]: it cannot be had here.
    pub fn by_pip(package: &'static str) -> Result<Self> {
        let python = tool("python3", "python3")?;
        Self::by(package, |dir| {
            let mut command = Command::new(python);
            command.args(["-m", "pip", "install", "--quiet", "--target"]).arg(dir).arg(package);
            command
        })
    }

    fn by(package: &str, install: impl FnOnce(&Path) -> Command) -> Result<Self> {
        let exe = env::current_exe()?;
        let target = exe.parent().and_then(Path::parent).context("the test lies in target/PROFILE/deps")?;
        let all = target.join("provided");
        fs::create_dir_all(&all)?;
        let dir = all.join(package);
        if !dir.exists() {
            let partial = all.join(format!("{package}.{}", std::process::id()));
            let done = install(&partial).output();
            let failed = match &done {
                Ok(done) if done.status.success() => None,
                Ok(done) => Some(String::from_utf8_lossy(&done.stderr).into_owned()),
                Err(e) => Some(e.to_string()),
            };
            if let Some(why) = failed {
                drop(fs::remove_dir_all(&partial));
                return Err(left_out::whole(Needs::Machine, format!("{package} cannot be installed: {}", why.trim())));
            }
            // Another test may have been faster.
            if fs::rename(&partial, &dir).is_err() {
                fs::remove_dir_all(&partial)?;
            }
        }
        Ok(Self { dir })
    }

    /// The program of this name in it, the largest file of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let found = files(&self.dir)?.into_iter().filter(|path| path.file_name().is_some_and(|own| own == name));
        let found = found.max_by_key(|path| fs::metadata(path).map_or(0, |data| data.len()));
        found.with_context(|| format!("no {name} in {}", self.dir.display()))
    }

    /// Copies all of it, for everybody.
    ///
    /// # Errors
    /// The disk is full.
    pub fn copy_to(&self, to: &Path) -> Result<()> {
        for from in files(&self.dir)? {
            let to = to.join(from.strip_prefix(&self.dir)?);
            fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
            fs::copy(from, to)?;
        }
        Ok(())
    }
}

/// All regular files below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}
