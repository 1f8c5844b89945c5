//! Daemons of a user's session that nobody here wrote: saved by pid, ended, restarted in six generations, each image twice; what they keep
//! for their clients is there.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, wait};

/// How often a daemon is saved.
const GENERATIONS: u32 = 6;

/// Saves a daemon again and again, and restarts each image twice, by turns with its own ids and in a namespace: `works` uses it;
/// its second argument: how often it has been used in the daemon's own time.
fn generations(place: &Place, mut job: Job, mut works: impl FnMut(&Job, u32) -> Result<()>) -> Result<()> {
    let image = place.file("daemon.ckpt");
    let mut pid = job.pid();
    works(&job, 0)?;
    for generation in 1..=GENERATIONS {
        place.save(pid, &image, &["--kill"]).with_context(|| format!("generation {generation}"))?;
        job.end()?;
        let mut start = |time: u32| -> Result<_> {
            let pidfile = place.file("daemon.pid");
            let _ = fs::remove_file(&pidfile);
            let mut command = place.ckpt();
            command.args(["restart", "--files", "ignore", "--pidfile"]).arg(&pidfile);
            command.args((generation % 2 == 0).then_some("--namespace")).arg(&image);
            let job = Job::start(&mut command)?;
            let written = || Ok(fs::read_to_string(&pidfile).ok().and_then(|pid| pid.trim().parse().ok()));
            let pid = wait::until(written, || format!("no pid: {}", job.story()))?;
            works(&job, generation)
                .with_context(|| format!("generation {generation}, time {time}: {}", job.story()))?;
            Ok((job, pid))
        };
        start(1)?.0.kill()?;
        (job, pid) = start(2)?;
    }
    job.kill().map(drop)
}

/// GNU screen, which owns the signals of its socket (`F_SETOWN`), with a shell that counts.
#[test]
fn screen() -> Result<()> {
    let screen = tool("screen", "screen")?;
    User::each(|user| {
        let place = Place::new(user)?;
        let command = || -> Result<Command> {
            let sockets = place.file("sockets");
            if !sockets.exists() {
                fs::create_dir(&sockets)?;
                fs::set_permissions(&sockets, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
                place.give(&sockets)?;
            }
            let mut command = place.command(&screen);
            command.env("SCREENDIR", sockets);
            Ok(command)
        };
        place.write("count", "n=$((n+1)); echo $n >said.new; mv said.new said\n")?;
        let job = Job::start(command()?.args(["-D", "-m", "-S", "job", "/bin/sh"]))?;
        generations(&place, job, |job, times| {
            let said = place.file("said");
            let _ = fs::remove_file(&said);
            // It may not have made its socket yet.
            let typed = || {
                let ended =
                    Job::start(command()?.args(["-S", "job", "-p", "0", "-X", "stuff", ". ./count\n"]))?.end()?;
                Ok((ended.code() == Some(0)).then_some(()))
            };
            wait::until(typed, || format!("screen takes no command: {}", job.story()))?;
            let number = || Ok(fs::read_to_string(&said).ok());
            let number = wait::until(number, || format!("the shell does not answer: {}", job.story()))?;
            ensure!(number.trim() == (times + 1).to_string(), "the shell has counted to {number}, not {}", times + 1);
            Ok(())
        })
    })
}

/// dbus-daemon, which watches directories that nothing else of the process leads to.
#[test]
fn dbus_daemon() -> Result<()> {
    let (daemon, send) = (tool("dbus-daemon", "dbus-daemon")?, tool("dbus-send", "dbus-bin")?);
    User::each(|user| {
        let place = Place::new(user)?;
        let services = place.file("data/dbus-1/services");
        for folder in [place.file("data"), place.file("data/dbus-1"), services.clone()] {
            fs::create_dir(&folder)?;
            place.give(&folder)?;
        }
        let address = format!("unix:path={}", place.file("bus").display());
        let mut command = place.command(&daemon);
        command.args(["--session", "--nofork", "--nopidfile"]).arg(format!("--address={address}"));
        let job = Job::start(command.env("XDG_DATA_HOME", place.file("data")))?;
        generations(&place, job, |job, times| {
            // It learns of the new service by inotify.
            let service = format!("org.example.Service{times}");
            let text = format!("[D-BUS Service]\nName={service}\nExec=/bin/false\n");
            let listed = || {
                // What is written before the restart has its watches again is news to nobody.
                place.write(&format!("data/dbus-1/services/{service}.service"), &text)?;
                let mut command = place.command(&send);
                command.arg(format!("--bus={address}")).args(["--print-reply", "--dest=org.freedesktop.DBus", "/"]);
                let said = Job::start(command.arg("org.freedesktop.DBus.ListActivatableNames"))?.end()?;
                Ok(said.out.contains(&format!("\"{service}\"")).then_some(()))
            };
            wait::until(listed, || format!("it does not know of {service}: {}", job.story()))
        })
    })
}

/// inotifywait, on a directory that is far from all that is known of the process.
#[test]
fn inotifywait() -> Result<()> {
    let inotifywait = tool("inotifywait", "inotify-tools")?;
    User::each(|user| {
        let place = Place::new(user)?;
        let far = tempfile::tempdir_in("/var/tmp")?;
        place.give(far.path())?;
        let mut command = place.command(&inotifywait);
        let job = Job::start(command.args(["-q", "-m", "-e", "create", "--format", "%e %f"]).arg(far.path()))?;
        let look = || {
            Ok(fs::read_dir(format!("/proc/{}/fdinfo", job.pid()))?
                .any(|entry| {
                    let text = entry.ok().and_then(|entry| fs::read_to_string(entry.path()).ok());
                    text.is_some_and(|text| text.contains("inotify wd:"))
                })
                .then_some(()))
        };
        wait::until(look, || format!("it does not watch: {}", job.story()))?;
        let mut number = 0;
        generations(&place, job, |job, _| {
            let told = || {
                // What is made before the restart has its watches again is news to nobody.
                number += 1;
                fs::write(far.path().join(format!("new{number}")), "")?;
                Ok(job.out().contains("CREATE new").then_some(()))
            };
            wait::until(told, || format!("it learns of no file: {}", job.story()))
        })
    })
}
