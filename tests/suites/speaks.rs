//! What `ckpt run` says, to whom: a log that is cut back, the user's commands, the service manager.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, wait};
use rustix::fs::OFlags;
use rustix::process::Signal;

/// How the log is opened: for appending or not.
const WAYS: [bool; 2] = [true, false];

/// A program that holds a connection to somebody else, which blocks a save, while the file `connect` is there.
fn connecting(port: u16) -> String {
    format!(
        "import os, socket, time\nprint('ready', flush=True)\nheld = None\nwhile not os.path.exists('go'):\n    \
         want = os.path.exists('connect')\n    if want and not held: held = socket.create_connection(('127.0.0.1', {port})); print('holds', flush=True)\n    \
         if held and not want: held.close(); held = None; print('is free', flush=True)\n    time.sleep(0.005)\nprint('PASS', flush=True)\n"
    )
}

/// `ckpt run -o job.ckpt OPTIONS -- python3 -c SCRIPT`.
fn run(place: &Place, options: &[&str], script: &str) -> Result<Command> {
    let mut command = place.ckpt();
    command.args(["run", "-o", "job.ckpt"]).args(options).arg("--").arg(tool("python3", "python3")?);
    command.args(["-c", script]);
    Ok(command)
}

fn save(job: &Job, image: &Path) -> Result<()> {
    let before = Mark::of(image);
    job.send(Signal::USR1)?;
    wait::until(|| Ok((Mark::of(image) != before).then_some(())), || format!("no image: {}", job.story()))
}

#[test]
fn each_failure_and_its_end() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let script = connecting(listener.local_addr()?.port());
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut run(&place, &[], &script)?)?;
        job.wait_line(READY)?;
        place.write("connect", "")?;
        job.wait_line("holds")?;
        job.send(Signal::USR1)?;
        job.wait_err("the program goes on; there is no image yet\n")?;
        fs::remove_file(place.file("connect"))?;
        job.wait_line("is free")?;
        save(&job, &image)?;
        job.wait_err("saved again, after 1 failed save in ")?;
        place.write("connect", "")?;
        wait::until(|| Ok((job.out().matches("holds").count() == 2).then_some(())), || job.story())?;
        job.send(Signal::USR1)?;
        job.wait_err("the program goes on; the last image is ")?;
        place.go()?;
        let ended = job.end()?;
        ensure!(ended.code() == Some(0) && ended.err.lines().count() == 4, "{ended:#?}");
        ensure!(ended.err.lines().all(|line| line.starts_with("ckpt: ")), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn quiet_and_verbose() -> Result<()> {
    User::each(|user| {
        for (option, lines) in [("-q", &[][..]), ("-v", &[": starts `", ": saved: ", "total ", ": the job is done: "])]
        {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(&mut run(&place, &[option], &connecting(1))?)?;
            job.wait_line(READY)?;
            save(&job, &image)?;
            place.go()?;
            let ended = job.end()?;
            ended.expect_pass()?;
            ensure!(lines.iter().all(|line| ended.err.contains(line)), "{ended:#?}");
            ensure!(ended.err.lines().count() == if lines.is_empty() { 0 } else { 3 }, "{ended:#?}");
        }
        Ok(())
    })
}

/// The program and `ckpt run` write one log, which the restart cuts back: the words of the latter are there all the same.
#[test]
fn words_survive_in_a_log_that_is_cut_back() -> Result<()> {
    const SCRIPT: &str = "import os, sys, time\nn = 0\nheld = open('held')\nwhile not os.path.exists('go'):\n    n += 1\n    \
        print('line', n, file=sys.stderr, flush=True); time.sleep(0.01)\nprint('line', 'last', file=sys.stderr, flush=True)\n";
    User::each(|user| {
        for append in WAYS {
            let place = Place::new(user)?;
            let (image, log) = (place.file("job.ckpt"), place.write("log", "before\n")?);
            // Open, and what cannot be saved while it has another name in another directory alone.
            let (held, aside) = (place.write("held", "")?, place.file("aside"));
            fs::create_dir(&aside)?;
            let other = aside.join("held");
            // As `2>>log`, or as a descriptor that the shell keeps, whose position is where the last one has stopped.
            let open = || -> Result<File> {
                let mut file = OpenOptions::new().append(append).write(true).open(&log)?;
                std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
                Ok(file)
            };
            let start = |stderr: File| -> Result<std::process::Child> {
                let mut command = run(&place, &[], SCRIPT)?;
                Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()?)
            };
            let written = || fs::read_to_string(&log);
            let until = |what: &str| {
                wait::until(|| Ok(written()?.contains(what).then_some(())), || format!("no {what}: {:?}", written()))
            };
            let send = |child: &std::process::Child, signal| -> Result<()> {
                Ok(rustix::process::kill_process(rustix::process::Pid::from_child(child), signal)?)
            };
            let mut child = start(open()?)?;
            until("line 3\n")?;
            send(&child, Signal::USR1)?;
            wait::until(|| Ok(image.exists().then_some(())), || "no image".to_owned())?;
            // After the save: a save that fails, lines of the program's, the end of everything.
            fs::hard_link(&held, &other)?;
            fs::remove_file(&held)?;
            send(&child, Signal::USR1)?;
            until("not saved: descriptor ")?;
            child.kill()?;
            child.wait()?;
            fs::rename(&other, &held)?;
            let mut child = start(open()?)?;
            until("cut back to what it was at the save")?;
            let now = written()?;
            ensure!(now.starts_with("before\n") && !now.contains('\0'), "{now:?}");
            let told = now
                .lines()
                .find(|line| line.contains("not saved"))
                .with_context(|| format!("the failure is not told again: {now}"))?;
            ensure!(told.starts_with("ckpt: said at 20") && told.contains("Z: not saved: descriptor "), "{told}");
            ensure!(now.contains("goes on from it, saved ") && now.contains("log.after-restart.1"), "{now}");
            place.go()?;
            ensure!(child.wait()?.code() == Some(0));
            let lines: Vec<String> =
                written()?.lines().filter(|line| line.starts_with("line")).map(str::to_owned).collect();
            let expected = (1..lines.len()).map(|n| format!("line {n}")).chain(["line last".to_owned()]);
            ensure!(lines.iter().cloned().eq(expected), "{append}: {lines:?}");
            let tail = fs::read_to_string(place.file("log.after-restart.1"))?;
            ensure!(tail.contains("ckpt: not saved"), "{tail}");
            ensure!(!place.file("job.ckpt.lock").exists(), "the lock stays behind a job that is done");
        }
        Ok(())
    })
}

