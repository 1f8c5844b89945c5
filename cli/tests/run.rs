//! `ckpt run` up to the moment when the program is there, with some other library in place of the real one.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::{ckpt, failed, file, run, stdout};

/// A library that is loaded into every program anyway.
fn library() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).unwrap().into()
}

fn start() -> Command {
    let mut command = ckpt();
    command.env("CKPT_LIB", library()).env_remove("LD_PRELOAD").arg("run");
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[test]
fn the_program_gets_its_orders_and_keeps_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"echo "$CKPT_IMAGE|$CKPT_SIGNAL|$CKPT_EXIT_SIGNAL|$CKPT_EXIT_CODE|$LD_PRELOAD|$1"; exit 7"#;
    let got = output(
        start().current_dir(&dir).args(["--signal", "usr1", "--signal", "12", "--", "sh", "-c", script, "sh", "-o"]),
    );
    assert_eq!(got.status.code(), Some(7), "{got:?}");
    let image = dir.path().canonicalize().unwrap().join("sh.ckpt");
    assert_eq!(stdout(&got).trim(), format!("{}|10,12|TERM|85|{}|-o", image.display(), library().display()));
}

#[test]
fn it_becomes_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start();
    child.current_dir(&dir).args(["-o", "x", "--", "sh", "-c", "echo $$"]).stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    let pid = child.id();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).trim(), pid.to_string());
}

#[test]
fn a_script_is_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let script = file(dir.path(), "job", b"#!/usr/bin/env sh\necho \"$0 $1 $CKPT_SIGNAL\"\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let got = output(start().current_dir(&dir).args(["--", "./job", "one"]));
    assert_eq!(stdout(&got).trim(), "./job one 10", "{got:?}");
}

#[test]
fn what_the_library_cannot_get_into() {
    let dir = tempfile::tempdir().unwrap();
    let text = file(dir.path(), "text", b"hello\n");
    let mut elf = std::fs::read("/proc/self/exe").unwrap();
    // The word PT_INTERP in each program header: without it the program is a static one.
    for at in (64..64 + 56 * 20).step_by(56) {
        if elf[at..at + 4] == [3, 0, 0, 0] {
            elf[at] = 0;
        }
    }
    let statically = file(dir.path(), "static", &elf);
    for path in [&text, &statically] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    failed(&output(start().arg("--").arg(&text)), 88, "neither a 64-bit ELF program nor a script");
    failed(&output(start().arg("--").arg(&statically)), 88, "a static program: libckpt.so cannot be loaded");
    failed(&output(start().args(["--", "/nonexistent/x"])), 127, "/nonexistent/x: cannot be executed: No such file");
    failed(&output(start().args(["--", "no-such-program-here"])), 127, "no-such-program-here");
    failed(&output(start().arg("--").arg(dir.path())), 126, "cannot be executed");
    failed(&output(start().env("CKPT_LIB", "/nonexistent/lib.so").args(["--", "sh"])), 69, "mend CKPT_LIB");
}

#[test]
fn an_image_that_could_not_be_saved() {
    let got = output(start().args(["-o", "/nonexistent/job.ckpt", "--", "sh", "-c", "echo started"]));
    failed(&got, 88, "/nonexistent: no image can be saved there: No such file");
}

#[test]
fn no_stub() {
    if loader::embedded::is_present() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = file(dir.path(), "sh.ckpt", b"");
    failed(&output(start().current_dir(&dir).args(["--", "sh"])), 69, "restart-stub: not built into this program");
    failed(&run(&["restart".as_ref(), image.as_ref()]), 69, "restart-stub: not built into this program");
}

#[test]
fn every_second_a_signal_once_it_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    // A signal before the trap would end the shell by that signal.
    let script = "sleep 1.2; trap 'exit 7' USR1; echo ready; while :; do read line; done";
    let mut command = start();
    command.current_dir(&dir).args(["--every", "1s", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    // It ends when nobody has the program's standard output open any more: the process that signals has not.
    let got = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!((got.status.code(), stdout(&got).as_str()), (Some(7), "ready\n"));
}

#[test]
fn wrong_command_lines() {
    for (arguments, says) in [
        (&["run"][..], "<PROG>"),
        (&["run", "--signal", "KILL", "--", "sh"], "cannot be caught"),
        (&["run", "--signal", "NOPE", "--", "sh"], "no such signal"),
        (&["run", "--every", "soon", "--", "sh"], "10m"),
        (&["restart"], "<IMAGE>"),
        (&["restart", "--lazy", "x"], "--lazy"),
        (&["restart", "--pid", "keep", "x"], "keep"),
        (&["restart", "--fd", "x", "y"], "N=PATH"),
        (&["restart", "--files", "some", "x"], "verify"),
        (&["fly"], "fly"),
        (&["show"], "<IMAGE>"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref()).collect();
        failed(&run(&arguments), 64, says);
    }
}

#[test]
fn help_version_and_completions_go_to_standard_output() {
    for arguments in
        [&["--help"][..], &["--version"], &["run", "--help"], &["completions", "bash"], &["completions", "fish"]]
    {
        let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref()).collect();
        let got = run(&arguments);
        assert!(got.status.success() && !got.stdout.is_empty() && got.stderr.is_empty(), "{got:?}");
    }
    let got = run(&["--help".as_ref()]);
    assert!(!stdout(&got).contains("save-every"), "hidden");
    std::io::stdout().flush().unwrap();
}
