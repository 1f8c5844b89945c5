//! What a person finds who asks the commands themselves: man pages, completions, help, version, the first words.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, User, left_out};

const HEADER: &str = include_str!("../../capture/ckpt.h");
const README: &str = include_str!("../../README.md");

fn ckpt(place: &Place, args: &[&str]) -> Result<Ended> {
    Job::start(place.ckpt().args(args))?.end()
}

/// The names of all commands.
fn commands(place: &Place) -> Result<Vec<String>> {
    let help = ckpt(place, &["-h"])?.out;
    let list = help.split_once("Commands:\n").and_then(|(_, rest)| rest.split_once("\n\n")).context("no commands")?.0;
    let names = list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    Ok(names.filter(|name| name != "help").collect())
}

/// The pages, written by `ckpt man`.
fn pages(place: &Place) -> Result<Vec<PathBuf>> {
    let dir = place.file("man");
    ckpt(place, &["man", dir.to_str().context("UTF-8")?])?.expect_code(0)?;
    let mut pages = Vec::new();
    for section in fs::read_dir(&dir)? {
        for page in fs::read_dir(section?.path())? {
            pages.push(page?.path());
        }
    }
    Ok(pages)
}

/// What a formatter has to complain about, and the text that it makes.
fn formatted(program: &Path, args: &[&str], page: &Path) -> Result<(String, String)> {
    let out = Command::new(program).args(args).arg(page).env("MANWIDTH", "80").stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{program:?} of {page:?}: {out:?}");
    // What is bold or underlined is a letter, a backspace, and a letter.
    let mut text = String::new();
    for c in String::from_utf8(out.stdout)?.chars() {
        if c == '\u{8}' {
            text.pop();
        } else {
            text.push(c);
        }
    }
    Ok((String::from_utf8(out.stderr)?, text))
}

/// All `--options` in a text.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))).collect()
}

#[test]
fn each_page_is_formatted_without_a_warning() -> Result<()> {
    let (groff, man) = (tool("groff", "groff-base")?, tool("man", "man-db")?);
    let place = Place::new(User::Own)?;
    let pages = pages(&place)?;
    ensure!(pages.len() == commands(&place)?.len() + 4, "one of each command, and four: {pages:#?}");
    let ways: [(&Path, &[&str]); 2] = [(&groff, &["-man", "-Tutf8", "-ww"]), (&man, &["--warnings", "-Eutf8", "-l"])];
    for (program, args) in ways {
        for page in &pages {
            let (said, text) = formatted(program, args, page)?;
            ensure!(said.is_empty(), "{page:?}: {said}");
            ensure!(text.contains("NAME") && text.contains("SEE ALSO"), "{page:?}: {text}");
        }
        let wrong = place.write("wrong.1", ".TH WRONG 1\n.SH NAME\nwrong - a page\n.nosuch\n\\*[nosuch]\n")?;
        ensure!(!formatted(program, args, &wrong)?.0.is_empty(), "{program:?} says nothing of a page that is wrong");
    }
    Ok(())
}

