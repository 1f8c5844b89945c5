//! The rule that keeps a kernel object in one place: its code, its record, its guest program, which is played, its row for users.

use std::collections::BTreeSet;

use super::{Tree, Violation};

/// Modules of `state` and of the records that are no kernel objects.
const STATE_HELPERS: [&str; 10] =
    ["error", "gate", "index", "inside", "lib", "owner", "policy", "restart", "target", "wait"];
const RECORD_HELPERS: [&str; 3] = ["mod", "header", "job"];

/// Files of an object that needs more than one: the file's name, and whose it is.
const PARTS: [(&str, &str); 2] = [("deadline", "thread"), ("frame", "thread")];

const STATE: &str = "state/src/";
const RECORDS: &str = "image-format/src/record/";
const PROGRAMS: &str = "tests/programs/";
const SUITE: &str = "tests/suites/objects.rs";
const SUITE_PARTS: &str = "tests/suites/objects/";
pub const LIMITS: &str = "docs/limits.md";

/// Checks that each object has all of them.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    let code = names(tree, STATE, &[".rs"], &STATE_HELPERS);
    let records = names(tree, RECORDS, &[".rs"], &RECORD_HELPERS);
    let programs = names(tree, PROGRAMS, &[".c", ".rs"], &[]);
    let rows = rows(tree.text(LIMITS).unwrap_or_default());
    let mut played = played(tree.text(SUITE).unwrap_or_default());
    played.extend(tree.files(SUITE_PARTS, ".rs").flat_map(|(_, text)| self::played(text)));
    let documented: BTreeSet<_> = rows.iter().map(|(name, _)| name.clone()).collect();

    let is_part = |name: &String| PARTS.iter().any(|(part, whole)| part == name && code.contains(*whole));
    for name in code.iter().filter(|name| !is_part(name)) {
        let file = format!("{STATE}{name}.rs");
        for (there, what) in [
            (records.contains(name), format!("{RECORDS}{name}.rs")),
            (programs.contains(name), format!("{PROGRAMS}{name}.c (or .rs)")),
            (played.contains(name), format!("place in {SUITE}")),
            (documented.contains(name), format!("a row `{name}` in {LIMITS}")),
        ] {
            if !there {
                found.push(Violation::new(&file, 1, format!("the object has no {what}")));
            }
        }
    }
    for name in records.difference(&code).filter(|name| !is_part(name)) {
        found.push(Violation::new(&format!("{RECORDS}{name}.rs"), 1, format!("a record without {STATE}{name}.rs")));
    }
    for (name, line) in rows.iter().filter(|(name, _)| !code.contains(name)) {
        found.push(Violation::new(LIMITS, *line, format!("a row without {STATE}{name}.rs")));
    }
}

fn names(tree: &Tree, folder: &str, ends: &[&str], helpers: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for end in ends {
        for (path, _) in tree.files(folder, end) {
            let name = &path[folder.len()..path.len() - end.len()];
            if !name.contains('/') && !helpers.contains(&name) {
                names.insert(name.to_string());
            }
        }
    }
    names
}

/// Names in a suite's lists (`objects! { … }`, `trees! { … }`), and of its modules.
fn played(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(module) = line.strip_prefix("mod ") {
            names.extend(module.strip_suffix(" {").map(str::to_owned));
        }
        let list =
            line.split_once("! {").filter(|(macro_name, _)| ["objects", "trees", "filters"].contains(macro_name));
        inside |= list.is_some();
        if inside {
            let words = list.map_or(line, |(_, rest)| rest).split_whitespace();
            names.extend(words.map(|word| word.trim_matches('}')).filter(|word| !word.is_empty()).map(str::to_owned));
            inside = !line.ends_with('}');
        }
    }
    names
}

/// The first cells of the table under the heading "Objects", with their lines.
pub fn rows(text: &str) -> Vec<(String, usize)> {
    let mut inside = false;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == "Objects";
        }
        let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once('`'));
        if let (true, Some((name, _))) = (inside, cell) {
            rows.push((name.to_string(), number + 1));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    const WHOLE: [(&str, &str); 6] = [
        ("state/src/lib.rs", ""),
        ("state/src/pipe.rs", ""),
        ("image-format/src/record/pipe.rs", ""),
        ("tests/programs/pipe.c", ""),
        ("tests/suites/objects.rs", "objects! {\n    fifo\n    pipe umask\n}\n"),
        ("docs/limits.md", "# Limits\n## Objects\n| object | saved |\n|---|---|\n| `pipe` | yes |\n## Else\n| `x` |\n"),
    ];

    #[test]
    fn an_object_with_all_of_them_is_in_order() {
        assert!(found(check, &WHOLE).is_empty());
    }

    #[test]
    fn each_missing_one_is_named() {
        for (name, _) in &WHOLE[1..] {
            let mut files = WHOLE.to_vec();
            files.retain(|(path, _)| path != name);
            assert!(!found(check, &files).is_empty(), "without {name}");
        }
    }

    #[test]
    fn lists_of_one_line_and_modules_are_played_too() {
        let names = played(
            "mod seccomp {\n    use super::*;\n}\nmacro_rules! trees {\n    x\n}\ntrees! { process sigio }\nelse\n",
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["process", "seccomp", "sigio"]);
    }

    #[test]
    fn a_second_record_belongs_to_an_object() {
        let frame = [("image-format/src/record/frame.rs", ""), ("state/src/frame.rs", "")];
        assert!(!found(check, &frame).is_empty());
        let thread = WHOLE.map(|(path, text)| (path.replace("pipe", "thread"), text.replace("pipe", "thread")));
        let mut files: Vec<_> = thread.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        files.extend(frame);
        assert!(found(check, &files).is_empty());
    }

    #[test]
    fn other_guests_need_no_object() {
        let mut files = WHOLE.to_vec();
        files.push(("tests/programs/counter.c", ""));
        assert!(found(check, &files).is_empty());
    }
}
