//! Sockets whose other side is not saved, and what a save with `--kill` leaves of them for others and for the restart.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use ckpt_tests::net::{ask, connect, free_port, in_own_network};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, wait};

/// What had come is read before the reset, and an end that had come is one.
#[test]
fn what_had_come_before_tcp_close() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut command = place.command(place.guest("outsiders")?);
        let mut job = Job::start(command.arg(listener.local_addr()?.port().to_string()))?;
        let mut peers = Vec::new();
        for state in 0..5 {
            let (mut peer, _) = listener.accept()?;
            peer.write_all(b"data")?;
            match state {
                1 => peer.shutdown(Shutdown::Write)?,
                // When the guest has closed its half.
                4 => ensure!(peer.read(&mut [0])? == 0, "not the end"),
                _ => {}
            }
            peers.push(peer);
        }
        drop(peers.pop());
        job.wait_line(ckpt_tests::READY)?;
        for generation in 0..3 {
            place.save(job.pid(), &image, &["--tcp", "close", "--kill"]).with_context(|| job.story())?;
            drop(job.end()?);
            if generation == 0 {
                // It did not learn of more than the end that the kernel makes of every process's connections.
                let mut answer = [0; 7];
                let busy = peers.get_mut(3).context("no such peer")?;
                let got = busy.read(&mut answer)?;
                ensure!(answer.get(..got) == Some(b"answer"), "the peer has lost what was sent to it: {answer:?}");
            }
            job = Job::start(&mut place.stub(&image))?;
        }
        place.go()?;
        job.end()?.expect_pass()
    })
}

/// A server that lets nobody share its port, and closes connections first, is restarted at once, again and again: an end like any other
/// would keep the port for a minute.
const SERVER: &str = "import os, socket, sys\n\
    l = socket.socket(); l.bind(('127.0.0.1', int(sys.argv[1]))); l.listen(8)\n\
    inner = socket.socket(); inner.bind(('127.0.0.1', 0)); inner.listen(1)\n\
    a = socket.create_connection(inner.getsockname()); b, _ = inner.accept()\n\
    if len(sys.argv) > 2: inner.close()\n\
    n = 0\n\
    print('ready', flush=True)\n\
    while True:\n    \
        c, _ = l.accept(); line = c.recv(9)\n    \
        n += 1; a.send(b'x'); b.recv(1)\n    \
        c.send(b'answer %d.' % n)\n    \
        if line == b'keep': kept = c\n    \
        else: c.shutdown(socket.SHUT_WR); c.recv(1); c.close()";

#[test]
fn ports_are_free_at_once() -> Result<()> {
    User::each(|user| {
        for closed in [&[][..], &["closed"]] {
            let (place, port) = (Place::new(user)?, free_port()?);
            let image = place.file("server.ckpt");
            let mut command = place.command(tool("python3", "python3")?);
            let mut job = Job::start(command.args(["-c", SERVER]).arg(port.to_string()).args(closed))?;
            job.wait_line("ready")?;
            for round in 0..6u32 {
                // One that is over, the rest of which the server's kernel has, and one that is open.
                over(port, 2 * round + 1).with_context(|| format!("round {round}: {}", job.story()))?;
                let mut kept = connect(port)?;
                ask(&mut kept, "keep", &format!("answer {}.", 2 * round + 2))?;
                place.save(job.pid(), &image, &["--tcp", "close", "--kill"]).with_context(|| job.story())?;
                drop(job.end()?);
                ensure!(!matches!(kept.read(&mut [0]), Ok(1)), "a killed server goes on talking");
                job = Job::start(&mut place.stub(&image))?;
            }
            over(port, 13).with_context(|| job.story())?;
            job.kill()?;
        }
        Ok(())
    })
}

/// Asks, and waits until the server has closed; what is left of the connection is the server's then.
fn over(port: u16, answer: u32) -> Result<()> {
    let mut stream = connect(port)?;
    ask(&mut stream, "over", &format!("answer {answer}."))?;
    ensure!(stream.read(&mut [0])? == 0, "the server has not closed first");
    drop(stream);
    wait::until(|| Ok((in_time_wait(port)? != 0).then_some(())), || "nothing is left of it".to_owned())
}

/// How many connections are in that state at a port.
fn in_time_wait(port: u16) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let own = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&own)) && fields.nth(1) == Some("06")
    };
    Ok(table.lines().filter(is_one).count())
}

/// Asks a server of its own tree again and again, each time by a new connection; the server closes first.
const CLIENT: &str = "import http.client, os, sys\n\
    n, data = 0, open('data', 'rb').read()\n\
    while not os.path.exists('go'):\n    \
        c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n    \
        try: c.request('GET', '/data')\n    \
        except ConnectionRefusedError:\n        \
            if n: raise\n        \
            continue\n    \
        assert c.getresponse().read() == data\n    \
        c.close(); n += 1\n    \
        if n % 10 == 0: print('asked', flush=True)\n\
    print('PASS')";

