//! Rules about source files: how modules open, how long they are, and what may stand where.

use super::source;
use super::{Tree, Violation};

/// One room holds one thought.
const LINES_MAX: usize = 400;

/// Crates in which a panic would end a program that is not ours.
const NO_PANIC: [&str; 4] = ["sys/", "state/", "capture/", "loader/"];

/// Crates (their root modules) that must stay free of unsafe code.
const NO_UNSAFE: [&str; 2] = ["image-format/src/lib.rs", "loader/src/lib.rs"];

/// Checks every source file.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for (path, text) in tree.files("", ".rs") {
        if !text.starts_with("//!") {
            found.push(Violation::new(path, 1, "a module opens with `//!`: what it is for, what it must never do"));
        }
        let code = source::code(text);
        if !path.starts_with("sys/") {
            machine(path, &code, found);
        }
        let build_script = path.ends_with("/build.rs");
        let test = path.contains("/tests/");
        if NO_PANIC.iter().any(|krate| path.starts_with(krate)) && !build_script && !test {
            panics(path, &source::without_tests(&code), found);
        }
    }
    for end in [".rs", ".c", ".h", ".py", ".ld"] {
        for (path, text) in tree.files("", end) {
            let lines = text.lines().count();
            if lines > LINES_MAX {
                found.push(Violation::new(
                    path,
                    lines,
                    format!("{lines} lines, more than {LINES_MAX}: make two files of it"),
                ));
            }
        }
    }
    for path in NO_UNSAFE {
        if tree.text(path).is_some_and(|text| !source::code(text).contains("#![forbid(unsafe_code)]")) {
            found.push(Violation::new(path, 1, "must say #![forbid(unsafe_code)]"));
        }
    }
}

/// Assembly and raw system calls stand in `sys` alone.
fn machine(path: &str, code: &str, found: &mut Vec<Violation>) {
    for (number, line) in numbered(code) {
        for word in ["asm!", "global_asm!", "naked_asm!", "naked", "syscalls"] {
            let hit = positions(line, word).any(|at| match word {
                "naked" => line[..at].contains("#["),
                "syscalls" => line[at + word.len()..].starts_with("::") && !line[..at].ends_with("::"),
                _ => true,
            });
            if hit {
                found.push(Violation::new(path, number, format!("`{word}` belongs under sys/")));
            }
        }
    }
}

fn panics(path: &str, code: &str, found: &mut Vec<Violation>) {
    for (number, line) in numbered(code) {
        for call in [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("] {
            if line.contains(call) {
                found.push(Violation::new(path, number, format!("`{call}` may panic: return an error")));
            }
        }
        for name in ["panic!", "todo!", "unimplemented!"] {
            if positions(line, name).next().is_some() {
                found.push(Violation::new(path, number, format!("`{name}`: return an error")));
            }
        }
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line))
}

/// Where `word` stands in `line` and is no part of a longer word.
fn positions<'l>(line: &'l str, word: &str) -> impl Iterator<Item = usize> + 'l {
    let len = word.len();
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).collect::<Vec<_>>().into_iter().filter(move |at| {
        let (before, after) = (&line[..*at], &line[at + len..]);
        !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    #[test]
    fn a_module_opens_with_its_purpose() {
        assert_eq!(found(check, &[("cli/src/a.rs", "//! For b.\n")]), Vec::<String>::new());
        let seen = found(check, &[("cli/src/a.rs", "use b;\n")]);
        assert!(seen.len() == 1 && seen[0].starts_with("cli/src/a.rs:1: a module opens"), "{seen:?}");
    }

    #[test]
    fn a_long_file_is_two_files() {
        let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        assert_eq!(found(check, &[("cli/src/a.rs", &long)]).len(), 1);
        assert_eq!(found(check, &[("tests/programs/a.c", &long)]).len(), 1);
    }

    #[test]
    fn assembly_and_system_calls_belong_under_sys() {
        let text = "//! A.\nfn f() { core::arch::asm!(\"nop\") }\n#[unsafe(naked)]\nuse syscalls::Sysno;\n";
        assert_eq!(found(check, &[("state/src/a.rs", text)]).len(), 3);
        assert!(found(check, &[("sys/src/a.rs", text)]).is_empty());
        let talk = "//! `asm!` and syscalls:: are far.\nconst A: &str = \"asm!\"; // naked\nuse sys::syscalls::a;\n";
        assert!(found(check, &[("state/src/a.rs", talk)]).is_empty());
    }

    #[test]
    fn no_panic_outside_tests() {
        let text = "//! A.\nfn f() { g().unwrap(); }\n#[cfg(test)]\nmod tests { fn t() { h().unwrap(); } }\n";
        assert_eq!(
            found(check, &[("capture/src/a.rs", text)]),
            ["capture/src/a.rs:2: `.unwrap()` may panic: return an error"]
        );
        assert!(found(check, &[("cli/src/a.rs", text), ("loader/build.rs", text)]).is_empty());
        assert!(found(check, &[("sys/src/a.rs", "//! A.\n#[panic_handler]\nfn f() { x.unwrap_or(0); }\n")]).is_empty());
    }

    #[test]
    fn unsafe_is_forbidden_where_it_is_not_needed() {
        assert_eq!(found(check, &[("loader/src/lib.rs", "//! A.\n")]).len(), 1);
        assert!(found(check, &[("loader/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n")]).is_empty());
    }
}
