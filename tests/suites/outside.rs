//! TCP connections to a process that is not saved: carried by `ckpt save --kill --tcp keep`, which takes root.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use ckpt_tests::net::may_keep;
use ckpt_tests::{Job, Place, User};

/// Bytes that the guest awaits in all.
const ALL: usize = 50_000;

/// As in the guest: the byte at `index` of area `area`.
fn pattern(area: u64, index: usize) -> u8 {
    let x = area.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add((index as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    ((x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
}

/// The guest's peer, which has sent all and read nothing.
struct Peer {
    place: Place,
    stream: TcpStream,
}

/// `None`: this machine has no such addresses.
fn begin(address: &str, user: User) -> Result<Option<(Peer, Job)>> {
    let Ok(listener) = TcpListener::bind((address, 0)) else { return Ok(None) };
    let place = Place::new(user)?;
    let port = listener.local_addr()?.port();
    let job = Job::start(place.command(place.guest("outside")?).args([address, &port.to_string()]))?;
    let (mut stream, _) = listener.accept()?;
    stream.write_all(&(0..ALL).map(|i| pattern(2, i)).collect::<Vec<_>>())?;
    job.wait_text("ready ")?;
    Ok(Some((Peer { place, stream }, job)))
}

impl Peer {
    /// Both read to the end, and find all as it was sent.
    fn end(self, mut job: Job) -> Result<()> {
        let Self { place, mut stream } = self;
        place.go()?;
        // A reader's kernel tells of the new room, and finds nobody before.
        job.wait_text("goes on")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).with_context(|| format!("after {} bytes", bytes.len()))?;
            let wrong = bytes.iter().enumerate().find(|(i, byte)| **byte != pattern(1, *i));
            ensure!(wrong.is_none(), "byte {wrong:?} differs");
            Ok(bytes.len())
        });
        let ended = job.end()?;
        let read = reader.join().map_err(|_| anyhow!("the peer panicked"))?;
        let read = read.with_context(|| format!("{ended:#?}"))?;
        ensure!(ended.out.ends_with(&format!("sent {read}\nPASS\n")), "{read} bytes came: {ended:#?}");
        Ok(())
    }
}

#[test]
fn goes_on_after_a_kill() -> Result<()> {
    for address in ["127.0.0.1", "::1"] {
        let Some((peer, mut job)) = begin(address, User::Own)?.filter(|_| may_keep()) else { continue };
        let image = peer.place.file("job.ckpt");
        for _ in 0..3 {
            peer.place.save(job.pid(), &image, &["--kill", "--tcp", "keep"]).with_context(|| job.story())?;
            drop(job.end()?);
            job = Job::start(&mut peer.place.stub(&image))?;
        }
        peer.end(job).context(address)?;
    }
    Ok(())
}

/// The process goes on when its image cannot be written, and so does its connection.
#[test]
fn goes_on_after_a_failed_save() -> Result<()> {
    let Some((peer, job)) = begin("127.0.0.1", User::Own)?.filter(|_| may_keep()) else { return Ok(()) };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let mut command = peer.place.ckpt();
    command.args(["save", &job.pid().to_string(), "-o", "-", "--kill", "--tcp", "keep"]).stdout(full);
    let status = command.stderr(Stdio::null()).status()?;
    ensure!(!status.success(), "written to /dev/full");
    peer.end(job)
}

/// And when its saver is killed in the middle of its work.
#[test]
fn goes_on_after_the_savers_end() -> Result<()> {
    let Some((peer, job)) = begin("127.0.0.1", User::Own)?.filter(|_| may_keep()) else { return Ok(()) };
    let mut command = peer.place.ckpt();
    command.args(["save", &job.pid().to_string(), "-o", "-", "--kill", "--tcp", "keep"]);
    let mut saver = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    // What has come of the image was written with the connection held; the rest does not fit into a pipe.
    let mut head = [0; 4096];
    saver.stdout.as_mut().context("no pipe")?.read_exact(&mut head)?;
    saver.kill()?;
    saver.wait()?;
    peer.end(job)
}

#[test]
fn refusals() -> Result<()> {
    User::each(|user| {
        let Some((peer, job)) = begin("127.0.0.1", user)? else { return Ok(()) };
        let image = peer.place.file("job.ckpt");
        let live = peer.place.try_save(job.pid(), &image, &["--tcp", "keep"])?;
        ensure!(live.code() == Some(64) && live.err.contains("--kill"), "{live:#?}");
        if !(may_keep() && user == User::Own) {
            let refused = peer.place.try_save(job.pid(), &image, &["--tcp", "keep", "--kill"])?;
            ensure!(refused.code() == Some(88) && refused.err.contains("CAP_NET_ADMIN"), "{refused:#?}");
        }
        peer.end(job)
    })
}
