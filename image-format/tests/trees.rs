//! Rules of trees: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::ExitCode;
use image_format::record::credentials::Credentials;
use image_format::record::header::Features;
use image_format::record::pidfd::{Pidfd, PidfdOf};
use image_format::record::process::Process;
use image_format::record::sigio::Sigio;
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

#[test]
fn what_only_trees_have() {
    let tree = |says: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::new();
        parts.give_tree();
        let more = Features::CREDENTIALS | Features::NOTICES | Features::OTHERS_PIDFDS | Features::SIGNAL_DRIVEN;
        parts.header.required = (parts.header.required.get() | more.bits()).into();
        parts.credentials.push(Credentials { uid: [33.into(); 4], ..support::zeroed() });
        change(&mut parts);
        match support::check(&parts.image()) {
            Ok(()) => assert_eq!(says, ""),
            Err(fault) => assert!(!says.is_empty() && fault.to_string().contains(says), "{says}: {fault}"),
        }
    };
    let own = "credentials that no process has";
    tree("", &|_| {});
    tree("", &|p| (p.credentials[0].permitted, p.credentials[0].effective) = (6.into(), 4.into()));
    tree(own, &|p| p.credentials.push(p.credentials[0]));
    tree(own, &|p| p.credentials[0].uid[2] = u32::MAX.into());
    tree(own, &|p| p.credentials[0].gid[3] = u32::MAX.into());
    tree(own, &|p| p.credentials[0].effective = 1.into());
    tree(own, &|p| (p.credentials[0].permitted, p.credentials[0].ambient) = (1.into(), 1.into()));
    tree(own, &|p| p.credentials[0].dumpable = 3.into());
    tree(own, &|p| p.credentials[0].groups.len = 3.into());
    tree(own, &|p| p.credentials[0].groups.at = u32::MAX.into());
    let without = |p: &mut Parts, what: Features| p.header.required = (p.header.required.get() & !what.bits()).into();
    tree(own, &|p| without(p, Features::CREDENTIALS));
    let pidfd = |p: &mut Parts, pid: u32| {
        let last = p.descriptors.last_mut().unwrap();
        last.file = last.fd;
        let id = last.fd;
        p.pidfds = (vec![Pidfd { id, flags: 2.into() }], vec![PidfdOf { id, pid: pid.into() }]);
    };
    let other = "a pidfd that is none";
    tree("", &|p| pidfd(p, 70));
    tree("", &|p| pidfd(p, 71));
    tree(other, &|p| pidfd(p, 72));
    tree(other, &|p| pidfd(p, 73));
    tree(other, &|p| {
        pidfd(p, 70);
        p.pidfds.1[0].id = 0.into();
    });
    tree(other, &|p| {
        pidfd(p, 70);
        without(p, Features::OTHERS_PIDFDS);
    });
    tree("a signal-driven socket that is none", &|p| p.driven.push(Sigio { id: 3.into(), ..support::zeroed() }));
    tree("or images that belong to none", &|p| p.descriptors.last_mut().unwrap().fd = (2 << 20).into());
}
