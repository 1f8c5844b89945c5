//! What README.md and docs/cli.md tell to type: each example is compiled and each line is run, as it stands there.
//!
//! A line that no test here has fails [`every_line_is_run`]. Must never run a text of its own in place of the documents'.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, dist, wait};

const README: &str = include_str!("../../README.md");
const CLI: &str = include_str!("../../docs/cli.md");

const SAVE: &str = "dist/ckpt save 4711 -o job.ckpt";
const PRELOADED: &str = "LD_PRELOAD=$PWD/dist/libckpt.so CKPT_SIGNAL=USR1 CKPT_IMAGE=job.ckpt python3 job.py &";
const SIGNAL: &str = "kill -USR1 $!";
const RESTART: &str = "dist/restart-stub job.ckpt";
const RUN: &str = "dist/ckpt run -o job.ckpt --every 10m -- ./job input.dat";
const LOOKS: [&str; 3] = ["dist/ckpt show job.ckpt", "dist/ckpt list", "dist/ckpt verify job.ckpt"];
const GDB: &str = "gdb -batch -ex bt -ex 'info threads' ./job job.ckpt";
const CLI_RUN: &str = "ckpt run -o job.ckpt --every 10m -- python3 job.py";
const CLI_SIGNALS: [&str; 2] = ["kill -USR1 PID", "kill PID"];
const CLI_STREAM: &str = "ssh box cat job.ckpt | ckpt restart --detach --pidfile job.pid -";
const CLI_JQ: &str = r#"ckpt show --json job.ckpt | jq -r '.processes[].descriptors[] | "\(.fd) \(.path)"'"#;
/// In no block, but in a sentence.
const PIPE: &str = "ckpt save 4711 -o - --compress zstd | ssh box ckpt restart -";

/// Lines that are run elsewhere, and where; and lines that are no commands but what one prints.
const ELSEWHERE: [(&str, &str); 6] = [
    ("cargo xtask demo", "cargo xtask fresh"),
    ("cargo xtask test", "cargo xtask fresh"),
    ("job.ckpt: 1.0 GiB, paused 21 ms, total 490 ms", "what `ckpt save` prints: a_save_and_what_it_prints"),
    ("dist/ckpt migrate 4711 me@box", "migrate::it_goes_on_there_and_ends_here"),
    ("ckpt migrate 4711 me@box", "migrate::it_goes_on_there_and_ends_here"),
    (
        "process 4711: runs on me@box as 2214, its output goes to /home/me/ckpt-4711.out; 68.5 MiB sent, paused 950 ms",
        "what `ckpt migrate` prints: migrate::it_goes_on_there_and_ends_here",
    ),
];

/// The blocks of a document that open with this line.
fn blocks(text: &'static str, opening: &str) -> Vec<&'static str> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (kind, block) = block.split_once('\n').unwrap_or_default();
        let (block, after) = block.split_once("\n```").unwrap_or_default();
        if kind == opening {
            blocks.push(block);
        }
        rest = after;
    }
    blocks
}

/// A line without the remark at its end.
fn bare(line: &str) -> &str {
    line.split_once(" # ").map_or(line, |(command, _)| command).trim()
}

#[test]
fn every_line_is_run() -> Result<()> {
    let readme = blocks(README, "sh").into_iter().flat_map(str::lines).map(bare);
    let cli = blocks(CLI, "").into_iter().flat_map(str::lines);
    // Where commands are shown with a prompt; what follows them is what they print. The others are synopses.
    let cli = cli.filter_map(|line| line.strip_prefix("$ ")).map(bare);
    let told: BTreeSet<&str> = readme.chain(cli).filter(|line| !line.is_empty()).collect();
    let here = [SAVE, PRELOADED, SIGNAL, RESTART, RUN, GDB, CLI_RUN, CLI_STREAM, CLI_JQ];
    let mut run: BTreeSet<&str> = here.into_iter().chain(LOOKS).chain(CLI_SIGNALS).collect();
    run.extend(ELSEWHERE.map(|(line, _)| line));
    ensure!(told.len() > 12, "these cannot be all: {told:?}");
    ensure!(
        told == run,
        "only in the documents, or only here: {:?}",
        told.symmetric_difference(&run).collect::<Vec<_>>()
    );
    ensure!(README.contains(&format!("`{PIPE}`")), "README has no longer: {PIPE}");
    Ok(())
}

