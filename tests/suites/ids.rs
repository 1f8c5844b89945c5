//! How a restart gives a program its ids, each way where it is the first that works: by right, by counting, new in place, in a namespace, refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, left_out, proc};
use image_format::ExitCode;
use rustix::process::{Pid, Signal, kill_process};

const BY_RIGHT: &str = "keeps its ids, by right";
const BY_COUNTING: &str = "keeps its ids, which come up next";
const IN_NAMESPACES: &str = "keeps its ids, in namespaces of its own";
const NEW: &str = "gets new ids: the save has found no trace of the old ones";

/// A program that lets no trace of its ids into its memory; and one that keeps several.
const UNTRACED: &str = "counter";
const TRACED: &str = "identity";

/// A pid namespace whose first processes have no right at all, as those of a container: `set_up` is run with rights.
fn container(place: &Place, set_up: &str, line: &str) -> Result<Command> {
    let mut command = place.command(tool("unshare", "util-linux")?);
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c"]);
    let drop_rights = "setpriv --bounding-set=-all --inh-caps=-all";
    command.arg(format!("{set_up}\nexec {drop_rights} bash -c \"$0\"")).arg(line);
    Ok(command)
}

/// A running guest that was saved live: its ids are taken.
struct Taken {
    place: Place,
    image: PathBuf,
    job: Job,
}

impl Taken {
    fn new(user: User, guest: &str, arguments: &[&str]) -> Result<Self> {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let job = Job::start(place.command(place.guest(guest)?).args(arguments))?;
        job.wait_line(if guest == UNTRACED { "count 3" } else { READY })?;
        place.save(job.pid(), &image, &[])?;
        Ok(Self { place, image, job })
    }

    fn freed(self) -> Result<(Place, PathBuf)> {
        self.job.kill()?;
        Ok((self.place, self.image))
    }
}

/// `ckpt restart -v`.
fn restart(place: &Place, image: &Path, options: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.args(["restart", "-v", "--files", "ignore"]).args(options).arg(image);
    command
}

/// It went this way and passed; `ckpt check` has foretold it.
fn passed(ended: &Ended, way: &str) -> Result<()> {
    ended.expect_pass()?;
    ensure!(ended.err.contains(way), "not '{way}': {ended:#?}");
    Ok(())
}

fn foretold(place: &Place, image: &Path, way: &str) -> Result<()> {
    let ended = Job::start(place.ckpt().args(["check", "--files", "ignore"]).arg(image))?.end()?;
    ensure!(ended.out.contains(way), "not foretold, '{way}': {ended:#?}");
    Ok(())
}

/// What `ckpt show --json` says of the root's traces.
fn traces(place: &Place, image: &Path) -> Result<String> {
    let ended = Job::start(place.ckpt().args(["show", "--json"]).arg(image))?.end()?;
    let report: serde_json::Value = serde_json::from_str(&ended.out).with_context(|| format!("{ended:#?}"))?;
    let ids = &report["processes"][0]["ids"];
    ensure!(ids["at"].is_string() == (ids["traces"] == "found"), "{ids}");
    Ok(ids["traces"].as_str().context("no traces")?.to_owned())
}

#[test]
fn by_right() -> Result<()> {
    left_out::unless_root("only root has the right by itself, and gives it to a file")?;
    for guest in [UNTRACED, TRACED] {
        let (place, image) = Taken::new(User::Own, guest, &["12", "count.txt"])?.freed()?;
        place.go()?;
        foretold(&place, &image, BY_RIGHT)?;
        passed(&Job::start(&mut restart(&place, &image, &[]))?.end()?, BY_RIGHT)?;
    }
    Ok(())
}

