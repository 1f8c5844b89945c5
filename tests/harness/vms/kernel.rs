//! Debian's kernels: found, downloaded and verified by apt in directories of its own, and unpacked as far as a virtual machine needs.
//!
//! Nothing of the system's own apt is touched, and no rights are needed. What was unpacked once is used for ever; delete
//! `target/vms` for newer ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// Name in reports, Debian's suite, and what the release must begin with.
pub const KERNELS: [(&str, &str, &str); 3] =
    [("6.1", "bookworm", "6.1."), ("6.12", "bookworm-backports", "6.12."), ("7.x", "sid", "")];

/// What 6.1 has as modules (later ones have it built in), in the order in which they are loaded.
const MODULES: [&str; 6] =
    ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console"];

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// One of the names in [`KERNELS`].
    pub name: &'static str,
    /// What `uname -r` says there.
    pub release: String,
    /// The kernel itself.
    pub image: PathBuf,
    /// Modules to load, in this order.
    pub modules: Vec<PathBuf>,
}

/// A kernel of this name: the one that is there, or a new one from Debian's mirror.
///
/// # Errors
/// It cannot be had; the message has apt's.
pub fn fetch(name: &str) -> Result<Kernel> {
    let (name, suite, begins) = KERNELS.into_iter().find(|k| k.0 == name).context("no such kernel")?;
    let dir = place()?.join(name);
    fs::create_dir_all(&dir)?;
    // Tests run side by side: whoever comes first, fetches.
    let lock = fs::File::create(dir.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let root = dir.join("root");
    if !root.exists() {
        unpack(&dir, suite, &root).with_context(|| format!("kernel {name} ({suite})"))?;
    }
    let kernel = find(name, &root)?;
    ensure!(kernel.release.starts_with(begins), "{suite} has {} now, not {begins}x", kernel.release);
    Ok(kernel)
}

/// `target/vms`.
fn place() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    Ok(exe.ancestors().nth(3).context("the test lies in target/PROFILE/deps")?.join("vms"))
}

/// Runs a command; its output.
fn output(command: &mut Command) -> Result<String> {
    let made = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(String::from_utf8_lossy(&made.stdout).into_owned())
}

/// A command of apt's that knows one suite only, and keeps all its state under `dir`.
fn apt(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("APT_CONFIG", dir.join("apt.conf")).env("LC_ALL", "C");
    command
}

fn unpack(dir: &Path, suite: &str, root: &Path) -> Result<()> {
    for sub in ["apt/lists/partial", "apt/cache/archives/partial", "none", "unpacked"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    let at = |name: &str| dir.join(name).display().to_string();
    // The keyring by name, as the system's apt may have others.
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(dir.join("apt/status"), "")?;
    fs::write(dir.join("sources.list"), format!("deb [signed-by={keys}] http://deb.debian.org/debian {suite} main\n"))?;
    let own = [
        ("Dir::Etc::main", "/dev/null".to_owned()),
        ("Dir::Etc::parts", at("none")),
        ("Dir::Etc::sourceparts", at("none")),
        ("Dir::Etc::sourcelist", at("sources.list")),
        ("Dir::State", at("apt")),
        ("Dir::State::status", at("apt/status")),
        ("Dir::Cache", at("apt/cache")),
        ("Acquire::Languages", "none".to_owned()),
        ("APT::Architecture", "amd64".to_owned()),
        // The index is signed either way; an older one (a mirror's, a snapshot's) has older kernels, which are as good.
        ("Acquire::Check-Valid-Until", "false".to_owned()),
        // As root apt becomes a user who may not write here.
        ("APT::Sandbox::User", "root".to_owned()),
    ];
    let config: String = own.iter().map(|(key, value)| format!("{key} \"{value}\";\n")).collect();
    fs::write(dir.join("apt.conf"), config)?;

    output(apt(dir, "apt-get").args(["-q", "update"]))?;
    let meta = output(apt(dir, "apt-cache").args(["show", "--no-all-versions", "linux-image-amd64"]))?;
    let depends = meta.lines().find_map(|line| line.strip_prefix("Depends: ")).context("linux-image-amd64")?;
    let image = depends.split([' ', ',']).find(|word| word.starts_with("linux-image-")).context("no linux-image-")?;
    // From 7.x on the kernel itself is in a package of its own.
    let binary = image.replace("linux-image-", "linux-binary-");
    let known = output(apt(dir, "apt-cache").args(["show", &binary])).is_ok_and(|text| !text.is_empty());
    let package = if known { binary } else { image.to_owned() };
    output(apt(dir, "apt-get").args(["-q", "download", &package]))?;
    let files = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let deb = files.filter(|path| path.extension().is_some_and(|e| e == "deb")).max().context("apt brought nothing")?;
    // Only what is needed: all modules are 400 MiB.
    let script =
        "set -e; deb=$1; shift; dpkg-deb --fsys-tarfile \"$deb\" | tar -x -C unpacked --wildcards --no-anchored \"$@\"";
    let modules = MODULES.iter().map(|name| format!("{name}.ko"));
    let wanted = ["vmlinuz*".to_owned()].into_iter().chain(modules);
    let made = Command::new("sh").current_dir(dir).args(["-c", script, "sh"]).arg(&deb).args(wanted).output()?;
    // tar complains of modules that are built in; what there must be is looked for later.
    find("", &dir.join("unpacked")).with_context(|| String::from_utf8_lossy(&made.stderr).into_owned())?;
    for left in [deb, dir.join("apt"), dir.join("none")] {
        if left.is_dir() { fs::remove_dir_all(left)? } else { fs::remove_file(left)? }
    }
    Ok(fs::rename(dir.join("unpacked"), root)?)
}

/// All files under a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn find(name: &'static str, root: &Path) -> Result<Kernel> {
    let mut all = Vec::new();
    files(root, &mut all)?;
    let named = |path: &&PathBuf, name: &str| path.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name));
    let image = all.iter().find(|path| named(path, "vmlinuz")).context("no vmlinuz in the package")?.clone();
    // /boot/vmlinuz-RELEASE, or /usr/lib/modules/RELEASE/vmlinuz.
    let file = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = image.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let release = file.strip_prefix("vmlinuz-").map_or(folder, str::to_owned);
    let module = |name: &str| all.iter().find(|path| named(path, &format!("{name}.ko"))).cloned();
    Ok(Kernel { name, release, modules: MODULES.iter().filter_map(|name| module(name)).collect(), image })
}