#[test]
fn pages_have_all_options() -> Result<()> {
    let (place, groff) = (Place::new(User::Own)?, tool("groff", "groff-base")?);
    let pages = pages(&place)?;
    let text = |name: &str| -> Result<String> {
        let page = pages.iter().find(|page| page.ends_with(name)).with_context(|| format!("no page {name}"))?;
        // On lines so long that no word is divided.
        Ok(formatted(&groff, &["-man", "-Tascii", "-P-cbou", "-rLL=900n", "-rHY=0"], page)?.1)
    };
    for command in commands(&place)? {
        let help = ckpt(&place, &[&command, "--help"])?.out;
        let page = text(&format!("ckpt-{command}.1"))?;
        let missing: Vec<_> = options(&help).difference(&options(&page)).map(|name| (*name).to_owned()).collect();
        ensure!(missing.is_empty(), "ckpt-{command}(1) has no {missing:?}");
        ensure!(text("ckpt.1")?.contains(&format!("ckpt-{command}(1)")), "ckpt(1) does not name ckpt-{command}(1)");
    }
    let mut stub = place.command(place.bin().join("restart-stub"));
    let help = Job::start(stub.arg("--help"))?.end()?.out;
    ensure!(options(&help) == options(&text("restart-stub.1")?), "restart-stub(1) has others than {help}");
    let page = text("ckpt.3")?;
    let calls = HEADER.lines().filter_map(|line| line.strip_prefix("int ")).map(|line| line.trim_end_matches(';'));
    ensure!(calls.clone().count() == 5 && calls.clone().all(|call| page.contains(call)), "{page}");
    let names = README.lines().filter_map(|line| line.strip_prefix("| `CKPT_")?.split_once('`'));
    let names: Vec<_> = names.map(|(name, _)| format!("CKPT_{name}")).collect();
    ensure!(names.len() == 4 && names.iter().all(|name| page.contains(name)), "not all of {names:?} in {page}");
    Ok(())
}

#[test]
fn shells_complete_commands_and_options() -> Result<()> {
    let place = Place::new(User::Own)?;
    let script = place.write("ckpt.bash", ckpt(&place, &["completions", "bash"])?.out)?;
    let lines = "source \"$1\"; shift; COMP_WORDS=(ckpt \"$@\"); COMP_CWORD=$#; _ckpt ckpt \"${@: -1}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; echo \"${COMPREPLY[*]}\"";
    for (words, completed) in
        [(&["sa"][..], "save"), (&["save", "--fre"], "--freeze"), (&["check", "--tcp", "cl"], "close")]
    {
        let mut bash = place.command(tool("bash", "bash")?);
        let said = Job::start(bash.args(["-c", lines, "bash"]).arg(&script).args(words))?.end()?;
        ensure!(said.out.trim() == completed, "{words:?}: {said:#?}");
    }
    for (shell, package) in [("zsh", "zsh"), ("fish", "fish")] {
        let script = place.write(&format!("ckpt.{shell}"), ckpt(&place, &["completions", shell])?.out)?;
        match tool(shell, package) {
            Ok(shell) => Job::start(place.command(shell).arg("-n").arg(script))?.end()?.expect_code(0)?,
            Err(_) => left_out::in_part(left_out::Needs::Package(package), format!("{shell} is not installed")),
        }
    }
    Ok(())
}

#[test]
fn the_first_words() -> Result<()> {
    let place = Place::new(User::Own)?;
    let alone = ckpt(&place, &[])?;
    alone.expect_code(64)?;
    for line in ["ckpt check 4711", "ckpt save 4711 -o job.ckpt", "ckpt restart job.ckpt"] {
        ensure!(alone.err.contains(line), "{alone:#?}");
    }
    for command in commands(&place)? {
        let (short, long) = (ckpt(&place, &[&command, "-h"])?.out, ckpt(&place, &[&command, "--help"])?.out);
        ensure!(short.lines().count() < long.lines().count(), "ckpt {command} -h is as long as --help");
    }
    let version = ckpt(&place, &["--version"])?.out;
    let mut lines = version.lines();
    let first = lines.next().and_then(|line| line.strip_prefix("ckpt ")?.strip_suffix(')')?.split_once(" (commit "));
    let commit = first.context("no commit")?.1;
    ensure!(commit == "unknown" || commit.chars().all(|c| c.is_ascii_hexdigit()), "{version}");
    ensure!(lines.next().is_some_and(|line| line.starts_with("image format: 1.")), "{version}");
    let features = lines.next().and_then(|line| line.strip_prefix("features: ")).context("no features")?;
    let told: serde_json::Value = serde_json::from_str(&ckpt(&place, &["check", "--json"])?.out)?;
    let told: Vec<_> =
        told["features"].as_array().context("features")?.iter().filter_map(|name| name.as_str()).collect();
    ensure!(features.split(' ').eq(told), "{version}");
    Ok(())
}