#[test]
fn commands_of_the_users() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let script = connecting(listener.local_addr()?.port());
        let image = place.file("job.ckpt");
        let on_save = "echo $CKPT_RUN_REASON $CKPT_RUN_IMAGE $(grep SigBlk /proc/self/status) >>saves; \
                       [ $CKPT_RUN_REASON = save ] || { sleep 0.3; echo done >>saves; exit 3; }";
        let options = ["-q", "--on-save", on_save, "--on-failure", "echo \"$CKPT_RUN_REASON\" >>failures"];
        let mut job = Job::start(&mut run(&place, &options, &script)?)?;
        job.wait_line(READY)?;
        save(&job, &image)?;
        let read = |name| fs::read_to_string(place.file(name)).unwrap_or_default();
        let until = |name, n| {
            wait::until(|| Ok((read(name).lines().count() == n).then_some(())), || format!("{name}: {}", read(name)))
        };
        until("saves", 1)?;
        place.write("connect", "")?;
        job.wait_line("holds")?;
        job.send(Signal::USR1)?;
        until("failures", 1)?;
        fs::remove_file(place.file("connect"))?;
        job.wait_line("is free")?;
        // Who is ended waits for it.
        job.send(Signal::TERM)?;
        let ended = job.end()?;
        ended.expect_code(85)?;
        let shown = image.display();
        let expected = format!("save {shown} SigBlk: 0000000000000000\nend {shown} SigBlk: 0000000000000000\ndone\n");
        ensure!(read("saves") == expected, "{:?}", read("saves"));
        ensure!(read("failures").contains("tcp"), "{:?}", read("failures"));
        ensure!(ended.err.contains("--on-save: `echo") && ended.err.contains("has failed"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn the_service_manager_is_told() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let path = place.file("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        socket.set_read_timeout(Some(wait::timeout()))?;
        let next = |wanted: &str| -> Result<String> {
            let mut bytes = [0; 4096];
            loop {
                let n = socket.recv(&mut bytes).with_context(|| format!("nobody says {wanted}"))?;
                let said = String::from_utf8_lossy(&bytes[..n]).into_owned();
                if said.starts_with(wanted) {
                    return Ok(said);
                }
            }
        };
        let mut command = run(&place, &["-q"], &connecting(1))?;
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
        let mut job = Job::start(&mut command)?;
        next("READY=1")?;
        for _ in 0..2 {
            next("WATCHDOG=1")?;
        }
        job.wait_line(READY)?;
        save(&job, &place.file("job.ckpt"))?;
        ensure!(next("STATUS=")?.contains("saved"));
        job.send(Signal::TERM)?;
        next("STOPPING=1")?;
        next("EXTEND_TIMEOUT_USEC=30000000")?;
        job.end()?.expect_code(85)?;
        // Somebody else's watchdog is none of ours.
        let mut command = run(&place, &["-q"], &connecting(1))?;
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
        let job = Job::start(&mut command)?;
        next("READY=1")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut bytes = [0; 4096];
        while let Ok(n) = socket.recv(&mut bytes) {
            ensure!(!bytes[..n].starts_with(b"WATCHDOG"), "a sign of life for another process");
        }
        job.kill().map(drop)
    })
}

/// Nobody reads what it says: it does its work.
#[test]
fn nobody_is_waited_for() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let (_reader, writer) = std::io::pipe()?;
        let mut filler = File::from(writer.as_fd().try_clone_to_owned()?);
        rustix::fs::fcntl_setfl(&filler, OFlags::NONBLOCK)?;
        while filler.write(&[b'x'; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&filler, OFlags::empty())?;
        let mut command = run(&place, &["-v"], &connecting(1))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(OwnedFd::from(writer)).spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        ckpt_tests::proc::wait_blocks(child.id(), Signal::USR1.as_raw())?;
        for _ in 0..2 {
            let before = Mark::of(&image);
            // It is asked until it is there.
            let look = || {
                rustix::process::kill_process(pid, Signal::USR1)?;
                Ok((Mark::of(&image) != before).then_some(()))
            };
            wait::until(look, || "no image".to_owned())?;
        }
        rustix::process::kill_process(pid, Signal::TERM)?;
        ensure!(child.wait()?.code() == Some(85));
        Ok(())
    })
}