/// A right that was lent for the restart alone: the program does not have it.
#[test]
fn by_the_capability_of_the_file() -> Result<()> {
    left_out::unless_root("only root has the right by itself, and gives it to a file")?;
    let (place, image) = Taken::new(User::Nobody, TRACED, &[])?.freed()?;
    // A file of its own: all places share the other.
    let ckpt = place.file("ckpt");
    std::fs::copy(place.bin().join("ckpt"), &ckpt)?;
    for sets in ["p", "ep"] {
        let mut set = Command::new(tool("setcap", "libcap2-bin")?);
        let set = set.arg(format!("cap_checkpoint_restore+{sets}")).arg(&ckpt).output()?;
        ensure!(set.status.success(), "{set:?}");
        let ended = Job::start(place.command(&ckpt).arg("check").arg(&image))?.end()?;
        ensure!(ended.out.contains(BY_RIGHT), "not foretold: {ended:#?}");
        let mut job = Job::start(place.command(&ckpt).args(["restart", "-v"]).arg(&image))?;
        job.wait_err(" goes on as ")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", job.pid()))?;
        let rights = || status.lines().filter(|line| line.starts_with("Cap") && !line.starts_with("CapBnd"));
        ensure!(rights().count() == 4 && rights().all(|line| line.ends_with("\t0000000000000000")), "{status}");
        place.go()?;
        passed(&job.end()?, BY_RIGHT)?;
        place.halt()?;
    }
    Ok(())
}

/// Somebody is given the id of a thread when the restart has already seen that it is free: another way is taken.
#[test]
fn a_threads_id_that_is_taken_meanwhile() -> Result<()> {
    left_out::unless_root("only root can take an id at once")?;
    let taken = Taken::new(User::Own, "threads8", &[])?;
    let pid = taken.job.pid();
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    threads.sort();
    let last = threads.pop().context("no thread")?;
    let (place, image) = taken.freed()?;
    place.go()?;
    // Whoever is faster: it goes on. Until the id was taken in time.
    let mut ways = String::new();
    for _ in 0..100 {
        let taker = Job::start(place.command(place.guest("taker")?).arg(pid.to_string()).arg(&last))?;
        taker.wait_line(READY)?;
        let ended = Job::start(&mut restart(&place, &image, &[]))?.end()?;
        ended.expect_pass()?;
        let was_faster = taker.out().contains("taken");
        taker.kill_process()?;
        ways.push_str(&ended.err);
        if was_faster && ended.err.contains(BY_RIGHT) {
            let other = ended.err.contains(NEW) || ended.err.contains(IN_NAMESPACES);
            ensure!(other, "no other way: {ended:#?}");
            return Ok(());
        }
    }
    anyhow::bail!("the id was never taken in time:\n{ways}")
}

/// `ckpt run` in a container, as its first process or that one's child, saved on SIGTERM; then in two containers at once.
#[test]
fn by_counting_in_the_next_container() -> Result<()> {
    User::each(|user| {
        for start in ["exec", ""] {
            let place = Place::new(user)?;
            let (guest, ckpt) = (place.guest(TRACED)?, place.bin().join("ckpt"));
            let (guest, ckpt) = (guest.display(), ckpt.display());
            let line = format!("{start} {ckpt} run -o job.ckpt -- {guest}\nexit $?");
            let mut job = Job::start(&mut container(&place, ":", &line)?)?;
            job.wait_line(READY)?;
            // PID 1 there, or its child.
            let mut run = *proc::children(job.process()).first().context("nobody in the container")?;
            if start.is_empty() {
                run = *proc::children(run).first().context("no `ckpt run` in the container")?;
            }
            kill_process(Pid::from_raw(i32::try_from(run)?).context("a pid")?, Signal::TERM)?;
            let ended = job.end()?;
            ended.expect_code(85)?;
            let pid: u32 = ended.out.lines().find_map(|line| line.strip_prefix("pid ")).context("no pid")?.parse()?;
            ensure!((300..1000).contains(&pid), "the program is {pid}: the next container has its own processes there");
            let image = place.file("job.ckpt");
            let again = format!(
                "{ckpt} check job.ckpt; {start} {ckpt} restart -v --fd 0=inherit --fd 1=inherit --fd 2=inherit job.ckpt"
            );
            let jobs: Vec<Job> =
                (0..2).map(|_| Job::start(&mut container(&place, ":", &again)?)).collect::<Result<_>>()?;
            for job in &jobs {
                job.wait_err(" goes on as ")?;
            }
            place.go()?;
            for mut job in jobs {
                let ended = job.end()?;
                passed(&ended, BY_COUNTING)?;
                ensure!(ended.out.contains(BY_COUNTING), "not foretold: {ended:#?}");
            }
            ensure!(traces(&place, &image)? == "found");
        }
        Ok(())
    })
}