/// A job of a server and its client is stopped as a scheduler does it, and goes on at once, again and again.
#[test]
fn a_job_with_a_server_goes_on_at_once() -> Result<()> {
    const SCRIPT: &str = "$0 -m http.server $1 --bind 127.0.0.1 >server.log 2>&1 & server=$!\n\
        $0 -c \"$2\" $1; status=$?; kill $server; wait $server; exit $status";
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?.to_string());
        place.write("data", vec![b'd'; 300_000])?;
        let python = tool("python3", "python3")?;
        let run = || {
            let mut command = place.ckpt();
            command.args(["run", "-o", "job.ckpt", "--", "sh", "-c", SCRIPT]).arg(&python).args([&*port, CLIENT]);
            Job::start(&mut command)
        };
        for round in 0..4 {
            let mut job = run()?;
            job.wait_line("asked").with_context(|| format!("round {round}: {}", job.story()))?;
            job.send(rustix::process::Signal::TERM)?;
            job.end()?.expect_code(85).with_context(|| format!("round {round}"))?;
        }
        let mut job = run()?;
        job.wait_line("asked").with_context(|| job.story())?;
        place.go()?;
        job.end()?.expect_pass()
    })
}

/// Holds a port, which nobody else may share, and a file's lock. Whoever asks closes first: nothing is left of that here.
const HOLDER: &str = "import fcntl, socket, sys\n\
    l = socket.socket(); l.bind(('127.0.0.1', int(sys.argv[1]))); l.listen(8)\n\
    f = open('locked', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n\
    print('ready', flush=True)\n\
    while True: c, _ = l.accept(); c.recv(9); c.send(b'here.'); c.recv(1); c.close()";

/// What a killed job, or its successor, still has is waited for, if that was asked for; the wait is said, and ends when it is free.
#[test]
fn what_another_process_has_is_waited_for() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let image = place.file("job.ckpt");
        let mut command = place.command(tool("python3", "python3")?);
        let mut job = Job::start(command.args(["-c", HOLDER]).arg(port.to_string()))?;
        job.wait_line("ready")?;
        place.save(job.pid(), &image, &["--kill"]).with_context(|| job.story())?;
        drop(job.end()?);

        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let refused = Job::start(&mut place.stub(&image))?.end()?;
        ensure!(refused.code() == Some(84) && !refused.err.contains("waits"), "{refused:#?}");
        let mut command = place.stub(&image);
        let waits = format!("tcp 127.0.0.1:{port}: is in use: waits for 100 s at most");
        let mut job = Job::start(command.args(["--retry", "100"]))?;
        job.wait_err(&waits).with_context(|| job.story())?;
        drop(taken);
        ask(&mut connect(port)?, "anybody", "here.").with_context(|| job.story())?;
        job.send(rustix::process::Signal::KILL)?;
        drop(job.end()?);

        let locked = std::fs::File::open(place.file("locked"))?;
        rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive)?;
        let mut command = place.ckpt();
        command.args(["restart", "--retry", "100s"]).arg(&image);
        let job = Job::start(&mut command)?;
        job.wait_err("a lock: is in use: waits for 100 s at most").with_context(|| job.story())?;
        drop(locked);
        ask(&mut connect(port)?, "anybody", "here.").with_context(|| job.story())?;
        job.kill()?;
        Ok(())
    })
}

/// The same by the library: a signal that saves and ends the program.
#[test]
fn ports_are_free_at_once_after_a_save_that_ends() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let image = place.file("server.ckpt");
        let mut command = place.armed(tool("python3", "python3")?, &image);
        command.env("CKPT_AFTER", "exit");
        let mut job = Job::start(command.args(["-c", SERVER]).arg(port.to_string()))?;
        job.wait_line("ready")?;
        job.wait_armed()?;
        for round in 0..4u32 {
            over(port, round + 1).with_context(|| job.story())?;
            job.send(rustix::process::Signal::USR1)?;
            job.end()?.expect_code(0)?;
            job = Job::start(&mut place.stub(&image))?;
        }
        over(port, 5).with_context(|| job.story())?;
        job.kill()?;
        Ok(())
    })
}

/// A peer reads all that was sent to it, and then the end: `--tcp close` is a reset for the program alone.
#[test]
fn the_peer_gets_what_was_sent() -> Result<()> {
    const SENDER: &str = "import socket, sys, time\n\
        c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        c.sendall(b'x' * 100000); print('ready', flush=True); time.sleep(999)";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut command = place.command(tool("python3", "python3")?);
        let mut job = Job::start(command.args(["-c", SENDER]).arg(listener.local_addr()?.port().to_string()))?;
        let (mut peer, _): (TcpStream, _) = listener.accept()?;
        job.wait_line("ready")?;
        place.save(job.pid(), &image, &["--tcp", "close", "--kill"])?;
        drop(job.end()?);
        let mut all = Vec::new();
        peer.read_to_end(&mut all)?;
        ensure!(all.len() == 100_000, "{} bytes came", all.len());
        Ok(())
    })
}

/// Sockets for pings, which the network lets all users have here, beside those that root alone may have.
#[test]
fn below_udp() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root makes a network");
        return Ok(());
    }
    in_own_network(|| {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
        User::each(|user| {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(&mut place.command(place.guest("rawsockets")?))?;
            job.wait_line(ckpt_tests::READY)?;
            ensure!(job.out().contains("has ping\n"), "{}", job.story());
            ensure!(user == User::Nobody || job.out().contains("has packet\n"), "{}", job.story());
            for _ in 0..3 {
                place.save(job.pid(), &image, &["--kill"]).with_context(|| job.story())?;
                drop(job.end()?);
                job = Job::start(&mut place.stub(&image))?;
            }
            place.go()?;
            job.end()?.expect_pass()
        })
    })
}
