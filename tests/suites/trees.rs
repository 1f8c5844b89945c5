//! Trees of processes that nobody here wrote: saved by the pid of their root, killed, restarted; what they say in the end is what an
//! undisturbed run says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::tool;
use ckpt_tests::remote::{ends_within, random, undisturbed};
use ckpt_tests::tmux::Tmux;
use ckpt_tests::{Job, Place, User, left_out, proc, wait};

/// A restart of a tree, whose ids `ckpt` alone can give.
fn restart(place: &Place, image: &Path, options: &[&str]) -> Result<Job> {
    let mut command = place.ckpt();
    command.args(["restart", "--files", "ignore"]).args(options).arg(image);
    Job::start(&mut command)
}

/// Saves at several random moments of a run, kills, restarts each image twice: in the end it has said what it says undisturbed.
///
/// Until it says `ready` it makes files that it deletes a moment later: such an image is restarted once, as the second restart would miss
/// by its name what the first one has deleted.
fn comes_back(place: &Place, command: &mut dyn FnMut() -> Command, ready: &str, moments: u32) -> Result<()> {
    let (whole, time) = undisturbed(&mut command())?;
    let whole = String::from_utf8_lossy(&whole).into_owned();
    let image = place.file("tree.ckpt");
    let mut saved = 0;
    for moment in 0..moments {
        let mut job = Job::start(&mut command())?;
        if ends_within(job.pid(), time.mul_f64(0.1 + 0.8 * random()))? {
            continue;
        }
        let options: &[&str] = if moment % 2 == 0 { &["--kill"] } else { &["--kill", "--compress", "zstd"] };
        let ended = place.try_save(job.pid(), &image, options)?;
        if ended.code() != Some(0) {
            // It was faster than the saver.
            ensure!(ends_within(job.pid(), Duration::from_millis(500))?, "not saved: {ended:#?} {}", job.story());
            continue;
        }
        saved += 1;
        let before = job.end()?.out;
        let twice = [&[][..], &["--namespace"]];
        for options in if before.contains(ready) { &twice[..] } else { &twice[moment as usize % 2..][..1] } {
            let after = restart(place, &image, options)?.end()?;
            let all = before.clone() + &after.out;
            ensure!(after.status.success() && all == whole, "{options:?}: {before}\n{after:#?}\nundisturbed: {whole}");
        }
    }
    ensure!(saved != 0, "all of {moments} runs ended before they were saved");
    Ok(())
}

/// A pipeline of shells, subshells and programs that come and go.
#[test]
fn pipeline() -> Result<()> {
    const SCRIPT: &str = "( i=0; while [ $i -lt 25 ]; do i=$((i+1)); echo line $i; sleep 0.04; done ) |
        while read -r x; do echo \"got $x\"; done | tr a-z A-Z
        echo end $?";
    User::each(|user| {
        let place = Place::new(user)?;
        comes_back(&place, &mut || command(&place, "sh", &["-c", SCRIPT]), "", 5)
    })
}

/// What a program that has ended has left in a pipe is read after the restart, also when it is the root's standard input; and who writes to
/// one that has ended finds the pipe broken.
#[test]
fn pipes_of_those_that_have_ended() -> Result<()> {
    const SCRIPT: &str = "later() { until [ -e go ]; do sleep 0.01; done; }
        (later; trap '' PIPE; echo x || echo broken >&2) | true &
        seq 1 3000 | (later; cksum) &
        echo ready; wait; cksum";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("tree.ckpt");
        let start = || -> Result<Job> {
            let mut job = Job::start(&mut command(&place, "dash", &["-c", SCRIPT]))?;
            job.type_in("left behind\n")?;
            job.close_stdin();
            job.wait_line("ready")?;
            let two = || Ok((proc::children(job.pid()).len() == 2).then_some(()));
            wait::until(two, || "seq and true do not end".to_owned())?;
            Ok(job)
        };
        let mut job = start()?;
        place.go()?;
        let whole = job.end()?;
        place.halt()?;
        let mut job = start()?;
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
        place.go()?;
        for options in [&[][..], &["--namespace"]] {
            let after = restart(&place, &image, options)?.end()?;
            ensure!("ready\n".to_owned() + &after.out == whole.out, "{options:?}: {after:#?}, undisturbed: {whole:#?}");
            ensure!(after.err.contains("broken"), "{options:?}: {after:#?}, undisturbed: {whole:#?}");
        }
        Ok(())
    })
}

