//! Pseudo-terminals of real programs, saved from outside: under the same names again, with what was on its way.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::wait::until;
use ckpt_tests::{Job, Place, READY, User};
use rustix::fs::OFlags;

/// A number is free from the end of a program to its restart only as long as nobody else makes a terminal.
static ONE: Mutex<()> = Mutex::new(());

/// As each user, one test after the other.
fn each(test: impl Fn(User) -> Result<()>) -> Result<()> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    User::each(test)
}

/// Opens a terminal that does not become this process's own, and does not wait.
fn terminal(path: &Path) -> Result<File> {
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
    Ok(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?)
}

/// Writes into one end, reads the same from the other.
fn through(from: &Path, to: &Path, line: &str) -> Result<()> {
    let (mut from, mut to) = (terminal(from)?, terminal(to)?);
    from.write_all(line.as_bytes())?;
    let mut got = Vec::new();
    let come = || {
        let mut more = [0; 64];
        let new = to.read(&mut more).unwrap_or(0);
        got.extend_from_slice(&more[..new]);
        Ok((got.len() >= line.len()).then_some(()))
    };
    until(come, || format!("{line:?} does not come"))?;
    ensure!(got == line.as_bytes(), "{line:?} came as {:?}", String::from_utf8_lossy(&got));
    Ok(())
}

/// Where both links lead, once they are there.
fn links(place: &Place) -> Result<[PathBuf; 2]> {
    let [a, b] = [place.file("a"), place.file("b")];
    let both = || Ok(fs::read_link(&a).ok().zip(fs::read_link(&b).ok()));
    let (a, b) = until(both, || "no links to the terminals".to_owned())?;
    Ok([a, b])
}

/// The same names again; then a second save, of the restarted one.
#[test]
fn socat_between_two_terminals() -> Result<()> {
    each(|user| {
        let place = Place::new(user)?;
        let [a, b, image] = [place.file("a"), place.file("b"), place.file("job.ckpt")];
        let mut socat = place.command(tool("socat", "socat")?);
        let mut job = Job::start(socat.args(["pty,raw,echo=0,link=a", "pty,raw,echo=0,link=b"]))?;
        let names = links(&place)?;
        through(&a, &b, "before the save\n")?;
        for generation in 1..=2 {
            place.save(job.pid(), &image, &["--kill"])?;
            drop(job.end()?);
            job = Job::start(&mut place.stub(&image))?;
            let name = format!("/proc/{}/comm", job.pid());
            let runs = || Ok((fs::read_to_string(&name)? == "socat\n").then_some(()));
            until(runs, || job.story())?;
            ensure!(links(&place)? == names, "other names in generation {generation}");
            through(&a, &b, "from a to b\n")?;
            through(&b, &a, "from b to a\n")?;
        }
        job.kill().map(drop)
    })
}

/// The program's own terminal is one that it holds both ends of: keys that it types there reach it as signals.
const OWN: &str = r#"
import fcntl, os, signal, termios, time
master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
tty, name, got = os.open('/dev/tty', os.O_RDWR), os.ttyname(slave), []
signal.signal(signal.SIGINT, lambda *_: got.append('INT'))
os.write(slave, b'shown ')
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.001)
assert os.ttyname(slave) == name, 'another name'
assert os.tcgetpgrp(slave) == os.getpgrp(), 'it is in the background'
os.write(tty, b'too\n')
os.write(master, b'\x03')
while not got: time.sleep(0.001)
shown = b''
while not shown.endswith(b'^C'): shown += os.read(master, 100)
assert shown == b'shown too\r\n^C', shown
print('PASS', flush=True)
"#;

#[test]
fn python_with_a_controlling_terminal() -> Result<()> {
    each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut python = place.command(tool("python3", "python3")?);
        let mut job = Job::start(python.args(["-c", OWN]))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        place.go()?;
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()
    })
}
