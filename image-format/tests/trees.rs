//! Rules of trees: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::elf::PF_INHERITED;
use image_format::record::credentials::Credentials;
use image_format::record::header::Features;
use image_format::record::pidfd::{Pidfd, PidfdOf};
use image_format::record::process::Process;
use image_format::record::sigio::{DRIVEN, ROOT_GROUP, Sigio};
use image_format::{ExitCode, Image};
use support::{Aligned, Parts};

/// Pages of the parent take no room in the child's image, and must lie before that in the file.
#[test]
fn pages_of_the_parent() {
    let mut parts = Parts::new();
    let whole = parts.image();
    let first = parts.runs.first_mut().unwrap();
    first.flags |= PF_INHERITED;
    let len = first.bytes.len();
    let child = Aligned::new(&parts.image());
    assert_eq!(child.bytes().len() + len, whole.len());
    let image = Image::parse(child.bytes(), child.bytes().len() as u64).unwrap();
    let segment = image.segments().next().unwrap();
    assert!(segment.inherited && segment.place(1 << 20) == 0 && segment.len == len as u64);
    assert!(image.segments().skip(1).all(|other| !other.inherited && other.place(1 << 20) > 1 << 20));
    image.check_inherited(len as u64).expect("just before it");
    let fault = image.check_inherited(len as u64 - 1).expect_err("within it");
    assert_eq!(fault.exit_code(), ExitCode::BadAddress, "{fault}");
    assert!(fault.to_string().contains("pages of the parent"), "{fault}");
}

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
    tree("was stopped and has ended", &|p| p.processes[1].stopped = 3.into());
    tree("was stopped and has ended", &|p| p.processes.last_mut().unwrap().stopped = 1.into());
    tree("", &|p| p.processes[1].stopped = 2.into());
    tree("did not say how it goes on", &|p| p.header.stopped = 2.into());
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
    // Those that tell root alone what to do.
    tree("", &|p| without(p, Features::CREDENTIALS));
    let pidfd = |p: &mut Parts, pid: u32| {
        let mut last = *p.descriptors.last().unwrap();
        let id = (last.fd.get() + 1).into();
        (last.fd, last.file) = (id, id);
        p.descriptors.push(last);
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
    let nobody = "an owner of no descriptor";
    let driven = |p: &mut Parts, change: &dyn Fn(&mut Sigio)| {
        let mut one = Sigio { id: p.descriptors[0].file, how: (2 | DRIVEN | ROOT_GROUP).into(), ..support::zeroed() };
        change(&mut one);
        p.driven.push(one);
    };
    tree("", &|p| driven(p, &|_| {}));
    tree(nobody, &|p| driven(p, &|one| one.id = 999.into()));
    tree(nobody, &|p| driven(p, &|one| one.signal = 65.into()));
    tree(nobody, &|p| driven(p, &|one| one.how = 3.into()));
    tree(nobody, &|p| driven(p, &|one| one.how = 16.into()));
    tree(nobody, &|p| [(), ()].iter().for_each(|()| driven(p, &|_| {})));
    tree(nobody, &|p| {
        driven(p, &|_| {});
        without(p, Features::SIGNAL_DRIVEN);
    });
    tree("or images that belong to none", &|p| {
        let id = (2u32 << 20).into();
        let last = p.descriptors.last_mut().unwrap();
        (last.fd, last.file, p.devices[0].id) = (id, id, id);
    });
}
