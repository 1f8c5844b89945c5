//! Where things lie: the repository, cargo's target directory, `dist/`; and how files get there whole.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// The repository and its output directories, as absolute paths.
pub struct Workspace {
    /// The folder of the top-level Cargo.toml.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

impl Workspace {
    /// From where this program and its sources lie: cargo has built it into `target/PROFILE`.
    ///
    /// # Errors
    /// It was started by something else than cargo.
    pub fn find() -> Result<Self> {
        let here = env::var_os("CARGO_MANIFEST_DIR").context("start it by `cargo xtask`")?;
        let root = Path::new(&here).parent().context("xtask lies in the repository")?.to_path_buf();
        let exe = env::current_exe()?;
        let target = exe.parent().and_then(Path::parent).context("cargo has built this into target/PROFILE")?;
        Ok(Self { target: target.into(), root })
    }

    /// A shell in the repository's root.
    ///
    /// # Errors
    /// The current directory is gone.
    pub fn shell(&self) -> Result<Shell> {
        let sh = Shell::new()?;
        sh.change_dir(&self.root);
        Ok(sh)
    }

    /// The path of a file in `dist/`.
    pub fn dist(&self, name: &str) -> PathBuf {
        self.root.join("dist").join(name)
    }

    /// Puts a copy of `from` into `dist/` as `name`; returns its path.
    ///
    /// # Errors
    /// `from` cannot be read, or `dist/` not be written.
    pub fn publish(&self, from: &Path, name: &str) -> Result<PathBuf> {
        put(from, &self.root.join("dist"), name)
    }

    /// The built stub as it ships.
    #[must_use]
    pub fn stub(&self) -> PathBuf {
        self.target.join("restart-stub")
    }

    /// Compiles one C file with the system's compiler; returns the program's path in the target directory.
    ///
    /// # Errors
    /// There is no compiler, or it fails.
    pub fn compile(&self, source: &Path) -> Result<PathBuf> {
        let name = source.file_stem().context("a C file has a name")?;
        let dir = self.target.join("xtask");
        fs::create_dir_all(&dir)?;
        let program = dir.join(name);
        ensure!(on_path("cc").is_some(), "there is no C compiler (cc): install gcc");
        let sh = self.shell()?;
        let half = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        cmd!(sh, "cc -std=gnu11 -O2 -Wall -Wextra -Werror -pthread -o {half} {source}").quiet().run()?;
        fs::rename(&half, &program)?;
        Ok(program)
    }
}

/// Puts a copy of `from` into `dir` as `name`, by rename; a copy that is the same already is left alone.
///
/// # Errors
/// `from` cannot be read, or `dir` not be written.
pub fn put(from: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let to = dir.join(name);
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(&to).is_ok_and(|old| old == bytes) {
        return Ok(to);
    }
    fs::create_dir_all(dir)?;
    let half = dir.join(format!(".{name}.{}", std::process::id()));
    fs::copy(from, &half).with_context(|| format!("writing {}", half.display()))?;
    fs::rename(&half, &to)?;
    Ok(to)
}

/// The first executable file of this name on PATH.
pub fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    use rustix::fs::{Access, access};
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name.as_ref()))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
