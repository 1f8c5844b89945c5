//! Servers and their clients: ports, connections, and a network of a test's own, in which it may let nothing through.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::UnshareFlags;

use crate::own;
use crate::wait::patience;

/// A port that nobody has just now.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A connection, as soon as somebody listens.
///
/// # Errors
/// Nobody does in time.
pub fn connect(port: u16) -> Result<TcpStream> {
    let deadline = Instant::now() + patience();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(patience()))?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > deadline => return Err(e).context("nobody listens"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Sends a request and reads until this text has come.
///
/// # Errors
/// It does not come.
pub fn ask(stream: &mut TcpStream, request: &str, until: &str) -> Result<()> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !answer.contains(until) {
        let got = stream.read(&mut buffer).with_context(|| answer.clone())?;
        ensure!(got != 0, "the connection ended behind {answer:?}, without {until:?}");
        answer += &String::from_utf8_lossy(&buffer[..got]);
    }
    Ok(())
}

/// Whether this user may keep a connection (`--tcp keep`), and make a network; says so if not.
#[must_use]
pub fn may_keep() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let may = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & NET_ADMIN != 0);
    if !may {
        println!("SKIPPED: connections are kept for CAP_NET_ADMIN alone");
    }
    may
}

/// Runs a test in a network of its own, with nothing but a loopback device.
///
/// # Errors
/// The test's own; this kernel makes no such network.
pub fn in_own_network(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    own::inside(UnshareFlags::NEWNET, || {
        must(Command::new("busybox").args(["ifconfig", "lo", "up"]))?;
        test()
    })
}

/// While it lives, nothing comes to this port: in a network of its own alone.
#[derive(Debug)]
pub struct Silence {
    port: u16,
}

impl Silence {
    /// Begins it.
    ///
    /// # Errors
    /// This kernel has no filters.
    pub fn at(port: u16) -> Result<Self> {
        rule("-I", port)?;
        Ok(Self { port })
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// The rule is gone.
    pub fn end(self) -> Result<()> {
        rule("-D", self.port)
    }
}

/// What `docs/limits.md` tells users to do.
fn rule(what: &str, port: u16) -> Result<()> {
    let iptables = ["/usr/sbin/iptables", "/sbin/iptables"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(iptables.context("iptables is not installed (see tests/packages.txt)")?);
    must(command.args([what, "INPUT", "-p", "tcp", "--dport", &port.to_string(), "-j", "DROP"]))
}

fn must(command: &mut Command) -> Result<()> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
