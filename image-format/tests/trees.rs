//! Rules of trees: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::ExitCode;
use image_format::record::header::Features;
use image_format::record::process::Process;
use support::Parts;

#[test]
fn trees_that_cannot_be() {
    let tree = |says: &str, change: fn(&mut Parts)| {
        let mut parts = Parts::new();
        parts.give_tree();
        change(&mut parts);
        let fault = support::check(&parts.image()).expect_err(says);
        assert_eq!(fault.exit_code(), ExitCode::Malformed, "{fault}");
        assert!(fault.to_string().contains(says), "{fault}");
    };
    let mut parts = Parts::new();
    parts.give_tree();
    support::check(&parts.image()).expect("a tree");
    let own = "without its parent, its image, or an id of its own";
    tree(own, |p| p.processes[0].pid = 69.into());
    tree(own, |p| p.processes[0].ended = 1.into());
    tree(own, |p| p.processes[1].parent = 71.into());
    tree(own, |p| p.processes[1].parent = 70.into());
    tree(own, |p| p.processes[2].parent = 72.into());
    tree(own, |p| p.processes[3].parent = 71.into());
    tree(own, |p| p.processes[3].pid = 71.into());
    tree(own, |p| p.processes.swap(1, 2));
    tree(own, |p| p.processes[2].ended = 0.into());
    tree(own, |p| drop(p.runs.pop()));
    tree(own, |p| p.runs.last_mut().unwrap().addr = 71);
    let whole = "too large, or not required, or images that belong to none";
    tree(whole, |p| p.processes.clear());
    tree(own, |p| p.processes[1].ended = 1.into());
    tree(whole, |p| p.runs.push(p.runs.last().unwrap().clone()));
    tree(whole, |p| p.header.required = (p.header.required.get() & !Features::TREE.bits()).into());
    tree(whole, |p| {
        let one = p.processes[2];
        p.processes.extend((0..2048).map(|n: u32| Process { pid: (1000 + n).into(), ..one }));
    });
    tree("out of order", |p| p.runs.rotate_right(1));
    tree("repeated, or too great", |p| {
        p.header.required = (p.header.required.get() & !Features::TREE.bits()).into();
        p.processes.clear();
        p.runs.pop();
        p.descriptors.last_mut().unwrap().fd = (1 << 20).into();
    });
}
