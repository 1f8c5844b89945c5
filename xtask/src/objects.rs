//! `cargo xtask test --objects`: what became of each kernel object, in each way in which it was saved and restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use xshell::{Shell, cmd};

use crate::tidy::objects::{LIMITS, rows};
use crate::workspace::Workspace;

/// Outcomes of one object, by way: for each user one.
type Outcomes = BTreeMap<String, BTreeMap<String, String>>;

/// Plays the suites of objects and refusals and prints the table.
///
/// # Errors
/// A test fails, or nothing was played.
pub fn run(sh: &Shell, ws: &Workspace, args: &[String]) -> Result<()> {
    let path = ws.target.join("objects.tsv");
    let _ = fs::remove_file(&path);
    sh.set_var("CKPT_TABLE", &path);
    let suites = ["-p", "ckpt-tests", "--test", "objects", "--test", "refusals"];
    let tested = cmd!(sh, "env --default-signal cargo test --no-fail-fast {suites...} {args...}").run();
    let text = fs::read_to_string(&path).context("nothing was played")?;
    println!("\n{}", table(&text));
    let failed = text.lines().filter(|line| line.ends_with("\tFail")).count();
    ensure!(failed == 0, "{failed} of {} failed", text.lines().count());
    tested?;
    let limits = fs::read_to_string(ws.root.join(LIMITS))?;
    let unseen = unseen(&text, &limits);
    // Who names some tests sees those alone.
    ensure!(unseen.is_empty() || !args.is_empty(), "{LIMITS} tells of what was not played: {}", unseen.join(", "));
    Ok(())
}

/// What the documents promise and no guest has shown: each object undisturbed, saved by signal and by PID, or refused there.
fn unseen(text: &str, limits: &str) -> Vec<String> {
    let promised = rows(limits).into_iter().map(|(name, _)| name);
    let ways = ["undisturbed", "signal", "PID"];
    let all = promised.flat_map(|name| ways.map(|way| format!("{name}\t{way}")));
    all.filter(|cell| !text.lines().any(|line| line.starts_with(&format!("{cell}\t")))).collect()
}

/// A row for each object, a column for each way, in the order in which they were played first.
fn table(text: &str) -> Table {
    let mut rows: BTreeMap<String, Outcomes> = BTreeMap::new();
    let mut ways: Vec<String> = Vec::new();
    for line in text.lines() {
        let [object, way, user, outcome] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        if !ways.iter().any(|known| known == way) {
            ways.push(way.into());
        }
        let ways = rows.entry(object.into()).or_default();
        ways.entry(way.into()).or_default().insert(user.to_lowercase(), outcome.to_uppercase());
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["object"].into_iter().chain(ways.iter().map(String::as_str)));
    for (object, outcomes) in rows {
        let cell = |way| outcomes.get(way).map_or_else(String::new, cell);
        table.add_row([object.clone()].into_iter().chain(ways.iter().map(cell)));
    }
    table
}

/// One word when all users have the same, else one for each.
fn cell(users: &BTreeMap<String, String>) -> String {
    let different: BTreeSet<_> = users.values().collect();
    match different.into_iter().collect::<Vec<_>>()[..] {
        [one] => one.clone(),
        _ => users.iter().map(|(user, outcome)| format!("{user} {outcome}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_played_is_told() {
        let limits = "## Objects\n| `umask` | x |\n| `pipe` | x |\n";
        let all =
            |name: &str| ["undisturbed", "signal", "PID"].map(|way| format!("{name}\t{way}\tOwn\tPass\n")).concat();
        assert_eq!(unseen(&(all("umask") + &all("pipe")), limits), Vec::<String>::new());
        let without = all("pipe").replace("signal\t", "signal, chain\t");
        assert_eq!(unseen(&(all("umask") + &without), limits), ["pipe\tsignal"]);
    }

    #[test]
    fn one_word_or_one_for_each_user() {
        let text = "umask\tPID\tOwn\tPass\numask\tPID\tNobody\tPass\nlock\tPID\tOwn\tPass\nlock\tPID\tNobody\tFail\n\
                    socket\trefused\tOwn\tRefused\n";
        let shown = table(text).to_string();
        let words: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split('|').map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
        assert_eq!(words[0], ["object", "PID", "refused"]);
        assert_eq!(words[2], ["lock", "nobody FAIL, own PASS"]);
        assert_eq!(words[3], ["socket", "REFUSED"]);
        assert_eq!(words[4], ["umask", "PASS"]);
    }
}