/// A place with `dist` and `job` in it, as in README.
fn place(user: User) -> Result<Place> {
    let place = Place::new(user)?;
    std::os::unix::fs::symlink(place.bin(), place.file("dist"))?;
    std::os::unix::fs::symlink(place.guest("umask")?, place.file("job"))?;
    Ok(place)
}

/// A shell that runs these lines; `box` is this machine.
fn shell(place: &Place, lines: &str) -> Command {
    let mut sh = place.command("/bin/sh");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", place.bin().display());
    sh.env("PATH", path).args(["-c", &format!("ssh() {{ shift; \"$@\"; }}\n{lines}")]);
    sh
}

fn ended(place: &Place, lines: &str) -> Result<Ended> {
    let ended = Job::start(&mut shell(place, lines))?.end()?;
    ensure!(ended.code() == Some(0), "{lines}: {ended:#?}");
    Ok(ended)
}

/// A job that waits, saved by README's line, and what the line printed.
fn saved(place: &Place) -> Result<(Job, Ended)> {
    let job = Job::start(&mut place.command(place.file("job")))?;
    job.wait_line(READY)?;
    let ended = ended(place, &SAVE.replace("4711", &job.pid().to_string()))?;
    Ok((job, ended))
}

#[test]
fn a_save_and_what_it_prints() -> Result<()> {
    User::each(|user| {
        let place = place(user)?;
        let (mut job, said) = saved(&place)?;
        let words: Vec<_> = said.out.split_whitespace().collect();
        let form = matches!(words[..], ["job.ckpt:", _, _, "paused", _, "ms,", "total", _, "ms"]);
        ensure!(form, "README shows it in another form: {said:#?}");
        for line in LOOKS {
            ensure!(!ended(&place, line)?.out.is_empty(), "{line} prints nothing");
        }
        place.go()?;
        job.end()?.expect_pass()?;
        ended(&place, RESTART).map(drop)
    })
}

#[test]
fn the_image_is_a_core() -> Result<()> {
    let (place, gdb) = (place(User::Own)?, tool("gdb", "gdb")?);
    let (mut job, _) = saved(&place)?;
    let said = ended(&place, &GDB.replacen("gdb", &gdb.to_string_lossy(), 1))?;
    ensure!(said.out.contains("#0 ") && said.out.contains("main"), "{said:#?}");
    place.go()?;
    job.end()?.expect_pass()
}

#[test]
fn a_pipe_to_another_machine() -> Result<()> {
    let place = place(User::Own)?;
    let mut job = Job::start(&mut place.command(place.file("job")))?;
    job.wait_line(READY)?;
    let mut pipe = Job::start(&mut shell(&place, &PIPE.replace("4711", &job.pid().to_string())))?;
    pipe.wait_err("paused")?;
    place.go()?;
    job.end()?.expect_pass()?;
    pipe.end()?.expect_pass()
}

#[test]
fn a_job_that_survives() -> Result<()> {
    let place = place(User::Own)?;
    place.write("input.dat", "")?;
    let mut job = Job::start(&mut shell(&place, RUN))?;
    job.wait_line(READY)?;
    place.go()?;
    ensure!(job.end()?.code() == Some(0), "{}", job.story());
    Ok(())
}

/// A Python program that goes on until there is a file `go`.
const PYTHON: &str = "import os, time\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n";

