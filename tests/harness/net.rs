//! Servers and their clients: ports, connections, and a network of a test's own, in which it may let nothing through.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::UnshareFlags;

use crate::left_out::{self, Needs};
use crate::own;
use crate::programs::tool;
use crate::wait::timeout;

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
    let deadline = Instant::now() + timeout();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout()))?;
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
        left_out::in_part(Needs::Root, NOT_KEPT);
    }
    may
}

/// Whether nftables has a table of this name, of any family.
///
/// # Errors
/// This kernel has none.
pub fn has_table(name: &str) -> Result<bool> {
    // struct nlmsghdr: NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP; struct nfgenmsg.
    let request = [20, 0, 0, 0, 1, 10, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const DONE: u8 = 3;
    let [family, kind, netfilter] = [16, 3 | 0o2_000_000, 12];
    let socket = sys::socket::make(family, kind, netfilter).map_err(|e| anyhow!("netfilter: {e}"))?;
    let mut answer = vec![0; 1 << 16];
    let mut len = sys::socket::ask(socket.fd(), &request, &mut answer).map_err(|e| anyhow!("netfilter: {e}"))?;
    let mut found = false;
    loop {
        let part = answer.get(..len).context("a longer answer")?;
        found |= part.windows(name.len() + 1).any(|bytes| bytes == [name.as_bytes(), &[0]].concat());
        let mut rest = part;
        while let Some(size) =
            rest.first_chunk().map(|size| u32::from_le_bytes(*size) as usize).filter(|size| *size != 0)
        {
            if rest.get(4) == Some(&DONE) {
                return Ok(found);
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        len = sys::socket::more(socket.fd(), &mut answer).map_err(|e| anyhow!("netfilter: {e}"))?;
    }
}

const NOT_KEPT: &str = "connections are kept for CAP_NET_ADMIN alone";

/// For a test that does nothing else than keep connections.
///
/// # Errors
/// [`left_out::LeftOut`]: this user may not.
pub fn unless_kept() -> Result<()> {
    if may_keep() { Ok(()) } else { Err(left_out::whole(Needs::Root, NOT_KEPT)) }
}

/// Runs a test in a network of its own, with nothing but a loopback device.
///
/// # Errors
/// The test's own; this kernel makes no such network.
pub fn in_own_network(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    own::inside(UnshareFlags::NEWNET, || {
        must(Command::new(tool("busybox", "busybox-static")?).args(["ifconfig", "lo", "up"]))?;
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
    let mut command = Command::new(tool("iptables", "iptables")?);
    must(command.args([what, "INPUT", "-p", "tcp", "--dport", &port.to_string(), "-j", "DROP"]))
}

fn must(command: &mut Command) -> Result<()> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
