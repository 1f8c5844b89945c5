//! `ckpt show`, for people and for programs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;
#[path = "../../image-format/tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::process::Stdio;

use common::{ckpt, failed, file, run, stdout};
use support::Parts;

/// Lines without the ends of others, which go on below, and with single spaces: the columns' widths are the table's own affair.
fn squeezed(text: &str) -> Vec<String> {
    let text = text.replace(&format!("\n{:12}", ""), " ");
    text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_table_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    let output = run(&["show".as_ref(), image.as_ref()]);
    assert!(output.status.success());
    let text = stdout(&output);
    let lines = squeezed(&text);
    for expected in [
        "saved 2001-09-09T01:46:40Z by uid 1000",
        "kernel 6.18.0 on x86_64",
        "format 1.0, requires jmp-context, locks",
        "Process 4242",
        "program /usr/bin/job",
        "command job --fast",
        "directory /srv/job",
        "umask 0022",
        "timer real: in 1s 500ms, every 2s",
        "pending SIGUSR2",
        "pending SIG40 for thread 4243",
        "limits nofile 1024 (of 4096), stack 8388608 (of unlimited)",
        "4242 main /usr/bin/job+0x42",
        "4243 worker /usr/bin/job+0x42 made the save; other, nice 5; on CPUs 64,66",
        "settings dumpable 0, no-new-privs 1, oom-score-adj 1000",
        "heap 1 32.0 KiB 12.0 KiB",
        "stack 1 16.0 KiB 4.0 KiB",
        "files, private 1 8.0 KiB 4.0 KiB",
        "all 4 4.1 MiB 20.0 KiB",
        "0 terminal /dev/pts/7 read-write - -",
        "1 pipe pipe:[12345] write - -",
        "2 terminal /dev/pts/7 read-write - - shares 0",
        "3 regular /srv/job/log write 777 1000 append, cloexec, write lock 100+50 (posix)",
        "4 regular /srv/job/log write 777 1000 append, shares 3",
        "5 directory /srv/job read 0 - directory, cloexec",
        "6 device /dev/null read - -",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}\nnot in\n{text}");
    }
}

#[test]
fn it_fits_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    let text = stdout(&ckpt().current_dir(&dir).args(["show", "job.ckpt"]).output().unwrap());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(
        image.exists() && text.lines().any(|line| line.starts_with("            ")),
        "nothing goes on below: {text}"
    );
}

#[test]
fn a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "<job> & \"co\".ckpt", &support::image());
    let picture = dir.path().join("job.svg");
    let drawn = run(&["show".as_ref(), "--svg".as_ref(), picture.as_ref(), image.as_ref()]);
    assert!(drawn.status.success() && drawn.stdout.is_empty() && drawn.stderr.is_empty(), "{drawn:?}");
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("&lt;job&gt; &amp; &quot;co&quot;.ckpt: ") && svg.contains(">4242</tspan>"), "{svg}");
    // Each element is one of these, and ends where it should.
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_lowercase()).collect();
        assert!(["svg", "rect", "text", "tspan", "title"].contains(&&*name), "<{tag}>");
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (_, true) => {}
            _ => open.push(name),
        }
    }
    assert!(open.is_empty() && svg.matches("<title>").count() > 4);
    failed(
        &run(&["show".as_ref(), "--svg".as_ref(), "/nowhere/x.svg".as_ref(), image.as_ref()]),
        64,
        "cannot be written",
    );
}

