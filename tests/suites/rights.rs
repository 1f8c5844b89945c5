//! Root that restarts another user's image gets that user's process, with the ids, groups and capabilities that it had; root's own only where
//! root says so.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, left_out};
use rustix::process::Signal;

/// Tells the credentials of both of its threads, before and after: the one that waits, and one that is there all the time.
const SCRIPT: &str = "import os, threading, time
def own():
    return [line.split() for line in open('/proc/thread-self/status') if line[:3] in ('Uid', 'Gid', 'Gro', 'Cap')]
def until(file):
    while not os.path.exists(file): time.sleep(0.001)
def other():
    print('before', own(), flush=True); told.set(); until('go'); print('after', own(), flush=True)
told = threading.Event(); thread = threading.Thread(target=other); thread.start(); told.wait()
print('before', own(), flush=True); print('ready', flush=True)
until('go'); thread.join(); print('after', own(), flush=True); print('PASS', flush=True)
";

/// The same of a process and a child of it.
const TREE: &str = "import os, time
def own():
    return [line.split() for line in open('/proc/self/status') if line[:3] in ('Uid', 'Gid', 'Gro', 'Cap')]
def until(file):
    while not os.path.exists(file): time.sleep(0.001)
r, w = os.pipe()
child = os.fork()
print('before', own(), flush=True)
if child == 0:
    os.write(w, b'x'); until('go'); print('after', own(), flush=True); os._exit(0)
os.read(r, 1); print('ready', flush=True)
until('go'); os.waitpid(child, 0); print('after', own(), flush=True); print('PASS', flush=True)
";

/// A script as nobody, in a group more than that user has, with a capability fewer to be had.
const fn as_nobody(script: &str) -> [&str; 8] {
    let (user, group, groups) = ("--reuid=65534", "--regid=65534", "--groups=100,65534");
    [user, group, groups, "--inh-caps=-all", "--bounding-set=-net_raw", "/usr/bin/python3", "-c", script]
}

/// What the credentials of nobody begin with, and those of root.
const NOBODYS: &str = "[['Uid:', '65534', '65534', '65534', '65534']";
const ROOTS: &str = "[['Uid:', '0', '0', '0', '0']";

fn setpriv() -> Result<std::path::PathBuf> {
    left_out::unless_root("only root can restart another user's process")?;
    tool("python3", "python3")?;
    tool("setpriv", "util-linux")
}

fn told<'t>(out: &'t str, when: &str) -> Vec<&'t str> {
    out.lines().filter_map(|line| line.strip_prefix(when)).map(str::trim).collect()
}

/// A started script's words are those of nobody; it is saved by `ckpt save` of this user, which ends it.
fn saved_as(place: &Place, saver: User, image: &Path, script: &str) -> Result<String> {
    let mut job = Job::start(place.command(setpriv()?).args(as_nobody(script)))?;
    job.wait_line(READY)?;
    let before = job.out();
    ensure!(told(&before, "before").iter().all(|own| own.starts_with(NOBODYS)), "{before}");
    let mut save = match saver {
        User::Nobody => {
            let mut save = place.command(setpriv()?);
            save.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(place.bin().join("ckpt"));
            save
        }
        User::Own => place.ckpt(),
    };
    save.arg("save").arg(job.pid().to_string()).arg("--kill").arg("-o").arg(image);
    Job::start(&mut save)?.end()?.expect_code(0)?;
    job.end()?;
    Ok(before)
}

/// Both threads have what they had before.
fn is_as_before(before: &str, ended: &Ended) -> Result<()> {
    ended.expect_pass()?;
    ensure!(told(&ended.out, "after") == told(before, "before"), "{before}{ended:#?}");
    Ok(())
}

fn is_roots(ended: &Ended) -> Result<()> {
    ended.expect_pass()?;
    let after = told(&ended.out, "after");
    ensure!(after.len() == 2 && after.iter().all(|own| own.starts_with(ROOTS)), "{ended:#?}");
    Ok(())
}

fn restart(place: &Place, image: &Path, options: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.arg("restart").args(options).arg(image);
    command
}

fn check(place: &Place, image: &Path, options: &[&str]) -> Result<Ended> {
    Job::start(place.ckpt().arg("check").args(options).arg(image))?.end()
}