#[test]
fn a_save_on_a_signal() -> Result<()> {
    tool("python3", "python3")?;
    let place = place(User::Own)?;
    place.write("job.py", PYTHON)?;
    let lines = format!("{PRELOADED}\nread line\n{SIGNAL}\nwait");
    let mut job = Job::start(&mut shell(&place, &lines))?;
    job.wait_line(READY)?;
    // The library is armed since before the program's first line.
    job.type_in("\n")?;
    let image = place.file("job.ckpt");
    wait::until(|| Ok(image.exists().then_some(())), || job.story())?;
    place.go()?;
    ensure!(job.end()?.code() == Some(0), "{}", job.story());
    ended(&place, RESTART).map(drop)
}

#[test]
fn the_lines_of_the_reference() -> Result<()> {
    tool("python3", "python3")?;
    let place = place(User::Own)?;
    place.write("job.py", PYTHON)?;
    let mut job = Job::start(&mut shell(&place, &format!("exec {CLI_RUN}")))?;
    job.wait_line(READY)?;
    let image = place.file("job.ckpt");
    let [save, end] = CLI_SIGNALS.map(|line| line.replace("PID", &job.process().to_string()));
    ended(&place, &save)?;
    wait::until(|| Ok(image.exists().then_some(())), || job.story())?;
    ended(&place, &end)?;
    ensure!(job.end()?.code() == Some(85), "{}", job.story());
    let has_jq = tool("jq", "jq");
    if has_jq.is_ok() {
        let said = ended(&place, CLI_JQ)?;
        ensure!(said.out.lines().any(|line| line.starts_with("1 ")), "{said:#?}");
    }
    place.go()?;
    ended(&place, CLI_STREAM)?;
    let pid: u32 = fs::read_to_string(place.file("job.pid"))?.trim().parse()?;
    ckpt_tests::proc::wait_gone(pid)?;
    ended(&place, CLI_RUN)?;
    has_jq.map(drop)
}

#[test]
fn the_c_example() -> Result<()> {
    tool("cc", "gcc")?;
    let source = blocks(README, "c")[..].first().copied().context("README has no C example")?;
    let told = source.split_once("/* ").and_then(|(_, rest)| rest.split_once(" */")).context("no line for cc")?.0;
    User::each(|user| {
        let place = Place::new(user)?;
        place.write("job.c", source)?;
        for file in ["libckpt.a", "ckpt.h"] {
            place.write(file, fs::read(dist::dir()?.join(file))?)?;
        }
        ended(&place, &format!("{told} -Wall -Wextra -Werror"))?;
        for says in ["saved\n", "here again\n", "here again\n"] {
            let said = ended(&place, "./a.out")?;
            ensure!(said.out == says, "not {says:?}: {said:#?}");
        }
        Ok(())
    })
}

/// A crate elsewhere that depends on `ckpt`, and knows of nothing else: its first build makes the stub that its first restart needs.
#[test]
fn the_rust_example() -> Result<()> {
    let source = blocks(README, "rust")[..].first().copied().context("README has no Rust example")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).context("the test lies in target/PROFILE/deps")?.join("readme");
    let place = Place::new(User::Own)?;
    fs::create_dir(place.file("src"))?;
    place.write("src/main.rs", source)?;
    let manifest = format!(
        "[package]\nname = \"job\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nckpt = {{ path = {:?} }}\n[workspace]\n",
        root.join("capture")
    );
    place.write("Cargo.toml", manifest)?;
    // The versions that are there already.
    fs::copy(root.join("Cargo.lock"), place.file("Cargo.lock"))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--target-dir"]).arg(&target).current_dir(place.work());
    cargo.env_remove("CKPT_STUB").env_remove("CKPT_WITHOUT_STUB").env_remove("CARGO_MANIFEST_DIR");
    let built = cargo.output()?;
    ensure!(built.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&built.stderr));
    fs::copy(target.join("debug/job"), place.file("job"))?;
    for says in ["saved\n", "drawn again\nhere again\n", "drawn again\nhere again\n"] {
        let said = ended(&place, "./job")?;
        ensure!(said.out == says, "not {says:?}: {said:#?}");
    }
    Ok(())
}