#[test]
fn an_object_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = support::image();
    let image = file(dir.path(), "job.ckpt", &bytes);
    let output = run(&["show".as_ref(), "--json".as_ref(), image.as_ref()]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let at = |pointer: &str| json.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {json:#}"));
    assert_eq!(*at("/schema"), 1);
    assert_eq!(*at("/image/bytes"), bytes.len());
    assert_eq!(*at("/image/uuid"), "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(*at("/image/requires"), serde_json::json!(["jmp-context", "locks"]));
    assert_eq!(*at("/saved/unix_seconds"), 1_000_000_000);
    assert_eq!(*at("/processes/0/pid"), 4242);
    assert_eq!(*at("/processes/0/threads/1/name"), "worker");
    assert_eq!(*at("/processes/0/threads/1/current"), true);
    assert_eq!(*at("/processes/0/threads/0/blocked_signals"), serde_json::json!(["USR2"]));
    assert_eq!(*at("/processes/0/memory/saved"), 5 * 4096);
    assert_eq!(*at("/processes/0/memory/mappings/1/name"), "[heap]");
    assert_eq!(*at("/processes/0/memory/mappings/3/flags"), serde_json::json!(["grows-down"]));
    assert_eq!(*at("/processes/0/descriptors/3/offset"), 777);
    assert_eq!(*at("/processes/0/descriptors/3/locks/0/bytes"), 50);
    assert_eq!(*at("/processes/0/descriptors/6/offset"), serde_json::Value::Null);
    assert_eq!(*at("/processes/0/limits/1/hard"), serde_json::Value::Null);
    assert_eq!(*at("/processes/0/caught_signals"), serde_json::json!(["USR1"]));
    assert_eq!(*at("/processes/0/ignored_signals"), serde_json::json!(["HUP"]));
    assert_eq!(*at("/processes/0/timers/0/kind"), "real");
    assert_eq!(*at("/processes/0/pending_signals/1/tid"), 4243);
}

#[test]
fn objects_that_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = Parts::new();
    parts.give_events();
    let image = file(dir.path(), "job.ckpt", &parts.image());
    let output = run(&["show".as_ref(), image.as_ref()]);
    assert!(output.status.success());
    let text = stdout(&output);
    let lines = squeezed(&text);
    for expected in [
        "format 1.0, requires jmp-context, locks, inner-pipes, events",
        "7 pipe pipe:[777] read - - cloexec, other end 8, holds 7 B, 2 packets",
        "8 pipe pipe:[777] write - - direct, cloexec, other end 7, holds 7 B, 2 packets",
        "9 pipe pipe:[777] read - - nonblock, cloexec, other end closed, holds 4 B",
        "10 eventfd read-write - - nonblock, cloexec, holds 3 (semaphore)",
        "11 timerfd read-write - - cloexec, monotonic, in 1s 500ms, every 2s, expired 4 times",
        "12 signalfd read-write - - cloexec, SIGUSR1, SIGTERM",
        "13 epoll read-write - - cloexec, watches 7 10 99",
        "14 epoll read-write - - cloexec, watches 13",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}\nnot in\n{text}");
    }
    let output = run(&["show".as_ref(), "--json".as_ref(), image.as_ref()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let state = |fd: usize| &json["processes"][0]["descriptors"][fd]["state"];
    assert_eq!(*state(6), serde_json::Value::Null);
    assert_eq!(*state(7), serde_json::json!({ "peer": 8, "holds": 7, "packets": 2, "buffer": 65536 }));
    assert_eq!(*state(10), serde_json::json!({ "count": 3, "semaphore": true }));
    assert_eq!(state(11)["interval_ns"], 2_000_000_000u64);
    assert_eq!(*state(12), serde_json::json!({ "signals": ["USR1", "TERM"] }));
    let watch = serde_json::json!({ "fd": 10, "file": 10, "events": "0x80000019", "data": "0xdeadbeef" });
    assert_eq!(state(13)["watches"][1], watch);
}

#[test]
fn a_hostile_name_does_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = Parts::new();
    let path = parts.string(b"/tmp/\x1b]0;owned\x07\n\xff");
    parts.regular[0].path = path;
    let image = file(dir.path(), "job.ckpt", &parts.image());
    let output = run(&["show".as_ref(), image.as_ref()]);
    assert!(output.status.success());
    assert!(!output.stdout.contains(&0x1b));
    assert!(stdout(&output).contains("/tmp/\\u{1b}]0;owned\\u{7}\\n\\xff"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "job.ckpt", &support::image());
    for arguments in [&["show"][..], &["show", "--json"], &["verify"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = ckpt().args(arguments).arg(&image).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(said, "");
    }
}

#[test]
fn a_damaged_image_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = support::image();
    bytes[600] ^= 1;
    let image = file(dir.path(), "job.ckpt", &bytes);
    failed(&run(&["show".as_ref(), image.as_ref()]), 74, "headers and notes");
}