#[test]
fn an_image_that_root_made_of_another_users_process() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let before = saved_as(&place, User::Own, &image, SCRIPT)?;
    place.go()?;
    for options in [&[][..], &["--pid", "new"], &["--namespace"]] {
        let context = || format!("{options:?}");
        let ended = Job::start(place.stub(&image).args(options))?.end()?;
        is_as_before(&before, &ended).with_context(context)?;
        is_as_before(&before, &Job::start(&mut restart(&place, &image, options))?.end()?).with_context(context)?;
    }
    is_roots(&Job::start(place.stub(&image).arg("--as-root"))?.end()?)?;
    is_roots(&Job::start(&mut restart(&place, &image, &["--as-root"]))?.end()?)?;
    let foretold = check(&place, &image, &[])?;
    foretold.expect_code(0)?;
    ensure!(
        foretold.out.contains(": user 65534, group 65534, groups 100 65534, capabilities 0x0, as saved\n"),
        "{foretold:#?}"
    );
    ensure!(!check(&place, &image, &["--as-root"])?.out.contains("user"), "{foretold:#?}");
    Ok(())
}

/// All of its processes.
#[test]
fn a_tree_of_another_users_processes() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let before = saved_as(&place, User::Own, &image, TREE)?;
    place.go()?;
    is_as_before(&before, &Job::start(&mut place.stub(&image))?.end()?)?;
    is_as_before(&before, &Job::start(&mut restart(&place, &image, &[]))?.end()?)?;
    is_roots(&Job::start(place.stub(&image).arg("--as-root"))?.end()?)
}

#[test]
fn an_image_of_another_user() -> Result<()> {
    let place = Place::new(User::Own)?;
    let dir = place.file("theirs");
    std::fs::create_dir(&dir)?;
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534))?;
    let image = dir.join("job.ckpt");
    let before = saved_as(&place, User::Nobody, &image, SCRIPT)?;
    place.go()?;
    let refused = Job::start(&mut place.stub(&image))?.end()?;
    refused.expect_code(78)?;
    ensure!(refused.out.is_empty() && refused.err.contains("belongs to another user"), "{refused:#?}");
    is_as_before(&before, &Job::start(place.stub(&image).arg("--trust"))?.end()?)?;
    is_as_before(&before, &Job::start(&mut restart(&place, &image, &["--trust"]))?.end()?)
}

/// A process in a user namespace of its own: its ids outside are not the ones that it has.
#[test]
fn whose_rights_nobody_can_tell() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut command = place.command(setpriv()?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(tool("unshare", "util-linux")?);
    let mut job = Job::start(command.args(["--user", "/usr/bin/python3", "-c", SCRIPT]))?;
    if job.wait_line(READY).is_err() {
        let why = "user namespaces are forbidden";
        return Err(left_out::whole(left_out::Needs::Machine, why));
    }
    place.save(job.pid(), &image, &["--kill"])?;
    job.end()?;
    place.go()?;
    let refused = Job::start(&mut place.stub(&image))?.end()?;
    refused.expect_code(80)?;
    ensure!(refused.out.is_empty() && refused.err.contains("--as-root"), "{refused:#?}");
    let foretold = check(&place, &image, &[])?;
    foretold.expect_code(80)?;
    let said = refused.err.trim_end().strip_prefix("restart-stub: ").unwrap_or_default();
    ensure!(foretold.out.lines().any(|line| line == said), "{refused:#?} {foretold:#?}");
    check(&place, &image, &["--as-root"])?.expect_code(0)?;
    is_roots(&Job::start(place.stub(&image).arg("--as-root"))?.end()?)
}

/// `ckpt run` as root of a job that gives root's rights away.
#[test]
fn a_job_that_has_become_another_user() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let run = |options: &[&str]| {
        let mut command = place.ckpt();
        command.args(["run", "-o", "job.ckpt"]).args(options).arg("--").arg(setpriv()?).args(as_nobody(SCRIPT));
        Job::start(&mut command)
    };
    let mut job = run(&[])?;
    job.wait_line(READY)?;
    let before = job.out();
    job.send(Signal::TERM)?;
    job.end()?.expect_code(85)?;
    let copy = place.file("copy.ckpt");
    std::fs::copy(&image, &copy)?;
    place.go()?;
    is_as_before(&before, &run(&[])?.end()?)?;
    // It is done: once more from there.
    std::fs::rename(&copy, &image)?;
    is_roots(&run(&["--as-root"])?.end()?)
}
