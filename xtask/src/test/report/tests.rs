//! Outputs of test programs, and what the report makes of them.

use super::*;

const HARNESS: &str = include_str!("../../../../tests/harness/left_out.rs");

/// A suite's output in libtest's form: what each test printed and returned.
fn played(suite: &str, passed: usize, failures: &[(&str, &str)], successes: &[(&str, &str)]) -> String {
    let block = |(name, text): &(&str, &str)| format!("---- {name} stdout ----\n{text}\n\n");
    let failed: String = failures.iter().map(|(name, _)| format!("test {name} ... FAILED\n")).collect();
    let lists = |all: &[(&str, &str)], head: &str| match all {
        [] => String::new(),
        _ => format!("\n{head}:\n\n{}\n{head}:\n    names\n", all.iter().map(block).collect::<String>()),
    };
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    let error = if failures.is_empty() { "" } else { "error: test failed, to rerun pass `-p x`\n" };
    format!(
        "     Running suites/{suite}.rs (/t/debug/deps/{suite}-0123456789abcdef)\n\nrunning some tests\n{failed}{}{}\n\
         test result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\n{error}",
        lists(successes, "successes"),
        lists(failures, "failures"),
        failures.len()
    )
}

fn report(text: &str, success: bool) -> (Report, String) {
    let mut report = Report::default();
    let shown: Vec<String> = text.lines().flat_map(|line| report.line(line)).collect();
    report.finish(success);
    (report, shown.join("\n"))
}

const NO_GDB: &str = "LEFT OUT (needs root): as nobody\nError: as Own\n\nCaused by:\n    LEFT OUT (needs package gdb): gdb is not installed\n\nStack backtrace:\n   0: x";

#[test]
fn the_mark_is_the_harness_s() {
    assert!(HARNESS.contains(&format!("const MARK: &str = \"{MARK}\";")));
    assert!(HARNESS.contains("\"{MARK}{}): {}\"") && HARNESS.contains("\"package {name}\""));
}

#[test]
fn what_is_left_out_is_no_failure_and_has_a_name() {
    let end = "error: 1 target failed:\n    `-p ckpt-tests --test anypid`\n";
    let (report, shown) = report(&(played("anypid", 2, &[("stops", NO_GDB)], &[]) + end), false);
    assert_eq!((report.passed, report.left_out, &report.failures[..]), (2, 1, &[][..]));
    assert!(shown.contains("test stops ... left out: gdb is not installed (needs package gdb)"), "{shown}");
    assert!(!shown.contains("FAILED") && !shown.contains("error:"), "{shown}");
    assert_eq!(report.reasons.len(), 1, "it is left out whole");
    assert_eq!(report.reasons.keys().filter_map(Reason::package).collect::<Vec<_>>(), ["gdb"]);
    assert_eq!(report.left_out()[1], "    anypid::stops");
}

#[test]
fn a_part_that_is_left_out_is_counted_with_a_test_that_passed() {
    let said = "LEFT OUT (needs root): as nobody: only root can become another user";
    let (report, _) = report(&played("files", 2, &[], &[("a", said), ("b", "words")]), true);
    assert_eq!((report.passed, report.left_out, report.failures.len()), (2, 0, 0));
    assert_eq!(
        report.left_out(),
        ["  in part, needs root: as nobody: only root can become another user (1)", "    files::a"]
    );
}

#[test]
fn a_failure_stays_one() {
    let failed = [("real", "LEFT OUT (needs root): as nobody\nError: it printed nothing"), ("stops", NO_GDB)];
    let (report, shown) = report(&played("anypid", 1, &failed, &[]), false);
    assert_eq!((report.left_out, &report.failures[..]), (1, &["anypid::real".to_owned()][..]));
    assert!(shown.contains("test real ... FAILED\n") && shown.contains("Error: it printed nothing"), "{shown}");
}

#[test]
fn a_panic_is_a_failure_whatever_it_says() {
    let text = "thread 'x' (3) panicked at x.rs:1:1:\nError: LEFT OUT (needs root): no";
    let (report, _) = report(&played("anypid", 1, &[("x", text)], &[]), false);
    assert_eq!(report.failures, ["anypid::x"]);
}

#[test]
fn a_suite_that_dies_is_a_failure() {
    let whole = played("anypid", 2, &[], &[]);
    let cut = whole.split("\ntest result").next().unwrap_or_default().to_owned();
    let (report, _) = report(&(cut + "\nerror: test failed, to rerun pass `-p x`\n" + &whole), false);
    assert_eq!(report.failures, ["anypid: it ended before its result"]);
}

#[test]
fn a_build_that_fails_is_a_failure() {
    let (report, shown) = report("error[E0425]: cannot find value `x`\nerror: could not compile `x`\n", false);
    assert_eq!(report.failures.len(), 1);
    assert!(shown.contains("could not compile"));
}

#[test]
fn a_failure_without_a_name_is_one() {
    let text = played("anypid", 1, &[("x", NO_GDB)], &[]).replace("1 failed", "2 failed");
    let (report, _) = report(&text, false);
    assert_eq!(report.failures, ["anypid: 1 failures are not named"]);
}
