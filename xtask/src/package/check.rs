//! What was packed is used as a person would: installed in a minimal Debian, unpacked, or built by `cargo install`; then it saves and restarts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::machine::Machine;
use crate::workspace::Workspace;

/// A program that is saved and restarted; its arguments are options of the restart.
const TRY: &str = include_str!("../../package/try.sh");

/// As root, in the machine: installs /ckpt.deb and what a C program needs; all files are there, and are what was packed.
const INSTALL: &str = r#"set -e
export DEBIAN_FRONTEND=noninteractive
# A mirror that is behind is none of the package's faults.
apt-get -o Acquire::Check-Valid-Until=false update -q
apt-get install -q -y --no-install-recommends /ckpt.deb gcc libc6-dev pkg-config
dpkg --verify ckpt
test -z "$(getcap /usr/bin/ckpt)"
for file in /usr/bin/ckpt /usr/bin/restart-stub /usr/include/ckpt.h /usr/share/man/man1/ckpt-save.1.gz /usr/share/man/man5/ckpt-image.5.gz \
    /usr/share/bash-completion/completions/ckpt /usr/share/zsh/vendor-completions/_ckpt /usr/share/fish/vendor_completions.d/ckpt.fish; do
    test "$(dpkg -S $file)" = "ckpt: $file"
done
mkdir /tmp/c && cd /tmp/c
cc -Wall -Werror -o try /try.c $(pkg-config --cflags --libs ckpt)
cc -Wall -Werror -o try-static /try.c $(pkg-config --cflags ckpt) "$(pkg-config --variable=libdir ckpt)/libckpt.a"
for program in ./try ./try-static; do
    test "$($program)" = saved
    test "$(restart-stub library.ckpt)" = "here again"
done"#;

/// As root: yes to the question for the capability.
const RECONFIGURE: &str = r#"set -e
echo 'ckpt ckpt/keep-ids boolean true' | debconf-set-selections
dpkg-reconfigure -f noninteractive ckpt
getcap /usr/bin/ckpt"#;

/// As root: nothing of it stays.
const REMOVE: &str = "DEBIAN_FRONTEND=noninteractive apt-get purge -q -y ckpt && rm /ckpt.deb /try.c && rm -r /tmp/c";

/// Tries all of it.
pub fn all(ws: &Workspace, sh: &Shell, deb: &Path, tarball: &Path, suites: &[&str], mirror: &str) -> Result<()> {
    unpacked(ws, sh, tarball).context("the tarball")?;
    println!("works: the tarball, unpacked");
    by_cargo(ws, sh).context("cargo install --path cli")?;
    println!("works: cargo install --path cli");
    for suite in suites {
        installed(ws, sh, deb, suite, mirror).with_context(|| format!("the package on {suite}"))?;
        println!(
            "works: the package on {suite}: installed, used by an ordinary user, with and without the capability, and removed"
        );
    }
    Ok(())
}

/// In a minimal Debian.
fn installed(ws: &Workspace, sh: &Shell, deb: &Path, suite: &str, mirror: &str) -> Result<()> {
    let machine = Machine::new(sh, ws.target.join("package").join(suite), suite, "", mirror)?;
    fs::copy(deb, machine.file("ckpt.deb"))?;
    fs::write(machine.file("try.c"), include_str!("../../package/try.c"))?;
    let root = |script: &str, what: &str| super::output(machine.command("0", "/").args(["sh", "-c", script]), what);
    let user = |options: &[&str]| {
        let mut command = machine.command("1000", "/home/user");
        super::output(command.args(["LIBRARY=libckpt.so", "sh", "-c", TRY, "sh"]).args(options), "as an ordinary user")
    };
    root(INSTALL, "installing it")?;
    user(&[])?;
    let given = root(RECONFIGURE, "dpkg-reconfigure ckpt")?;
    ensure!(given.contains("cap_checkpoint_restore"), "dpkg-reconfigure ckpt has given no capability: {given}");
    user(&["--pid", "keep"])?;
    root(REMOVE, "removing it")?;
    let all = machine.file("");
    let left = cmd!(sh, "find {all} ( -name *ckpt* -o -name restart-stub ) -print").quiet().read()?;
    ensure!(left.is_empty(), "files are left: {left}");
    Ok(())
}

/// Somewhere in the file system.
fn unpacked(ws: &Workspace, sh: &Shell, tarball: &Path) -> Result<()> {
    let dir = tempfile::tempdir_in(ws.target.join("package"))?;
    let root = dir.path();
    cmd!(sh, "tar -C {root} --strip-components=1 -xzf {tarball}").quiet().run()?;
    here(&root.join("bin"), Some(&root.join("lib/libckpt.so")))
}

/// By cargo, with the stub inside; `restart-stub` is that of `dist/`.
fn by_cargo(ws: &Workspace, sh: &Shell) -> Result<()> {
    let dir = tempfile::tempdir_in(ws.target.join("package"))?;
    let root = dir.path();
    // As somebody does who knows nothing of `cargo xtask`; this program was started by cargo, with that repository's settings.
    cmd!(sh, "cargo install --quiet --locked --path cli --root {root}").env_remove("CKPT_STUB").run()?;
    fs::copy(ws.dist("restart-stub"), root.join("bin/restart-stub"))?;
    here(&root.join("bin"), None)
}

/// On this machine, as this user.
fn here(bin: &Path, library: Option<&Path>) -> Result<()> {
    let mut command = Command::new("sh");
    let path = std::env::var("PATH")?;
    command.args(["-c", TRY, "sh"]).env("PATH", format!("{}:{path}", bin.display()));
    command.env("LIBRARY", library.map_or_else(Default::default, |library| library.as_os_str().to_owned()));
    super::output(&mut command, "it").map(drop)
}
