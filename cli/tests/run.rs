//! `ckpt run` as a program's parent, and wrong command lines; saves and restarts are in tests/suites.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use common::{ckpt, failed, file, run, stdout};
use rustix::process::{Pid, Signal, kill_process};

fn start() -> Command {
    let mut command = ckpt();
    command.arg("run");
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn the_program_keeps_its_environment_and_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"echo "$(env | grep -c -e CKPT -e PRELOAD)|$1"; exit 7"#;
    let mut command = start();
    // What whoever runs the tests has set is none of the program's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CKPT")) {
        command.env_remove(name);
    }
    command.current_dir(&dir);
    let got = output(command.args(["--signal", "usr1", "--", "sh", "-c", script, "sh", "-o"]));
    assert_eq!((got.status.code(), stdout(&got).as_str()), (Some(7), "0|-o\n"), "{got:?}");
}

#[test]
fn it_is_the_programs_parent() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start();
    child.current_dir(&dir).args(["-o", "x", "--", "sh", "-c", "echo $PPID"]).stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    let pid = child.id();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).trim(), pid.to_string());
}

#[test]
fn the_program_has_its_standard_streams_alone() {
    let dir = tempfile::tempdir().unwrap();
    let got = output(start().current_dir(&dir).args(["--", "sh", "-c", "ls /proc/$$/fd"]));
    assert_eq!(stdout(&got), "0\n1\n2\n");
}

#[test]
fn a_script_is_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let script = file(dir.path(), "job", b"#!/usr/bin/env sh\necho \"$0 $1\"\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let got = output(start().current_dir(&dir).args(["--", "./job", "one"]));
    assert_eq!(stdout(&got).trim(), "./job one", "{got:?}");
}

#[test]
fn what_cannot_be_executed() {
    let dir = tempfile::tempdir().unwrap();
    failed(&output(start().args(["--", "/nonexistent/x"])), 127, "/nonexistent/x: cannot be executed: No such file");
    failed(&output(start().args(["--", "no-such-program-here"])), 127, "no-such-program-here");
    failed(&output(start().arg("--").arg(dir.path())), 126, "cannot be executed");
}

#[test]
fn an_image_that_could_not_be_saved() {
    let got = output(start().args(["-o", "/nonexistent/job.ckpt", "--", "sh", "-c", "echo started"]));
    failed(&got, 88, "/nonexistent: no image can be saved there: No such file");
}

/// A program that says `ready` and the names of signals that it gets, and ends with 7 on QUIT.
fn listener(options: &[&str], dir: &std::path::Path) -> (Child, impl FnMut() -> String) {
    let script = "trap 'echo HUP' HUP; trap 'echo USR2' USR2; trap 'echo TERM; exit 9' TERM; trap 'exit 7' QUIT
                  echo ready; while :; do read line; done";
    let mut command = start();
    command.current_dir(dir).args(options).args(["-o", "x.ckpt", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = move || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!(next(), "ready");
    (child, next)
}

#[test]
fn signals_are_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut next) = listener(&[], dir.path());
    for (signal, name) in [(Signal::HUP, "HUP"), (Signal::USR2, "USR2"), (Signal::HUP, "HUP")] {
        send(&child, signal);
        assert_eq!(next(), name);
    }
    send(&child, Signal::QUIT);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn death_by_a_signal_is_death_by_that_signal() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [6, 9, 13, 15] {
        let got = output(start().current_dir(&dir).args(["--", "sh", "-c", &format!("kill -{signal} $$")]));
        assert_eq!(got.status.signal(), Some(signal), "{got:?}");
    }
}

#[test]
fn it_takes_the_program_along_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut next) = listener(&[], dir.path());
    send(&child, Signal::KILL);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // The end of its standard output: nobody has it open any more.
    assert_eq!(next(), "");
}

#[test]
fn wrong_command_lines() {
    for (arguments, says) in [
        (&["run"][..], "<PROG>"),
        (&["run", "--signal", "KILL", "--", "sh"], "cannot be caught"),
        (&["run", "--signal", "NOPE", "--", "sh"], "no such signal"),
        (&["run", "--every", "soon", "--", "sh"], "10m"),
        (&["run", "job"], "two dashes: ckpt run [OPTIONS] -- PROG"),
        (&["run", "-o", "x", "sh", "-c", "true"], "two dashes"),
        (&["run", "--evry", "1m", "--", "sh"], "'--evry' found: a similar argument exists: '--every': see"),
        (&["run", "--keep", "0", "--", "sh"], "0"),
        (&["save", "python3"], "no process id: `pgrep python3` finds it by its name"),
        (&["migrate", "python3", "box"], "pgrep python3"),
        (&["save", "0"], "above 0"),
        (&["savee", "1"], "'savee': a similar subcommand exists: 'save': see"),
        (&["restart"], "<IMAGE>"),
        (&["restart", "--lazy", "x"], "--lazy"),
        (&["restart", "--pid", "some", "x"], "keep"),
        (&["restart", "--pid", "new", "--namespace", "x"], "excludes"),
        (&["restart", "--pidfile", "/nonexistent/pid", "x"], "/nonexistent/pid: the pid cannot be written"),
        (&["check", "0"], "0"),
        (&["restart", "--fd", "x", "y"], "N=PATH"),
        (&["restart", "--files", "some", "x"], "verify"),
        (&["fly"], "fly"),
        (&["fly"], ": see ckpt -h\n"),
        (&["--fly"], ": see ckpt -h\n"),
        (&["show"], "<IMAGE>"),
        (&["show"], ": see ckpt show -h\n"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref()).collect();
        failed(&run(&arguments), 64, says);
    }
    // What is no number is an image.
    failed(&run(&["check".as_ref(), "sh".as_ref()]), 66, "sh: the image cannot be opened");
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
    std::io::stdout().flush().unwrap();
}
