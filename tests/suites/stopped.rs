//! A process that was stopped (Ctrl-Z, SIGSTOP) goes on after a save as little as before, comes back stopped in each way of a restart, and
//! goes on where it stood when it is let go on; also when it is saved again meanwhile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::{Job, Place, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

/// How it is restarted.
const WAYS: [&[&str]; 4] =
    [&["restart-stub"], &["ckpt", "restart"], &["ckpt", "restart", "--namespace"], &["ckpt", "restart", "--detach"]];

fn image(place: &Place) -> PathBuf {
    place.file("job.ckpt")
}

/// A counter that was stopped behind its third line, and saved.
fn saved(place: &Place) -> Result<()> {
    let job = Job::start(place.command(place.guest("counter")?).args(["6", "count.txt", "10", "3"]))?;
    job.wait_line("count 3")?;
    job.send(Signal::STOP)?;
    proc::wait_state(job.process(), "T")?;
    let before = job.out();
    place.save(job.pid(), &image(place), &[])?;
    ensure!(proc::state(job.pid()) == Some('T'), "after the save: {}", job.story());
    place.save(job.pid(), &image(place), &["--kill"])?;
    ensure!(job.out() == before, "it ran: {}", job.story());
    place.go()?;
    std::fs::write(place.file("count.txt"), "")?;
    Ok(())
}

/// Restarts it; the program's id, once it stands.
fn restart(place: &Place, way: &[&str], image: &Path) -> Result<(Job, u32)> {
    let (pidfile, mut command) = (place.file("job.pid"), place.command(place.bin().join(way[0])));
    let _ = std::fs::remove_file(&pidfile);
    command.args(&way[1..]).args(["--files", "ignore"]);
    if way[0] == "ckpt" {
        command.arg("--pidfile").arg(&pidfile);
    }
    let job = Job::start(command.arg(image))?;
    let pid = if way[0] == "ckpt" {
        let read = || Ok(std::fs::read_to_string(&pidfile).ok().and_then(|pid| pid.trim().parse().ok()));
        wait::until(read, || format!("no id of the program: {}", job.story()))?
    } else {
        job.pid()
    };
    let stands = || Ok((proc::comm(pid)? == "counter" && proc::state(pid) == Some('T')).then_some(()));
    wait::until(stands, || format!("process {pid} does not stand: {}", job.story()))?;
    Ok((job, pid))
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(i32::try_from(pid)?).context("a pid")?, signal)?)
}

#[test]
fn comes_back_stopped() -> Result<()> {
    User::each(|user| {
        for way in WAYS {
            let one = || {
                let place = Place::new(user)?;
                saved(&place)?;
                let (mut job, mut pid) = restart(&place, way, &image(&place))?;
                ensure!(job.out().is_empty(), "it runs: {}", job.story());
                // Saved again as it stands, and ended by the saver.
                place.save(pid, &image(&place), &["--kill"])?;
                send(job.process(), Signal::CONT).or_else(|e| if way.len() == 1 { Ok(()) } else { Err(e) })?;
                job.end()?;
                (job, pid) = restart(&place, way, &image(&place))?;
                ensure!(job.out().is_empty(), "it runs: {}", job.story());
                if way.last() == Some(&"--detach") {
                    send(pid, Signal::CONT)?;
                    let ended = job.end()?;
                    ensure!(ended.out.ends_with("count 6\nPASS\n"), "{ended:#?}");
                    return ended.expect_pass();
                }
                // Its proxy is stopped, too.
                proc::wait_state(job.process(), "T")?;
                job.send(Signal::CONT)?;
                let ended = job.end()?;
                ensure!(ended.out.ends_with("count 6\nPASS\n") && ended.out.len() <= 32, "{ended:#?}");
                ended.expect_pass()
            };
            one().with_context(|| format!("{way:?}"))?;
        }
        Ok(())
    })
}
