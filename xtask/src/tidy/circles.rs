//! Modules of a crate that need each other in a circle: none of them can be read, tested or moved alone.
//!
//! A module is a file; it needs those that its paths from `crate`, `super` and `self` lead to, tests left out.

use std::collections::{BTreeMap, BTreeSet};

use super::source;
use super::{Tree, Violation};

/// How many modules of a crate lie in circles that are still to be broken. These numbers only fall.
const LEFT: [(&str, usize); 4] = [("capture", 14), ("cli", 5), ("loader", 21), ("state", 33)];

/// What each module of a crate needs, by paths from the crate's root, which is the empty one.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// Checks every crate.
pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    check_but(&LEFT, tree, found);
}

fn check_but(left: &[(&str, usize)], tree: &Tree, found: &mut Vec<Violation>) {
    let mut crates: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
    for (path, text) in tree.files("", ".rs") {
        if let Some((name, module)) = path.split_once("/src/").filter(|(_, module)| !module.starts_with("bin/")) {
            crates.entry(name).or_default().insert(name_of(module), text);
        }
    }
    for (name, modules) in crates {
        let needs = modules.iter().map(|(module, text)| (module.clone(), needs_of(module, text, &modules))).collect();
        let circles = circles(&needs);
        let count = circles.iter().map(BTreeSet::len).sum::<usize>();
        let most = left.iter().find(|(one, _)| *one == name).map_or(0, |(_, most)| *most);
        let rule = if count > most {
            let shown = |circle: &BTreeSet<String>| circle.iter().cloned().collect::<Vec<_>>().join(", ");
            let all = circles.iter().map(shown).collect::<Vec<_>>().join("; ");
            format!("{count} modules need each other in circles, {most} may: {all}")
        } else if count < most {
            format!("{count} modules are left in circles: say so in tidy/circles.rs")
        } else {
            continue;
        };
        found.push(Violation::new(&format!("{name}/src"), 1, rule));
    }
}

/// A file's module: `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn name_of(file: &str) -> String {
    let name = file.trim_end_matches(".rs");
    match name.strip_suffix("/mod").unwrap_or(name) {
        "lib" => String::new(),
        name => name.replace('/', "::"),
    }
}

fn needs_of(module: &str, text: &str, modules: &BTreeMap<String, &str>) -> BTreeSet<String> {
    let code = source::code(text);
    let code = source::without_tests(&code);
    // The root of a binary lies beside that of the library.
    let own: Vec<&str> = module.split("::").filter(|part| !part.is_empty() && module != "main").collect();
    let mut needs = BTreeSet::new();
    for path in paths(&code) {
        let mut parts = path.split("::").peekable();
        let mut full = if parts.next_if_eq(&"crate").is_some() { Vec::new() } else { own.clone() };
        while parts.next_if_eq(&"super").is_some() {
            full.pop();
        }
        let base = full.len();
        full.extend(parts.filter(|part| *part != "self"));
        let known = (base..=full.len()).rev().map(|len| full[..len].join("::")).find(|name| modules.contains_key(name));
        needs.extend(known.filter(|known| known != module));
    }
    needs
}

/// All paths from `crate`, `super` or `self` in code, those of a tree of imports one by one.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].chars().next_back().is_some_and(|c| is_part(c) || c == '$') {
                continue;
            }
            let rest = &code[at..];
            let (path, behind) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
            match behind.strip_prefix('{').filter(|_| path.ends_with("::")) {
                Some(tree) => drop(expand(path, tree, &mut found)),
                None => found.push(path.trim_end_matches(':').to_owned()),
            }
        }
    }
    found
}

/// The paths of a tree of imports whose brace was just opened; returns where it ends.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) -> usize {
    let (mut path, mut at) = (String::new(), 0);
    while let Some(c) = tree[at..].chars().next() {
        at += c.len_utf8();
        match c {
            '{' => {
                at += expand(&format!("{prefix}{path}"), &tree[at..], found);
                path.clear();
            }
            ',' | '}' => {
                if !path.is_empty() {
                    found.push(format!("{prefix}{path}"));
                    path.clear();
                }
                if c == '}' {
                    break;
                }
            }
            // `a as b` is `a`.
            c if c.is_whitespace() && tree[at..].starts_with("as ") => at += tree[at..].find([',', '}']).unwrap_or(0),
            c if c.is_whitespace() => {}
            c => path.push(c),
        }
    }
    at
}

/// The modules that need each other: each circle (strongly connected component) once.
fn circles(needs: &Needs) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(needs.get(module).into_iter().flatten().filter(|need| seen.insert((*need).clone())));
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = needs.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (module, others) in &reached {
        let is_back = |other: &&String| reached.get(other).is_some_and(|reached| reached.contains(*module));
        if others.contains(*module) && !found.iter().any(|circle| circle.contains(*module)) {
            found.push(others.iter().filter(is_back).cloned().collect());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    fn check_all(tree: &Tree, found: &mut Vec<Violation>) {
        check_but(&[("done", 2)], tree, found);
    }

    #[test]
    fn modules_that_need_each_other_are_found() {
        let files = [
            ("a/src/lib.rs", "pub mod one;\npub mod two;\npub mod three;"),
            ("a/src/one.rs", "use crate::{two::{B, C as D}, three};"),
            ("a/src/two/mod.rs", "use super::three::E;"),
            ("a/src/three.rs", "fn f() { crate::one::g() }"),
        ];
        let told = "a/src:1: 3 modules need each other in circles, 0 may: one, three, two";
        assert_eq!(found(check_all, &files), [told]);
    }

    #[test]
    fn a_parent_may_have_children_that_do_not_look_back() {
        let files = [
            ("a/src/lib.rs", "pub use one::A;"),
            ("a/src/one.rs", "mod two; use self::two::B;"),
            ("a/src/one/two.rs", "use super::super::three::C;\n#[cfg(test)]\nmod tests {\n    use crate::one::A;\n}\n"),
            ("a/src/three.rs", "//! See [`crate::one`].\nuse std::fmt;"),
        ];
        assert_eq!(found(check_all, &files), [""; 0]);
        let told = "done/src:1: 0 modules are left in circles: say so in tidy/circles.rs";
        assert_eq!(found(check_all, &[("done/src/lib.rs", "pub mod one;")]), [told]);
    }
}