/// What bash makes of `>(…)` and `<(…)`: pipes whose ends are opened again by `/dev/fd/N`, between processes.
#[test]
fn substituted_processes() -> Result<()> {
    const SCRIPT: &str = "later() { until [ -e go ]; do sleep 0.01; done; }
        exec 3>&1 > >(while read -r line; do echo \"log: $line\"; done >&3)
        logger=$!
        echo first
        diff <(seq 1 20; later; seq 21 40) <(seq 1 39; later; echo 40) && echo same
        (later; echo inner) | cat - <(later; echo outer)
        echo last; exec >&3 3>&-; wait $logger; echo end";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("tree.ckpt");
        let start = || -> Result<Job> {
            let job = Job::start(&mut command(&place, "bash", &["-c", SCRIPT]))?;
            job.wait_line("log: first")?;
            // bash, the loop, diff with two writers.
            let all = || Ok((proc::children(job.pid()).len() >= 2).then_some(()));
            wait::until(all, || "diff does not start".to_owned())?;
            Ok(job)
        };
        let mut job = start()?;
        place.go()?;
        let whole = job.end()?;
        ensure!(whole.out.ends_with("log: inner\nlog: outer\nlog: last\nend\n"), "{whole:#?}");
        place.halt()?;
        let mut job = start()?;
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
        place.go()?;
        for options in [&[][..], &["--namespace"]] {
            let after = restart(&place, &image, options)?.end()?;
            ensure!(
                "log: first\n".to_owned() + &after.out == whole.out,
                "{options:?}: {after:#?}, undisturbed: {whole:#?}"
            );
            ensure!(after.err.is_empty(), "{options:?}: {after:#?}");
        }
        Ok(())
    })
}

fn command(place: &Place, program: &str, arguments: &[&str]) -> Command {
    let mut command = place.command(Path::new("/usr/bin").join(program));
    command.args(arguments);
    command
}

/// Background jobs in groups of their own, waited for one by one, some of them ended and not waited for at the save.
#[test]
fn jobs() -> Result<()> {
    const SCRIPT: &str = "set -m
        work() { for i in 1 2 3 4 5 6 7 8; do sleep 0.1; done; exit $1; }
        work 3 & A=$!
        work 4 & B=$!
        ( sleep 0.05; exit 9 ) & C=$!
        sleep 0.4; work 5 & D=$!
        for job in $A $B $C $D; do wait $job; echo ended with $?; done";
    User::each(|user| {
        let place = Place::new(user)?;
        comes_back(&place, &mut || command(&place, "bash", &["-c", SCRIPT]), "", 5)
    })
}

/// Workers of Python's: pipes, semaphores and shared memory between processes.
#[test]
fn multiprocessing() -> Result<()> {
    const SCRIPT: &str = r#"
import hashlib, multiprocessing as mp, time
def digest(n):
    h = hashlib.sha256(str(n).encode())
    for i in range(20000): h.update(b"x%d" % i)
    return h.hexdigest()
def count(value, lock):
    for i in range(150):
        with lock: value.value += 1
        time.sleep(0.002)
if __name__ == "__main__":
    mp.set_start_method("fork")
    lock, value, total = mp.Lock(), mp.Value("i", 0), hashlib.sha256()
    counters = [mp.Process(target=count, args=(value, lock)) for _ in range(2)]
    for one in counters: one.start()
    with mp.Pool(3) as pool:
        print("ready", flush=True)
        for result in pool.imap(digest, range(60)): total.update(result.encode())
    for one in counters: one.join()
    print(total.hexdigest(), value.value, [one.exitcode for one in counters], flush=True)
"#;
    let python = tool("python3", "python3")?;
    User::each(|user| {
        let place = Place::new(user)?;
        place.write("work.py", SCRIPT)?;
        comes_back(&place, &mut || command(&place, &python.to_string_lossy(), &["work.py"]), "ready", 5)
    })
}

