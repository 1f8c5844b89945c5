//! `cargo xtask fresh`: the two commands of README on a machine that has Rust, gcc, libc6-dev and nothing else.
//!
//! The machine is a minimal Debian; this machine's Rust toolchain is mounted there, and the crates are copied. An ordinary user without sudo goes
//! first, then root. Must never touch anything outside the machine's directory.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::machine::{MIRROR, Machine};
use crate::workspace::Workspace;

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
    #[arg(long, default_value = MIRROR)]
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

/// Where cargo finds crates there: all of ours come from crates.io, and there they lie in a directory.
const CRATES: &str = r#"[source.crates-io]
replace-with = "copied"
[source.copied]
directory = "/home/user/crates"
[net]
offline = true
"#;

/// Makes the machine, runs the commands in it, removes it.
///
/// # Errors
/// The machine cannot be made, or a command fails in it.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    println!("Makes a minimal Debian in {}, and runs README's two commands there", ws.target.join("fresh").display());
    println!("(about 2 minutes to make it, then what they take on a first run, as an ordinary user and as root).");
    let sh = ws.shell()?;
    let machine = machine(&sh, ws, &options.mirror)?;
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
            let ended =
                machine.command(who.id(), "/home/user/ckpt").args(["cargo", "xtask", name]).args(args).status()?;
            failed += u32::from(!ended.success());
            let time = start.elapsed().as_secs();
            seen.push(format!("cargo xtask {name}, as {}: {ended}, {} min {} s", who.name(), time / 60, time % 60));
        }
    }
    println!("\n{}", seen.join("\n"));
    ensure!(failed == 0, "{failed} of {} failed on a fresh machine", seen.len());
    Ok(())
}

/// A minimal Debian with a C compiler, this machine's Rust, and a copy of the repository in the user's home.
fn machine(sh: &Shell, ws: &Workspace, mirror: &str) -> Result<Machine> {
    let rust = PathBuf::from(cmd!(sh, "rustc --print sysroot").quiet().read()?);
    let machine = Machine::new(sh, ws.target.join("fresh"), "bookworm", "gcc,libc6-dev", mirror)?.with_rust(rust)?;
    let home = machine.file("home/user");
    for place in ["ckpt", ".cargo"] {
        fs::create_dir_all(home.join(place))?;
    }
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
