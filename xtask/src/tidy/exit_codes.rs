//! The rule that the documented exit codes are those of the code, in both directions. Where a table has a column of
//! names in backticks, these too.

use super::{Tree, Violation};

const CODES: &str = "image-format/src/exit.rs";
const README: &str = "README.md";

/// Compares every table under a heading "Exit codes" with the enum.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    let Some(source) = tree.text(CODES) else { return };
    let codes = codes(source);
    for (path, text) in tree.files("", ".md") {
        let rows = rows(text);
        if rows.is_empty() {
            if path == README {
                found.push(Violation::new(path, 1, "no table under a heading \"Exit codes\""));
            }
            continue;
        }
        for (number, name, line) in &rows {
            let known = codes.iter().find(|(code, _)| code == number);
            let named = |(_, variant): &(u8, String)| name.as_ref().is_none_or(|name| name == variant);
            if *number != 0 && !known.is_some_and(named) {
                let name = name.as_deref().unwrap_or_default();
                found.push(Violation::new(path, *line, format!("exit code {number} {name} is not in {CODES}")));
            }
        }
        for (number, name) in &codes {
            if !rows.iter().any(|(row, _, _)| row == number) {
                found.push(Violation::new(path, rows[0].2, format!("exit code {number} `{name}` is missing")));
            }
        }
    }
}

/// The variants with a number: `Name = 64,`.
fn codes(source: &str) -> Vec<(u8, String)> {
    let variant = |line: &str| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        Some((number.parse().ok()?, name.to_string()))
    };
    source.lines().filter_map(variant).collect()
}

/// Rows `| 64 | …` under a heading "Exit codes": number, second cell where it is a name in backticks, line.
fn rows(text: &str) -> Vec<(u8, Option<String>, usize)> {
    let mut inside = false;
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == "Exit codes";
        }
        let mut cells = line.split('|').map(str::trim).skip(1);
        let number = cells.next().and_then(|cell| cell.parse().ok());
        if let (true, Some(number), Some(name)) = (inside, number, cells.next()) {
            let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            rows.push((number, name.map(String::from), at + 1));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    const SOURCE: (&str, &str) =
        (CODES, "pub enum ExitCode {\n    /// Usage.\n    Usage = 64,\n    NoImage = 66,\n}\n");

    #[test]
    fn a_table_with_all_codes_is_in_order() {
        let readme = "## Exit codes\n| 64 | `Usage` | a |\n| 66 | `NoImage` | b |\n## Else\n| 3 | `X` |\n";
        assert!(found(check, &[SOURCE, (README, readme)]).is_empty());
        let plain = "## Exit codes\n| 0 | done |\n| 64 | a |\n| 66 | b |\n";
        assert!(found(check, &[SOURCE, (README, plain)]).is_empty());
    }

    #[test]
    fn missing_wrong_and_absent_are_told() {
        let readme = "## Exit codes\n| 64 | `Use` | a |\n";
        assert_eq!(found(check, &[SOURCE, (README, readme)]).len(), 2);
        assert_eq!(found(check, &[SOURCE, (README, "# A\n")]).len(), 1);
    }
}
