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
    /// Asks cargo.
    ///
    /// # Errors
    /// cargo cannot be run, or says something else than it used to.
    pub fn find() -> Result<Self> {
        let sh = Shell::new()?;
        let here = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = here.parent().context("xtask lies in the repository")?.to_path_buf();
        sh.change_dir(&root);
        let json = cmd!(sh, "cargo metadata --no-deps --format-version 1 --quiet").quiet().read()?;
        let metadata: serde_json::Value = serde_json::from_str(&json)?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names the target directory")?;
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

    /// Puts a copy of `from` into `dist/` as `name`, by rename; a copy that is the same already is left alone.
    ///
    /// # Errors
    /// `from` cannot be read, or `dist/` not be written.
    pub fn publish(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let to = self.dist(name);
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            return Ok(to);
        }
        fs::create_dir_all(self.root.join("dist"))?;
        let half = self.dist(&format!(".{name}.{}", std::process::id()));
        fs::copy(from, &half).with_context(|| format!("writing {}", half.display()))?;
        fs::rename(&half, &to)?;
        Ok(to)
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

/// The first executable file of this name on PATH.
pub fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    use rustix::fs::{Access, access};
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name.as_ref()))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
