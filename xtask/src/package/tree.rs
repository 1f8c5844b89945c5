//! The files of a package as they will be installed, below a directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

use super::VERSION;

/// A tree that is being filled.
pub struct Tree<'w> {
    ws: &'w Workspace,
    root: PathBuf,
    /// Where libraries go.
    lib: &'static str,
    /// Where all other directories of an installation lie.
    prefix: &'static str,
}

impl<'w> Tree<'w> {
    /// An empty one.
    pub fn new(ws: &'w Workspace, name: &str, lib: &'static str, prefix: &'static str) -> Result<Self> {
        let root = ws.target.join("package").join(name);
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let tree = Self { ws, root, lib, prefix };
        tree.directory(&tree.root)?;
        Ok(tree)
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Programs, libraries, header, man pages, and the shells' completions in these directories.
    pub fn fill(&self, sh: &Shell, bash: &str, zsh: &str, fish: &str) -> Result<()> {
        let (lib, prefix) = (self.lib, self.prefix);
        for (name, place, mode) in [
            ("ckpt", format!("{prefix}/bin"), 0o755),
            ("restart-stub", format!("{prefix}/bin"), 0o755),
            ("libckpt.so", lib.to_owned(), 0o644),
            ("libckpt.a", lib.to_owned(), 0o644),
            ("ckpt.h", format!("{prefix}/include"), 0o644),
        ] {
            let file = self.put(&format!("{place}/{name}"), &fs::read(self.ws.dist(name))?)?;
            fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
        }
        let (up, lib_name) =
            if prefix == "usr" { ("../../..", lib.trim_start_matches("usr/")) } else { ("../..", lib) };
        let pc = include_str!("../../package/ckpt.pc");
        let pc = pc.replace("@UP@", up).replace("@LIB@", lib_name).replace("@VERSION@", VERSION);
        self.put(&format!("{lib}/pkgconfig/ckpt.pc"), pc.as_bytes())?;

        let (ckpt, man) = (self.ws.dist("ckpt"), self.root.join(prefix).join("share/man"));
        cmd!(sh, "{ckpt} man {man}").quiet().run()?;
        for (shell, place, name) in [("bash", bash, "ckpt"), ("zsh", zsh, "_ckpt"), ("fish", fish, "ckpt.fish")] {
            let text = cmd!(sh, "{ckpt} completions {shell}").quiet().read()?;
            self.put(&format!("{place}/{name}"), format!("{text}\n").as_bytes())?;
        }
        // Whatever this user's umask is.
        for file in self.files()?.iter().filter(|file| file.starts_with(&man)) {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
            self.directory(file.parent().context("a file lies in a directory")?)?;
        }
        Ok(())
    }

    /// What people read.
    pub fn documents(&self, place: &str) -> Result<()> {
        for (from, to) in [
            ("README.md", "README.md"),
            ("CHANGELOG.md", "changelog"),
            ("docs/cli.md", "cli.md"),
            ("docs/limits.md", "limits.md"),
            ("docs/restore.md", "restore.md"),
            ("docs/image-format.md", "image-format.md"),
        ] {
            self.put(&format!("{place}/{to}"), &fs::read(self.ws.root.join(from))?)?;
        }
        Ok(())
    }

    /// Writes a file, with the directories that it needs.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let file = self.root.join(name);
        self.directory(file.parent().context("a file lies in a directory")?)?;
        fs::write(&file, bytes).with_context(|| format!("writing {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// Compresses what Debian wants compressed: man pages and documents, but for the copyright.
    pub fn gzip(&self, sh: &Shell) -> Result<()> {
        for file in self.files()? {
            let name = file.to_string_lossy();
            let document = name.contains("/share/doc/") && !name.ends_with("/copyright");
            if document || name.contains("/share/man/") {
                cmd!(sh, "gzip -9n {file}").quiet().run()?;
            }
        }
        Ok(())
    }

    /// What it takes when it is installed.
    pub fn kibibytes(&self) -> Result<u64> {
        self.files()?.iter().try_fold(0, |sum, file| Ok(sum + fs::metadata(file)?.len().div_ceil(1024)))
    }

    /// The checksums by which dpkg verifies an installation.
    pub fn sums(&self, sh: &Shell) -> Result<String> {
        let mut files = self.files()?;
        files.sort();
        let names: Vec<_> = files.iter().filter_map(|file| file.strip_prefix(&self.root).ok()).collect();
        let _in = sh.push_dir(&self.root);
        Ok(cmd!(sh, "md5sum {names...}").quiet().read()? + "\n")
    }

    /// All files.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let (mut files, mut left) = (Vec::new(), vec![self.root.clone()]);
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() { left.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        Ok(files)
    }

    /// Makes a directory, whatever this user's umask is.
    fn directory(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let below = |dir: &&Path| dir.starts_with(&self.root);
        for dir in directory.ancestors().take_while(below) {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}