/// Ids that millions of others come before: nobody waits for that by default; who asks for it can end it at any time.
#[test]
fn counting_ends_at_a_signal() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (guest, ckpt) = (place.guest(TRACED)?, place.bin().join("ckpt"));
        let far = "echo 4194304 > /proc/sys/kernel/pid_max; echo 4000000 > /proc/sys/kernel/ns_last_pid";
        let ready = format!(
            "coproc g {{ exec {}; }}; read -ru ${{g[0]}} a; read -ru ${{g[0]}} a; {} save $g_PID -o job.ckpt --kill",
            guest.display(),
            ckpt.display()
        );
        let ended = Job::start(&mut container(&place, far, &ready)?)?.end()?;
        ended.expect_code(0)?;
        let image = place.file("job.ckpt");
        let fds = "--fd 0=inherit --fd 1=inherit";
        let keep = format!("{} restart -v {fds} --pid keep job.ckpt; exit $?", ckpt.display());
        let mut job = Job::start(&mut container(&place, "echo 4194304 > /proc/sys/kernel/pid_max", &keep)?)?;
        job.wait_err(": counting, ")?;
        // Not PID 1 there, whom the kernel lets nobody end so.
        let first = *proc::children(job.process()).first().context("nobody in the container")?;
        let restart = *proc::children(first).first().context("no restart in the container")?;
        kill_process(Pid::from_raw(i32::try_from(restart)?).context("a pid")?, Signal::INT)?;
        let ended = job.end()?;
        ensure!(ended.code() != Some(0) && !ended.err.contains(" goes on as "), "{ended:#?}");
        // Where the largest id is small, that is what is said.
        let small = "echo 32768 > /proc/sys/kernel/pid_max";
        let ended = Job::start(&mut container(&place, small, &keep)?)?.end()?;
        ended.expect_code(ExitCode::Kernel as i32)?;
        ensure!(ended.err.contains("is larger than any here"), "{ended:#?}");
        // Without any right, as user 0, nobody can make a namespace in which that user is known.
        let auto = format!("{0} check job.ckpt; {0} restart {fds} job.ckpt", ckpt.display());
        for set_up in [small, ":"] {
            let ended = Job::start(&mut container(&place, set_up, &auto)?)?.end()?;
            ended.expect_code(ExitCode::Kernel as i32)?;
            let says = "pid and user namespaces cannot be made (EPERM): ";
            ensure!(ended.err.contains(says) && ended.out.contains(says), "{ended:#?}");
        }
        ensure!(traces(&place, &image)? == "found");
        Ok(())
    })
}

#[test]
fn new_ones_where_there_is_no_trace_of_the_old() -> Result<()> {
    User::each(|user| {
        let taken = Taken::new(user, UNTRACED, &["100000", "count.txt", "10"])?;
        ensure!(traces(&taken.place, &taken.image)? == "none");
        foretold(&taken.place, &taken.image, NEW)?;
        let job = Job::start(&mut restart(&taken.place, &taken.image, &[]))?;
        job.wait_err(" goes on as ")?;
        job.wait_text("count ")?;
        ensure!(job.err().contains(NEW), "{}", job.story());
        // The restart's own process has become the program.
        ensure!(job.pid() == job.process(), "{} is supervised by {}", job.pid(), job.process());
        job.kill()?;
        taken.freed().map(drop)
    })
}

#[test]
fn in_namespaces_where_the_old_ones_are_taken() -> Result<()> {
    User::each(|user| {
        let taken = Taken::new(user, TRACED, &[])?;
        foretold(&taken.place, &taken.image, IN_NAMESPACES)?;
        let mut job = Job::start(&mut restart(&taken.place, &taken.image, &[]))?;
        job.wait_err(" goes on as ")?;
        taken.place.go()?;
        passed(&job.end()?, IN_NAMESPACES)
    })
}

