//! Rules about what people read: documents are there, links lead somewhere, no path of one machine is named.

use super::{Tree, Violation};

/// Documents that a reader may expect.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs/image-format.md",
    "docs/restore.md",
    "docs/limits.md",
    "docs/performance.md",
];

/// Folders of the machine on which somebody works (written in halves: this file is checked too).
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk"), concat!("/ro", "ot")];

/// Checks documents, links and paths.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for path in DOCUMENTS {
        if !tree.exists(path) {
            found.push(Violation::new(path, 1, "the document is missing"));
        }
    }
    for (path, text) in tree.files("", ".md") {
        for (line, link) in links(text) {
            if let Err(reason) = resolve(tree, path, &link) {
                found.push(Violation::new(path, line, format!("the link {link} leads nowhere: {reason}")));
            }
        }
    }
    for (path, text) in tree.files("", "") {
        for (number, line) in text.lines().enumerate() {
            if let Some(folder) = MACHINE_PATHS.iter().find(|folder| names_folder(line, folder)) {
                found.push(Violation::new(path, number + 1, format!("{folder} is a path of one machine")));
            }
        }
    }
}

/// Whether `line` has `folder` as an absolute path's first part.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        let after = line[at + folder.len()..].chars().next().unwrap_or(' ');
        let relative = before.is_alphanumeric() || "/._-*~})]>".contains(before);
        !relative && !after.is_alphanumeric() && !"_-".contains(after)
    })
}

/// Targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every other part between backticks is code.
        for prose in line.split('`').step_by(2) {
            for (at, _) in prose.match_indices("](") {
                if let Some((target, _)) = prose[at + 2..].split_once(')') {
                    links.push((number + 1, target.to_string()));
                }
            }
        }
    }
    links
}

fn resolve(tree: &Tree, from: &str, link: &str) -> Result<(), String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { from.to_string() } else { join(from, file)? };
    if !tree.exists(&target) {
        return Err(format!("there is no {target}"));
    }
    match (anchor, tree.text(&target)) {
        (Some(anchor), Some(text)) if target.ends_with(".md") && !anchors(text).iter().any(|a| a == anchor) => {
            Err(format!("{target} has no heading for #{anchor}"))
        }
        _ => Ok(()),
    }
}

/// The path that `link` means in the file `from`, both from the repository's root.
fn join(from: &str, link: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or("it leaves the repository")?),
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

/// The anchors that a Markdown renderer makes of the headings, and those that are set by hand.
fn anchors(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if let Some((id, _)) = line.split_once("<a id=\"").and_then(|(_, rest)| rest.split_once('"')) {
            anchors.push(id.to_string());
        }
        if fenced || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    fn of(path: &str, text: &str, other: &[(&str, &str)]) -> Vec<String> {
        let mut files: Vec<(&str, &str)> = DOCUMENTS.iter().map(|doc| (*doc, "# A heading\n")).collect();
        files.retain(|(name, _)| *name != path);
        files.extend([(path, text)]);
        files.extend(other);
        found(check, &files)
    }

    #[test]
    fn links_lead_somewhere() {
        let good = "[a](docs/limits.md) [b](docs/limits.md#a-heading) [c](https://example.org) [d](#e-f) [i](#h)\n## E f\n<a id=\"h\"></a>\n[`g`](docs)";
        assert_eq!(of("README.md", good, &[]), Vec::<String>::new());
        for bad in ["[a](docs/none.md)", "[a](docs/limits.md#none)", "[a](../x)", "[`a`](none)"] {
            assert_eq!(of("README.md", bad, &[]).len(), 1, "{bad}");
        }
        assert!(of("docs/limits.md", "[a](restore.md) [b](../README.md)", &[]).is_empty());
        assert!(of("README.md", "```\n[a](none)\n```\n`[a](none)`", &[]).is_empty());
    }

    #[test]
    fn documents_are_there() {
        assert_eq!(found(check, &[]).len(), DOCUMENTS.len());
    }

    #[test]
    fn paths_of_one_machine_are_told() {
        let path = MACHINE_PATHS[0];
        assert_eq!(of("cli/src/a.rs", &format!("x\n\"{path}/main\""), &[]).len(), 1);
        assert_eq!(of("a.txt", &format!("cd {path}"), &[]).len(), 1);
        assert!(of("a.txt", &format!("target{path}, $dir{path}er, {path}er"), &[]).is_empty());
    }
}
