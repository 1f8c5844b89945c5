//! docs/cli.md says what the command says: options, exit codes, fields of the JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
#[path = "../../image-format/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use common::{file, run, stdout};

const DOC: &str = include_str!("../../docs/cli.md");

/// The page's part about one command.
fn section(command: &str) -> &'static str {
    let heading = format!("\n## ckpt {command}\n");
    let at = DOC.find(&heading).unwrap_or_else(|| panic!("docs/cli.md has no part {heading:?}"));
    DOC[at + 4..].split("\n## ").next().unwrap()
}

/// All `--options` in a text.
fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic))).collect()
}

#[test]
fn options_are_those_of_help() {
    for command in [
        "save",
        "run",
        "restart",
        "migrate",
        "receive",
        "show",
        "list",
        "verify",
        "check",
        "bundle",
        "completions",
        "man",
    ] {
        let help = run(&[command.as_ref(), "--help".as_ref()]);
        let text = stdout(&help);
        let mut offered = options(&text);
        offered.remove("--help");
        assert_eq!(options(section(command)), offered, "{command}");
        assert!(DOC.contains(&format!("| [`ckpt {command}`](#ckpt-{command}) |")));
    }
}

#[test]
fn exit_codes_are_those_of_help() {
    let help = stdout(&run(&["--help".as_ref()]));
    let shown: BTreeSet<u8> =
        help[help.find("Exit codes").unwrap()..].split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let table = DOC[DOC.find("## Exit codes").unwrap()..].lines();
    let numbers =
        |line: &str| line.split('|').nth(1).map(|cell| cell.split(',').filter_map(|n| n.trim().parse().ok()).collect());
    let described: BTreeSet<u8> = table.filter_map(numbers).flat_map(|all: Vec<u8>| all).collect();
    assert_eq!(described, shown);
}

#[test]
fn every_field_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["show".as_ref(), "--json".as_ref(), image.as_ref()]).stdout).unwrap();
    let mut names = BTreeSet::new();
    collect(&json, &mut names);
    let section = section("show");
    let words: BTreeSet<&str> = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for name in names {
        assert!(words.contains(name.as_str()), "docs/cli.md does not describe the field {name}");
    }
}

fn collect(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                collect(value, names);
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}