/// A terminal multiplexer with a shell inside, its variable, its background job and its terminal.
#[test]
fn multiplexer() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("tmux.ckpt");
        let tmux = Tmux::start(&place, 80, 24, "env PS1=prompt: sh -i")?;
        let types = |text: &str| tmux.run(&["send-keys", text, "Enter"]).map(drop);
        let shows = |text: &str| {
            let screen = || tmux.run(&["capture-pane", "-p"]);
            wait::until(|| Ok(screen()?.contains(text).then_some(())), || format!("{text}: {:?}", screen()))
        };
        types("x=41; sleep 1000 & echo is''ready")?;
        shows("isready")?;
        let server: u32 = tmux.run(&["display-message", "-p", "#{pid}"])?.trim().parse()?;
        let looked = Job::start(place.ckpt().args(["check", &server.to_string()]))?.end()?;
        ensure!(looked.code() == Some(0), "{looked:#?}");
        place.save(server, &image, &["--kill"])?;
        let pid = place.file("tmux.pid");
        let mut command = place.ckpt();
        command.args(["restart", "--detach", "--pidfile"]).arg(&pid).arg(&image);
        let restarted = Job::start(&mut command)?.end()?;
        ensure!(restarted.code() == Some(0), "{restarted:#?}");
        types("kill %1 && echo has $((x+1)) $(stty size)")?;
        shows("has 42 24 80")?;
        // A key that the terminal makes a signal of, for the group in its foreground.
        let runs = |name: &str| {
            let current = || tmux.run(&["display-message", "-p", "#{pane_current_command}"]);
            wait::until(|| Ok((current()?.trim() == name).then_some(())), || format!("{name} does not run"))
        };
        types("sleep 1000")?;
        runs("sleep")?;
        tmux.run(&["send-keys", "C-c"])?;
        runs("sh")?;
        types("echo shell is''there")?;
        shows("shell isthere")
    })
}

/// One that is killed while all are being restarted: the others end, too, and say so.
#[test]
fn killed_during_a_restart() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("tree.ckpt");
        let mut job = Job::start(&mut command(&place, "sh", &["-c", "sleep 1000 & sleep 1000 & echo ready; wait"]))?;
        job.wait_line("ready")?;
        let ids: Vec<i32> = proc::children(job.pid()).into_iter().map(u32::cast_signed).collect();
        place.save(job.pid(), &image, &["--kill"])?;
        job.end()?;
        if !user.is_root() {
            left_out::in_part(Needs::Root, "its ids are others outside");
            return Ok(());
        }
        let gone = |id: &i32| sys::process::kill(*id, 0).is_err();
        wait::until(|| Ok(ids.iter().all(gone).then_some(())), || "they are there still".to_owned())?;
        let kill = rustix::process::Pid::from_raw(*ids.last().context("no child")?).context("no id")?;
        let send = |signal| rustix::process::kill_process(kill, signal).ok();
        let mut job = loop {
            let job = restart(&place, &image, &["--pid", "keep"])?;
            // As soon as it is there: the others wait for it now, if they have not come further already.
            wait::until(|| Ok(send(rustix::process::Signal::STOP)), || "it is never there".to_owned())?;
            let pid = kill.as_raw_pid().cast_unsigned();
            proc::wait_state(pid, "T")?;
            if proc::comm(pid)? != "sleep" {
                break job;
            }
            for id in &ids {
                // One that has ended is as good.
                let _ = sys::process::kill(*id, rustix::process::Signal::KILL.as_raw());
            }
            job.kill_process()?;
            wait::until(|| Ok(ids.iter().all(gone).then_some(())), || "they are there still".to_owned())?;
        };
        send(rustix::process::Signal::KILL).context("it has ended")?;
        let ended = job.end()?;
        ensure!(ended.code() == Some(87) && ended.err.contains("was killed"), "{ended:#?}");
        for id in ids {
            wait::until(|| Ok(gone(&id).then_some(())), || format!("process {id} is there still"))?;
        }
        Ok(())
    })
}

