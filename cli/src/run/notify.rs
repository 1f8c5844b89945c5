//! What systemd wants to know of a service of `Type=notify` (sd_notify(3)): that it runs, how it is, that it lives, that it is being ended.
//!
//! Must never wait for anybody, nor say a word where nobody asks (`NOTIFY_SOCKET` is not set).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How often it is asked for more time while a program is saved for its end.
const EXTEND: Duration = Duration::from_secs(5);

/// For how long that is.
const EXTENSION: Duration = Duration::from_secs(30);

/// The socket that somebody listens at, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often a sign of life is awaited, half of that.
    watchdog: Option<Duration>,
    next: Option<Instant>,
    ending: bool,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let address = |name: &[u8]| match name.split_first() {
            Some((b'@', rest)) => SocketAddr::from_abstract_name(rest).ok(),
            _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        };
        let open = |name: std::ffi::OsString| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address(name.as_bytes())?))
        };
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 1 && is_ours);
        Self {
            to: std::env::var_os("NOTIFY_SOCKET").and_then(open),
            watchdog: watchdog.map(|usec| Duration::from_micros(usec / 2)),
            ..Self::default()
        }
    }

    fn send(&self, words: &str) {
        if let Some((socket, to)) = &self.to {
            // Nobody may listen any more.
            let _ = socket.send_to_addr(words.as_bytes(), to);
        }
    }

    /// The program runs.
    pub fn ready(&mut self) {
        self.send("READY=1");
        self.tick();
    }

    /// One line about how it is.
    pub fn status(&self, words: &str) {
        self.send(&format!("STATUS={}", words.replace('\n', " ")));
    }

    /// It is being saved for its end.
    pub fn ends(&mut self) {
        self.send("STOPPING=1");
        self.ending = true;
        self.tick();
    }

    /// When [`Notify::tick`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// The time has come.
    pub fn tick(&mut self) {
        if self.to.is_none() {
            return;
        }
        let mut every = self.watchdog;
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
        if self.ending {
            self.send(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
            every = Some(every.map_or(EXTEND, |watchdog| watchdog.min(EXTEND)));
        }
        self.next = every.map(|every| Instant::now() + every);
    }
}
