//! Reads what the test programs print, passes it on, and counts: passed, failed, left out.
//!
//! A test that cannot run here fails with an error that says `LEFT OUT` (tests/harness/left_out.rs): it is shown and counted as that. Must
//! never excuse anything else: a suite passes when each failure in it is such an error, and when it came to its end.

use std::collections::BTreeMap;

/// How tests begin the line that says what they need (`MARK` of tests/harness/left_out.rs).
const MARK: &str = "LEFT OUT (needs ";

/// What a test needs that is not here, why, and whether it ran in part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// A package, root or another machine.
    pub needs: String,
    why: String,
    in_part: bool,
}

impl Reason {
    /// From a line that a test printed.
    fn read(line: &str, in_part: bool) -> Option<Self> {
        let (needs, why) = line.split_once(MARK)?.1.split_once("): ")?;
        Some(Self { needs: needs.into(), why: why.into(), in_part })
    }

    /// The Debian package that is missing, if it is one.
    pub fn package(&self) -> Option<&str> {
        self.needs.strip_prefix("package ")
    }
}

/// A block of one test's output, in one of libtest's two lists.
#[derive(Default)]
struct Block {
    test: String,
    failed: bool,
    lines: Vec<String>,
}

/// Where in a suite's output a line stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Before the lists.
    #[default]
    Lines,
    /// After `successes:`.
    Successes,
    /// After `failures:`.
    Failures,
}

/// All that was seen.
#[derive(Default)]
pub struct Report {
    suite: String,
    is_open: bool,
    part: Part,
    block: Option<Block>,
    excused: usize,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that cannot run here at all.
    pub left_out: usize,
    /// What is wrong, by name.
    pub failures: Vec<String>,
    /// What was left out, by reason.
    pub reasons: BTreeMap<Reason, Vec<String>>,
    failed_suites: usize,
    failed_targets: usize,
}

impl Report {
    /// Takes the next line of all that cargo and the test programs print; returns what to show.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        if let Some(suite) = suite(line) {
            self.end();
            self.suite = suite;
            self.is_open = true;
            return vec![line.into()];
        }
        if line.starts_with("error: test failed, to rerun") || line.starts_with("error: doctest failed, to rerun") {
            self.failed_targets += 1;
            return vec![];
        }
        // Cargo's list of them has those with nothing but tests that were left out, too.
        if is_list_of_targets(line) {
            return vec![];
        }
        if line == "successes:" || line == "failures:" {
            let shown = self.close();
            self.part = if line == "failures:" { Part::Failures } else { Part::Successes };
            return shown;
        }
        if line.starts_with("test result: ") {
            let mut shown = self.close();
            shown.push(self.result(line));
            return shown;
        }
        if self.part == Part::Lines {
            // Shown with its reason when that is known.
            let failed = line.starts_with("test ") && line.ends_with(" ... FAILED");
            return if failed { vec![] } else { vec![line.into()] };
        }
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            let shown = self.close();
            self.block = Some(Block { test: test.into(), failed: self.part == Part::Failures, lines: vec![] });
            return shown;
        }
        if let Some(block) = &mut self.block {
            block.lines.push(line.into());
        }
        vec![]
    }

    /// Ends the block that is open.
    fn close(&mut self) -> Vec<String> {
        let Some(block) = self.block.take() else { return vec![] };
        let name = format!("{}::{}", self.suite, block.test);
        let error = block.lines.iter().skip_while(|line| !is_error(line));
        let panicked =
            block.lines.iter().any(|line| line.contains("' panicked at ") || line.contains(") panicked at "));
        let whole = error.filter_map(|line| Reason::read(line, false)).last().filter(|_| block.failed && !panicked);
        if let Some(reason) = whole {
            let shown = format!("test {} ... left out: {} (needs {})", block.test, reason.why, reason.needs);
            self.note(reason, &name);
            self.excused += 1;
            return vec![shown];
        }
        for reason in block.lines.iter().take_while(|l| !is_error(l)).filter_map(|l| Reason::read(l, true)) {
            self.note(reason, &name);
        }
        if !block.failed {
            return vec![];
        }
        self.failures.push(name);
        [vec![format!("test {} ... FAILED", block.test)], block.lines].concat()
    }

    fn note(&mut self, reason: Reason, name: &str) {
        let names = self.reasons.entry(reason).or_default();
        if names.last().is_none_or(|last| last != name) {
            names.push(name.into());
        }
    }

    /// Takes the line with a suite's counts.
    fn result(&mut self, line: &str) -> String {
        let count = |what: &str| -> Option<usize> {
            line.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        let (Some(passed), Some(failed)) = (count("passed"), count("failed")) else {
            self.failures.push(format!("{}: its result is in another form: {line}", self.suite));
            return line.into();
        };
        self.is_open = false;
        self.part = Part::Lines;
        self.passed += passed;
        self.failed_suites += usize::from(failed > 0);
        let excused = std::mem::take(&mut self.excused);
        self.left_out += excused;
        let named = self.failures.iter().filter(|name| name.starts_with(&format!("{}::", self.suite))).count();
        if failed > excused + named {
            self.failures.push(format!("{}: {} failures are not named", self.suite, failed - excused - named));
        }
        format!("{}: {passed} passed, {} failed, {excused} left out", self.suite, failed.saturating_sub(excused))
    }

    /// Ends a suite: it must have come to its result.
    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.failures.push(format!("{}: it ended before its result", self.suite));
        }
        (self.part, self.block, self.excused) = (Part::Lines, None, 0);
    }

    /// Ends it all; `success` is what cargo said.
    pub fn finish(&mut self, success: bool) {
        self.end();
        if !success
            && self.failures.is_empty()
            && (self.failed_targets == 0 || self.failed_targets != self.failed_suites)
        {
            self.failures.push("cargo test failed, and no test did: see above".into());
        }
    }

    /// What was left out, for people: each reason with the tests that it concerns.
    pub fn left_out(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (reason, names) in &self.reasons {
            let part = if reason.in_part { "in part, " } else { "" };
            lines.push(format!("  {part}needs {}: {} ({})", reason.needs, reason.why, names.len()));
            lines.extend(wrapped(names));
        }
        lines
    }
}

/// Where the error begins that a test returned.
fn is_error(line: &str) -> bool {
    line.starts_with("Error: ")
}

/// Whether it belongs to cargo's list of failed targets.
fn is_list_of_targets(line: &str) -> bool {
    let head = line.strip_prefix("error: ").and_then(|rest| rest.split_once(' '));
    line.starts_with("    `-p ") || head.is_some_and(|(_, rest)| ["target failed:", "targets failed:"].contains(&rest))
}

/// The name of a suite whose run cargo announces.
fn suite(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc-tests of {name}"));
    }
    let file = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit('/').next()?;
    Some(file.rsplit_once('-')?.0.into())
}

/// Names, comma by comma, in lines of a readable length.
fn wrapped(names: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let comma = if i + 1 < names.len() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if line.len() + name.len() < 118 => line.push_str(&format!(" {name}{comma}")),
            _ => lines.push(format!("    {name}{comma}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