/// What stands in the way is called as its process calls it.
#[test]
fn descriptors_have_their_own_numbers() -> Result<()> {
    let place = Place::new(User::Own)?;
    // A directory of another process.
    let script = "(exec 7</proc/1; echo ready; exec sleep 1000) & wait";
    let mut job = Job::start(&mut command(&place, "sh", &["-c", script]))?;
    job.wait_line("ready")?;
    let [child] = proc::children(job.pid())[..] else { anyhow::bail!("not one child: {}", job.story()) };
    let name = format!("descriptor 7 of process {child}");
    let refused = place.try_save(job.pid(), &place.file("tree.ckpt"), &[])?;
    ensure!(refused.code() == Some(88) && refused.err.contains(&name), "{name}: {refused:#?}");
    let checked = Job::start(place.ckpt().args(["check", &job.pid().to_string()]))?.end()?;
    ensure!((checked.out.clone() + &checked.err).contains(&name), "{name}: {checked:#?}");
    let _ = sys::process::kill(child.cast_signed(), 9);
    job.end()?;
    Ok(())
}

/// What a tree cannot have.
#[test]
fn refusals() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("tree.ckpt");
    let mut job = Job::start(&mut command(&place, "sh", &["-c", "sleep 1000 & echo ready; wait"]))?;
    job.wait_line("ready")?;
    place.save(job.pid(), &image, &["--kill"])?;
    job.end()?;
    let new = Job::start(place.ckpt().args(["restart", "--pid", "new"]).arg(&image))?.end()?;
    ensure!(new.code() == Some(64) && new.err.contains("tree"), "{new:#?}");
    let shown = Job::start(place.ckpt().arg("show").arg(&image))?.end()?;
    ensure!(shown.out.matches("\nProcess ").count() == 2, "{shown:#?}");
    let verified = Job::start(place.ckpt().arg("verify").arg(&image))?.end()?;
    ensure!(verified.code() == Some(0), "{verified:#?}");
    // A byte of the child's memory.
    let mut bytes = std::fs::read(&image)?;
    let at = bytes.len() - 6000;
    bytes[at] ^= 1;
    let damaged = place.file("damaged.ckpt");
    std::fs::write(&damaged, bytes)?;
    let verified = Job::start(place.ckpt().arg("verify").arg(&damaged))?.end()?;
    ensure!(verified.code() != Some(0), "{verified:#?}");
    Ok(())
}

/// A process of the tree has fewer capabilities than the others, in a namespace that lets nobody set groups: no process may change these.
#[test]
fn capabilities_where_groups_are_denied() -> Result<()> {
    const GUEST: &str = "setpriv --bounding-set=-net_raw sh -c 'grep Cap /proc/self/status >before; echo ready; \
        while ! [ -e go ]; do :; done; grep Cap /proc/self/status | cmp - before' && echo PASS";
    const SCRIPT: &str = "sh -c \"$1\" >out & pid=$!\n\
        until grep -q ready out; do kill -0 $pid || exit 1; done\n\
        \"$0\" save $pid -q -o job.ckpt --kill || exit; wait $pid; : >go\n\
        \"$0\" restart job.ckpt && cat out";
    tool("setpriv", "util-linux")?;
    let user = if rustix::process::geteuid().is_root() { User::Nobody } else { User::Own };
    let place = Place::new(user)?;
    let mut command = place.command(tool("unshare", "util-linux")?);
    command.args(["-Ur", "sh", "-c", SCRIPT]).arg(place.bin().join("ckpt")).arg(GUEST);
    let ended = Job::start(&mut command)?.end()?;
    if ended.err.contains("unshare failed") {
        println!("SKIPPED: no user namespaces: {}", ended.err);
        return Ok(());
    }
    ensure!(ended.code() == Some(0) && ended.out.ends_with("ready\nPASS\n"), "{ended:#?}");
    Ok(())
}
