//! `ckpt check`: the table, the object, the blockers.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ckpt, run, stdout};

#[test]
fn facts_are_found_out_and_leave_nothing() {
    let json = run(&["check".as_ref(), "--json".as_ref()]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    let facts = report["facts"].as_array().unwrap();
    let fact = |name: &str| facts.iter().find(|fact| fact["name"] == name).unwrap();
    assert_eq!(fact("ptrace")["ok"], report["save"]);
    assert_eq!(fact("ids-in-namespace")["ok"], report["namespace"]);
    let works = report["save"] == true && report["restart"] == true;
    assert_eq!(json.status.code(), Some(if works { 0 } else { 80 }), "{report:#}");
    let table = stdout(&run(&["check".as_ref()]));
    for fact in facts {
        assert!(table.contains(fact["name"].as_str().unwrap()), "{table}");
    }
}

#[test]
fn blockers_are_listed_and_counted() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id().to_string();
    let got = ckpt().args(["check", "--json", &pid]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(list["pid"].to_string(), pid);
    let blockers = list["blockers"].as_array().unwrap();
    assert_eq!(got.status.code(), Some(if blockers.is_empty() { 0 } else { 88 }), "{list:#}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ckpt().args(["check", &pid]).output().unwrap().status.code(), Some(88), "it has ended");
}
