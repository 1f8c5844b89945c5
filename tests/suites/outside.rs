//! TCP connections to a process that is not saved: carried by `ckpt save --kill --tcp keep`, which takes root.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use ckpt_tests::net::{has_table, may_keep};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, left_out, wait};

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

/// Connections in every state, and what the other side sends while nobody has its peer's address: nothing is lost, and nobody is told
/// that the connection is gone.
#[test]
fn every_state_is_kept() -> Result<()> {
    for address in ["127.0.0.1", "::1"] {
        let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
        if !may_keep() {
            return Ok(());
        }
        let place = Place::new(User::Own)?;
        let image = place.file("job.ckpt");
        let mut command = place.command(place.guest("keptends")?);
        let mut job = Job::start(command.args([address, &listener.local_addr()?.port().to_string()]))?;
        let mut peers = Vec::new();
        for state in 0..5 {
            let (mut peer, _) = listener.accept()?;
            if state != 3 {
                peer.write_all(b"data")?;
            }
            if state == 1 {
                peer.shutdown(Shutdown::Write)?;
            }
            peers.push(peer);
        }
        job.wait_line(ckpt_tests::READY)?;
        let sent: usize = job.out().lines().find_map(|l| l.strip_prefix("sent ")).context("how much?")?.parse()?;
        for generation in 0..3 {
            let saved = place.try_save(job.pid(), &image, &["--kill", "--tcp", "keep"])?;
            ensure!(saved.code() == Some(0) && saved.err.contains("5 TCP connections"), "{saved:#?}");
            drop(job.end()?);
            let table = saved.err.split_whitespace().find(|word| word.starts_with("ckpt-")).context("no table")?;
            ensure!(has_table(table)?, "there is no table {table}");
            if generation == 1 {
                for state in [0, 2, 4] {
                    peers[state].write_all(b"more")?;
                    // On this machine a refusal comes at once.
                    ensure!(peers[state].take_error()?.is_none(), "state {state}: the peer was told that it is gone");
                }
            }
            job = Job::start(&mut place.stub(&image))?;
            wait::until(|| Ok((!has_table(table)?).then_some(())), || format!("{table} stays: {}", job.story()))?;
        }
        place.go()?;
        let readers: Vec<_> = peers
            .into_iter()
            .map(|mut peer| {
                std::thread::spawn(move || {
                    let mut all = Vec::new();
                    peer.read_to_end(&mut all).map(|_| all)
                })
            })
            .collect();
        let mut all = Vec::new();
        for reader in readers {
            all.push(reader.join().map_err(|_| anyhow!("a peer panicked"))?.with_context(|| job.story())?);
        }
        for (state, wanted) in [(0, &b"reply"[..]), (1, b"reply"), (2, b""), (4, b"reply")] {
            ensure!(all[state] == wanted, "{address}, state {state}: {:?}", String::from_utf8_lossy(&all[state]));
        }
        let wrong = all[3].iter().enumerate().find(|(i, byte)| **byte != pattern(1, *i));
        ensure!(all[3].len() == sent && wrong.is_none(), "{} of {sent} bytes came: {wrong:?}", all[3].len());
        job.end()?.expect_pass().context(address)?;
    }
    Ok(())
}

/// The peer of a connection, the saver and the restart in a network of an ordinary user's own, who has the right there.
const OWN_NETWORK: &str = "import os, socket, subprocess, sys\n\
    guest, bin, image = sys.argv[1:4]\n\
    subprocess.check_call(['busybox', 'ifconfig', 'lo', 'up'])\n\
    l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(9)\n\
    start = lambda *c: subprocess.Popen(c, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, start_new_session=True)\n\
    p = start(guest, '127.0.0.1', str(l.getsockname()[1])); peers = [l.accept()[0] for _ in range(5)]\n\
    for i in (0, 1, 2, 4): peers[i].sendall(b'data')\n\
    peers[1].shutdown(socket.SHUT_WR)\n\
    sent = int(p.stdout.readline().split()[1]); assert p.stdout.readline() == 'ready\\n'\n\
    for more in (0, 1, 0):\n    \
        subprocess.check_call([bin + '/ckpt', 'save', str(p.pid), '-o', image, '--kill', '--tcp', 'keep']); p.wait()\n    \
        if more: [peers[i].sendall(b'more') for i in (0, 2, 4)]\n    \
        p = start(bin + '/restart-stub', image)\n\
    open(os.environ['GUEST_GO'], 'w').close()\n\
    got = [0] * 5\n\
    for i in (0, 1, 2, 4, 3):\n    \
        while n := len(peers[i].recv(1 << 20)): got[i] += n\n    \
        peers[i].close()\n\
    out = p.communicate(timeout=60)[0]\n\
    print(out.strip(), p.returncode, got == [5, 5, 0, sent, 5], flush=True)";

#[test]
fn kept_in_a_user_namespace() -> Result<()> {
    let user = if rustix::process::geteuid().is_root() { User::Nobody } else { User::Own };
    let place = Place::new(user)?;
    let mut command = place.command(tool("unshare", "util-linux")?);
    command
        .arg("-Urn")
        .arg(tool("python3", "python3")?)
        .args(["-c", OWN_NETWORK])
        .arg(place.guest("keptends")?)
        .arg(place.bin());
    let ended = Job::start(command.arg(place.file("job.ckpt")))?.end()?;
    if ended.err.contains("unshare failed") {
        return Err(left_out::whole(left_out::Needs::Machine, format!("no user namespaces: {}", ended.err.trim())));
    }
    ensure!(ended.out.ends_with("PASS 0 True\n"), "{ended:#?}");
    Ok(())
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
