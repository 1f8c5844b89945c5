//! `cargo xtask fresh`: the two commands of README on a machine that has Rust, gcc, libc6-dev and nothing else.
//!
//! The machine is Debian's smallest system (debootstrap) in a directory of its own under the target directory, entered with namespaces of its
//! own; this machine's Rust toolchain is mounted there, and the crates are copied. An ordinary user without sudo goes first, then root. Must never
//! touch anything outside that directory, and removes it at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, on_path};

/// What `cargo xtask fresh` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// Only this one of the two commands.
    #[arg(long, value_enum)]
    only: Option<Which>,
    /// Only as this user.
    #[arg(long = "as", value_enum)]
    user: Option<Who>,
    /// Where debootstrap finds Debian.
    #[arg(long, default_value = "http://deb.debian.org/debian")]
    mirror: String,
    /// What follows `cargo xtask test`.
    #[arg(last = true)]
    test_args: Vec<String>,
}

/// A command of README.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Demo,
    Test,
}

/// Who runs it.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    /// An ordinary user without sudo.
    User,
    Root,
}

impl Who {
    fn id(self) -> &'static str {
        if self == Self::User { "1000" } else { "0" }
    }

    fn name(self) -> &'static str {
        if self == Self::User { "an ordinary user" } else { "root" }
    }
}

/// Sets the namespaces of the machine up, then becomes a command in it: DIR RUST UID and the command.
const ENTER: &str = r#"set -e
dir=$1 rust=$2 uid=$3; shift 3
mount --bind "$rust" "$dir/opt/rust"
mount -o remount,bind,ro "$dir/opt/rust"
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

/// Where cargo finds crates there: all of ours come from crates.io, and there they lie in a directory.
const CRATES: &str = r#"[source.crates-io]
replace-with = "copied"
[source.copied]
directory = "/home/user/crates"
[net]
offline = true
"#;

/// The machine's directory; removed with the value.
struct Machine {
    dir: PathBuf,
    rust: PathBuf,
}

/// Makes the machine, runs the commands in it, removes it.
///
/// # Errors
/// The machine cannot be made, or a command fails in it.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    println!("Makes a minimal Debian in {}, and runs README's two commands there", ws.target.join("fresh").display());
    println!("(about 2 minutes to make it, then what they take on a first run, as an ordinary user and as root).");
    ensure!(rustix::process::geteuid().is_root(), "only root can make such a machine (debootstrap, chroot)");
    ensure!(on_path("debootstrap").is_some(), "there is no debootstrap: apt-get install debootstrap");
    let sh = ws.shell()?;
    let machine = Machine::new(&sh, ws, &options.mirror)?;
    let (mut seen, mut failed) = (Vec::new(), 0);
    for who in [Who::User, Who::Root].into_iter().filter(|who| options.user.is_none_or(|only| only == *who)) {
        for which in
            [Which::Demo, Which::Test].into_iter().filter(|which| options.only.is_none_or(|only| only == *which))
        {
            let (name, args) = match which {
                Which::Demo => ("demo", &[][..]),
                Which::Test => ("test", &options.test_args[..]),
            };
            println!("\n== cargo xtask {name}, as {}", who.name());
            let start = Instant::now();
            let ended = machine.command(who).args(["cargo", "xtask", name]).args(args).status()?;
            failed += u32::from(!ended.success());
            let time = start.elapsed().as_secs();
            seen.push(format!("cargo xtask {name}, as {}: {ended}, {} min {} s", who.name(), time / 60, time % 60));
        }
    }
    println!("\n{}", seen.join("\n"));
    ensure!(failed == 0, "{failed} of {} failed on a fresh machine", seen.len());
    Ok(())
}

impl Machine {
    fn new(sh: &Shell, ws: &Workspace, mirror: &str) -> Result<Self> {
        let dir = ws.target.join("fresh");
        remove(&dir)?;
        let rust = PathBuf::from(cmd!(sh, "rustc --print sysroot").quiet().read()?);
        let machine = Self { dir, rust };
        let (dir, home) = (&machine.dir, machine.dir.join("home/user"));
        fs::create_dir_all(dir)?;
        cmd!(sh, "debootstrap --variant=minbase --include=gcc,libc6-dev bookworm {dir} {mirror}")
            .ignore_stdout()
            .run()?;
        ensure!(!dir.join("usr/bin/python3").exists() && !dir.join("usr/bin/sudo").exists(), "it is not minimal");

        for place in ["home/user/ckpt", "home/user/.cargo", "opt/rust"] {
            fs::create_dir_all(dir.join(place))?;
        }
        add_line(&dir.join("etc/passwd"), "user:x:1000:1000::/home/user:/bin/sh")?;
        add_line(&dir.join("etc/group"), "user:x:1000:")?;
        let crates = home.join("crates");
        cmd!(sh, "cargo vendor --quiet --locked --versioned-dirs {crates}").quiet().ignore_stdout().run()?;
        fs::write(home.join(".cargo/config.toml"), CRATES)?;
        // What is not committed yet, too; but nothing that was built.
        let listed = cmd!(sh, "git ls-files --cached --others --exclude-standard").quiet().read()?;
        for file in listed.lines().filter(|file| ws.root.join(file).is_file()) {
            let to = home.join("ckpt").join(file);
            fs::create_dir_all(to.parent().context("a file lies in a directory")?)?;
            fs::copy(ws.root.join(file), &to).with_context(|| format!("copying {file}"))?;
        }
        cmd!(sh, "chown -R 1000:1000 {home}").quiet().run()?;
        Ok(machine)
    }

    /// A command in it, in the repository's copy.
    fn command(&self, who: Who) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        command.arg(&self.dir).arg(&self.rust).arg(who.id());
        command.args(["--chdir=/home/user/ckpt", "HOME=/home/user", "LANG=C.UTF-8"]);
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

/// Removes the machine, unless something is mounted in it.
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