/// As in a container whose own filter or limit allows none.
#[test]
fn refused_where_namespaces_are_forbidden() -> Result<()> {
    User::each(|user| {
        let none = "echo 0 > /proc/sys/user/max_user_namespaces";
        for (guest, arguments) in [(TRACED, ""), (UNTRACED, "100000 count.txt 10")] {
            let place = Place::new(user)?;
            let (path, ckpt) = (place.guest(guest)?, place.bin().join("ckpt"));
            // The program goes on after the save, so that its ids are taken.
            let line = format!(
                "for i in {{1..300}}; do (:); done; coproc g {{ exec {} {arguments}; }}; until [[ $a = ready || $a = 'count 3' ]]; do read -ru ${{g[0]}} a; done
{1} save $g_PID -o job.ckpt || exit 9
{1} check --files ignore job.ckpt; {1} restart -v --files ignore --fd 0=inherit --fd 1=inherit job.ckpt",
                path.display(),
                ckpt.display()
            );
            let mut job = Job::start(&mut container(&place, none, &line)?)?;
            if guest == UNTRACED {
                job.wait_err(" goes on as ")?;
                ensure!(job.err().contains(NEW), "{}", job.story());
                job.wait_text(NEW)?;
                job.send(Signal::KILL)?;
                job.end()?;
                continue;
            }
            let ended = job.end()?;
            ended.expect_code(ExitCode::Kernel as i32)?;
            for part in
                ["is taken by identity", "namespaces cannot be made (ENOSPC)", "cap_checkpoint_restore", "--pid new"]
            {
                ensure!(ended.err.contains(part) && ended.out.contains(part), "'{part}': {ended:#?}");
            }
        }
        Ok(())
    })
}

/// A tree's ids are kept, or it is refused.
#[test]
fn a_tree_keeps_its_ids() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let script = "sleep 1000 & c=$!; echo ready; until [ -e \"$GUEST_GO\" ]; do sleep 0.05; done
kill $c && { wait $c; [ $? = 143 ]; } && echo PASS";
        let job = Job::start(place.command(tool("bash", "bash")?).args(["-c", script]))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &[])?;
        let ended = Job::start(&mut restart(&place, &image, &["--pid", "new"]))?.end()?;
        ended.expect_code(ExitCode::Usage as i32)?;
        foretold(&place, &image, IN_NAMESPACES)?;
        let mut again = Job::start(&mut restart(&place, &image, &[]))?;
        again.wait_err(" goes on as ")?;
        place.go()?;
        passed(&again.end()?, IN_NAMESPACES)?;
        let mut job = job;
        job.end()?.expect_pass()
    })
}

/// Whatever a program's data look like, no way of a restart changes them.
#[test]
fn what_looks_like_an_id_stays() -> Result<()> {
    User::each(|user| {
        for threads in ["1", "5"] {
            let taken = Taken::new(user, "lookalike", &[threads])?;
            taken.place.go()?;
            for (options, says) in [
                (&["--pid", "new"][..], "gets new ids, and keeps what may be an old one"),
                (&["--namespace"], IN_NAMESPACES),
                (&[], ""),
            ] {
                passed(&Job::start(&mut restart(&taken.place, &taken.image, options))?.end()?, says)?;
            }
            let stub = taken.place.bin().join("restart-stub");
            let mut alone = taken.place.command(stub);
            Job::start(alone.args(["--pid", "new"]).arg(&taken.image))?.end()?.expect_pass()?;
            ensure!(traces(&taken.place, &taken.image)? == "found");
            let Taken { mut job, .. } = taken;
            job.end()?.expect_pass()?;
        }
        Ok(())
    })
}

/// Who is being restarted says so in its memory: no program is recognised by its name.
#[test]
fn names_decide_nothing() -> Result<()> {
    User::each(|user| {
        for name in ["restart-stub", "ruby-sleep", "ckpt-restarting", "ckpt"] {
            let place = Place::new(user)?;
            let (program, image) = (place.file(name), place.file("job.ckpt"));
            std::fs::copy(place.guest(UNTRACED)?, &program)?;
            let mut job = Job::start(place.command(&program).args(["100", "count.txt", "10", "3"]))?;
            job.wait_text("count 3")?;
            place.save(job.pid(), &image, &["--kill"])?;
            place.go()?;
            let first = job.end()?;
            let last = Job::start(&mut restart(&place, &image, &[]))?.end()?;
            last.expect_pass().with_context(|| name.to_owned())?;
            ensure!(last.out.ends_with("count 100\nPASS\n") && !last.out.contains("count 1\n"), "{first:#?} {last:#?}");
        }
        Ok(())
    })
}
