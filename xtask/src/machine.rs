//! A minimal Debian (debootstrap) in a directory of its own, entered with namespaces of its own.
//!
//! Must never touch anything outside that directory, and removes it at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::workspace::on_path;

/// Where debootstrap finds Debian.
pub const MIRROR: &str = "http://deb.debian.org/debian";

/// Sets the namespaces of the machine up, then becomes a command in it: DIR TOOLS UID and the command; TOOLS is a directory of this machine
/// that is /opt/rust there, or empty.
const ENTER: &str = r#"set -e
dir=$1 tools=$2 uid=$3; shift 3
if [ -n "$tools" ]; then
    mount --bind "$tools" "$dir/opt/rust"
    mount -o remount,bind,ro "$dir/opt/rust"
fi
mount -t proc proc "$dir/proc"
mount -t sysfs -o ro sysfs "$dir/sys" || mount --rbind -o ro /sys "$dir/sys"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$dir/dev/pts"
mount --bind "$dir/dev/pts/ptmx" "$dir/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$dir/dev/shm"
# Not chroot(1): in one no user namespace can be made.
mount --rbind "$dir" "$dir"
cd "$dir"
pivot_root . mnt
umount -l /mnt
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i "$@""#;

/// The machine's directory; removed with the value.
pub struct Machine {
    dir: PathBuf,
    tools: PathBuf,
}

impl Machine {
    /// Makes one of a suite of Debian, with these packages more (separated by commas) and a user `user` of id 1000.
    ///
    /// # Errors
    /// Only root can; there is no debootstrap, or no mirror that answers.
    pub fn new(sh: &Shell, dir: PathBuf, suite: &str, packages: &str, mirror: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "only root can make such a machine (debootstrap, chroot)");
        ensure!(on_path("debootstrap").is_some(), "there is no debootstrap: apt-get install debootstrap");
        remove(&dir)?;
        let machine = Self { dir, tools: PathBuf::new() };
        let dir = &machine.dir;
        fs::create_dir_all(dir)?;
        let more = (!packages.is_empty()).then(|| format!("--include={packages}"));
        cmd!(sh, "debootstrap --variant=minbase {more...} {suite} {dir} {mirror}").ignore_stdout().run()?;
        ensure!(!dir.join("usr/bin/python3").exists() && !dir.join("usr/bin/sudo").exists(), "it is not minimal");
        fs::create_dir_all(dir.join("home/user"))?;
        add_line(&dir.join("etc/passwd"), "user:x:1000:1000::/home/user:/bin/sh")?;
        add_line(&dir.join("etc/group"), "user:x:1000:")?;
        cmd!(sh, "chown 1000:1000 {dir}/home/user").quiet().run()?;
        Ok(machine)
    }

    /// The same with this directory as `/opt/rust`, for reading.
    ///
    /// # Errors
    /// There is no room.
    pub fn with_rust(mut self, tools: PathBuf) -> Result<Self> {
        fs::create_dir_all(self.dir.join("opt/rust"))?;
        self.tools = tools;
        Ok(self)
    }

    /// A file of it, as it is called from outside.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// A command in it, as the user of this id, in a directory of it.
    pub fn command(&self, uid: &str, directory: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.dir).arg(&self.tools).arg(uid);
        command.arg(format!("--chdir={directory}")).args(["HOME=/home/user", "LANG=C.UTF-8"]);
        command.arg("PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            eprintln!("{} stays: {error:#}", self.dir.display());
        }
    }
}

fn add_line(file: &Path, line: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(fs::write(file, text + line + "\n")?)
}

/// Removes a machine, unless something is mounted in it.
fn remove(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(mount) =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|at| Path::new(at).starts_with(dir))
    {
        bail!("{mount} is mounted: unmount it first");
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
