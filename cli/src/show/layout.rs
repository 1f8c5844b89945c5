//! Lines and tables of 80 columns, as far as names allow: between words they go on below, and no word, path or name is ever cut.

use std::fmt::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};

/// As wide as a terminal is at least.
const WIDTH: usize = 80;

/// Where values begin.
const INDENT: usize = 12;

/// The least that is left to the last column of a table.
const LAST: usize = 16;

/// A name and its value.
pub fn line(out: &mut String, what: &str, value: &str) -> fmt::Result {
    write!(out, "  {what:<9}")?;
    let mut at = INDENT - 1;
    for word in value.split(' ') {
        let len = word.chars().count();
        if at + 1 + len > WIDTH && at >= INDENT {
            write!(out, "\n{:INDENT$}{word}", "")?;
            at = INDENT + len;
        } else {
            write!(out, " {word}")?;
            at += 1 + len;
        }
    }
    writeln!(out)
}

/// Rows below a head; `right` are the columns of numbers. The last column is for words, which go on below.
pub fn table(head: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let words = rows.iter().filter_map(|row| row.last()).flat_map(|cell| cell.split(' '));
    let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
    laid_out(head, right, rows, longest)
}

/// The same with a line for each row, however long it is.
pub fn lines(head: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    laid_out(head, right, rows, usize::from(u16::MAX))
}

/// The same; `longest`: the least that the last column has room for.
fn laid_out(head: &[&str], right: &[usize], rows: Vec<Vec<String>>, longest: usize) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row.into_iter().map(Cell::new));
    }
    let widths = table.column_max_content_widths();
    let last = head.len().saturating_sub(1);
    // Each column has a blank on either side.
    let used: usize = widths.iter().take(last).map(|width| usize::from(*width) + 2).sum();
    let room = WIDTH.saturating_sub(used + 2).max(LAST).max(longest);
    table.set_width(u16::try_from(used + room + 2).unwrap_or(u16::MAX));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index != last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        } else if usize::from(*widths.get(index).unwrap_or(&0)) > room {
            column
                .set_constraint(ColumnConstraint::Absolute(Width::Fixed(u16::try_from(room + 2).unwrap_or(u16::MAX))));
        }
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_on_below() {
        let mut out = String::new();
        assert!(line(&mut out, "limits", &["word"; 20].join(" ")).is_ok());
        assert!(line(&mut out, "program", &format!("/{}", "long".repeat(30))).is_ok());
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(lines[0].starts_with("  limits    word word") && lines[0].len() <= 80);
        assert!(lines[1].starts_with("            word") && !lines[1].ends_with(' '));
        assert!(lines[2].starts_with("  program   /longlong") && lines[2].len() > 80);
    }

    #[test]
    fn only_the_last_column_goes_on_below() {
        let path = format!("/{}", "a".repeat(50));
        let notes = "one, two, three, four, five, six, seven, eight";
        let text = table(&["FD", "PATH", "NOTES"], &[0], vec![vec!["3".into(), path.clone(), notes.into()]]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains(&path) && text.lines().count() > 2);
        assert_eq!(text.split_whitespace().filter(|word| notes.contains(*word)).count(), 8, "{text}");
        let long = format!("/{}", "b".repeat(100));
        let text = table(&["FD", "PATH", "NOTES"], &[0], vec![vec!["3".into(), long.clone(), path.clone()]]);
        assert!(text.contains(&long) && text.contains(&path), "{text}");
    }
}
