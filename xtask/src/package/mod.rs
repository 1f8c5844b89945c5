//! `cargo xtask package`: a Debian package and a tarball of what `dist` builds, with man pages and completions.
//!
//! Both are laid out as a tree below the target directory first; what stands in them is in `xtask/package/`. Must never need more than
//! dpkg-deb, tar and gzip.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, on_path};
use crate::{dist, elf_check};

mod check;
mod tree;

use tree::Tree;

/// The version of all of it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `cargo xtask package` accepts.
#[derive(clap::Args)]
pub struct Options {
    /// Install the package in a minimal Debian, use it there as an ordinary user, remove it; and do `cargo install --path cli` (as root).
    #[arg(long)]
    check: bool,
    /// With --check: the suites of Debian (repeatable; default: bookworm, trixie and sid).
    #[arg(long = "on", value_name = "SUITE")]
    suites: Vec<String>,
    /// With --check: where debootstrap finds Debian.
    #[arg(long, default_value = crate::machine::MIRROR)]
    mirror: String,
}

/// Builds `dist/`, packs it into `dist/`, and tries what it has packed.
///
/// # Errors
/// Something does not build, a program that packs is missing, or what is packed does not work (named).
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    for (program, package) in [("dpkg-deb", "dpkg"), ("tar", "tar"), ("gzip", "gzip")] {
        ensure!(on_path(program).is_some(), "there is no {program}: apt-get install {package}");
    }
    dist::run(ws)?;
    let alone = elf_check::is_static(&fs::read(ws.dist("ckpt"))?)?;
    ensure!(alone, "dist/ckpt needs this machine's C library: install libc6-dev (libc.a), so that it runs on any");
    let sh = ws.shell()?;
    if let Ok(time) = cmd!(sh, "git log -1 --format=%ct").quiet().ignore_stderr().read() {
        // The same commit gives the same bytes.
        sh.set_var("SOURCE_DATE_EPOCH", time);
    }
    let deb = debian(ws, &sh)?;
    let tarball = tarball(ws, &sh)?;
    for file in [&deb, &tarball] {
        println!("{}: {} bytes", file.display(), fs::metadata(file)?.len());
    }
    if options.check {
        let suites: Vec<_> = options.suites.iter().map(String::as_str).collect();
        let suites = if suites.is_empty() { &["bookworm", "trixie", "sid"][..] } else { &suites };
        check::all(ws, &sh, &deb, &tarball, suites, &options.mirror)?;
    }
    Ok(())
}

/// The Debian package, in `dist/`.
fn debian(ws: &Workspace, sh: &Shell) -> Result<PathBuf> {
    let tree = Tree::new(ws, "debian", "usr/lib/x86_64-linux-gnu", "usr")?;
    tree.fill(
        sh,
        "usr/share/bash-completion/completions",
        "usr/share/zsh/vendor-completions",
        "usr/share/fish/vendor_completions.d",
    )?;
    tree.documents("usr/share/doc/ckpt")?;
    let mit = fs::read_to_string(ws.root.join("LICENSE-MIT"))?;
    let mit: Vec<_> =
        mit.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") }).collect();
    let copyright = include_str!("../../package/copyright").replace("@MIT@", &mit.join("\n"));
    tree.put("usr/share/doc/ckpt/copyright", copyright.as_bytes())?;
    tree.gzip(sh)?;

    let size = tree.kibibytes()?;
    let sums = tree.sums(sh)?;
    let control =
        include_str!("../../package/control").replace("@VERSION@", VERSION).replace("@SIZE@", &size.to_string());
    tree.put("DEBIAN/control", control.as_bytes())?;
    tree.put("DEBIAN/md5sums", sums.as_bytes())?;
    tree.put("DEBIAN/templates", include_bytes!("../../package/templates"))?;
    tree.put("DEBIAN/triggers", include_bytes!("../../package/triggers"))?;
    for (name, text) in [
        ("config", include_str!("../../package/config")),
        ("postinst", include_str!("../../package/postinst")),
        ("postrm", include_str!("../../package/postrm")),
    ] {
        let script = tree.put(&format!("DEBIAN/{name}"), text.as_bytes())?;
        fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    }
    let (root, deb) = (tree.root(), ws.dist(&format!("ckpt_{VERSION}_amd64.deb")));
    cmd!(sh, "dpkg-deb --root-owner-group -Zxz --build {root} {deb}").quiet().ignore_stdout().run()?;
    Ok(deb)
}

/// The tarball, in `dist/`: it works wherever it is unpacked.
fn tarball(ws: &Workspace, sh: &Shell) -> Result<PathBuf> {
    let name = format!("ckpt-{VERSION}-x86_64-linux");
    let tree = Tree::new(ws, &name, "lib", ".")?;
    tree.fill(sh, "share/bash-completion/completions", "share/zsh/site-functions", "share/fish/vendor_completions.d")?;
    tree.documents(".")?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        tree.put(licence, &fs::read(ws.root.join(licence))?)?;
    }
    let (parent, tarball) =
        (tree.root().parent().context("it lies in a directory")?, ws.dist(&format!("{name}.tar.gz")));
    let time = sh.var("SOURCE_DATE_EPOCH").map_or_else(|_| Vec::new(), |time| vec![format!("--mtime=@{time}")]);
    let owner = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    let plain = tarball.with_extension("");
    cmd!(sh, "tar -C {parent} {owner...} {time...} -cf {plain} {name}").quiet().run()?;
    cmd!(sh, "gzip -9nf {plain}").quiet().run()?;
    Ok(tarball)
}

/// A program's output, which must have succeeded.
fn output(command: &mut Command, what: &str) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    if !out.status.success() {
        let (said, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        bail!("{what}: {}: {said}{err}", out.status);
    }
    Ok(String::from_utf8(out.stdout)?)
}
