//! What `/proc` tells of a stopped thread.

use image_format::seal::Sum;
use sys::text::Text;

/// Lines that tell a thread's credentials.
const CREDENTIALS: [&[u8]; 8] = [b"Uid", b"Gid", b"Groups", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb"];

/// What `/proc` tells of a stopped thread, read at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// Its id in its own, innermost pid namespace.
    pub own: i32,
    /// Some seccomp filter or mode applies to it.
    pub filtered: bool,
    /// It is strict mode.
    pub strict: bool,
    /// How many filters it has; `None`: the kernel does not tell (before Linux 5.9).
    pub filters: Option<u64>,
    /// Capabilities that it has, or could get.
    pub capabilities: u64,
    /// What it executes gets no privilege.
    pub no_new_privs: bool,
    /// The process has locked memory.
    pub locks_memory: bool,
    /// Its address space, KiB.
    pub size: u64,
    /// What of it is in memory, KiB.
    pub resident: u64,
    /// How many threads the process has.
    pub threads: u64,
    /// Signals that wait, for it or for the process.
    pub waiting: u64,
    /// Signals that it blocks.
    pub blocked: Option<u64>,
    /// Signals with handlers.
    pub caught: u64,
    /// A checksum of its credentials; `None`: they are longer than what is read.
    pub credentials: Option<u64>,
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(tid: i32) -> sys::Result<Self> {
        let mut buffer = [0; 4096];
        let path = Text::<32>::of(format_args!("/proc/{tid}/status"));
        let mut lines = sys::fs::Lines::open_at(sys::abi::AT_FDCWD, path.as_c_str(), &mut buffer)?.pass_long().whole();
        let mut status = Self { own: tid, ..Self::default() };
        let (mut credentials, mut all) = (Sum::new(), 0);
        while let Some(line) = lines.next_line()? {
            let Some((key, value)) = sys::text::cut(line, b':') else { continue };
            let value = value.trim_ascii();
            let set = || sys::text::hex(value);
            if CREDENTIALS.contains(&key) {
                credentials.update(line);
                all += 1;
            }
            match key {
                b"NSpid" => {
                    let own = sys::text::words(value).last().and_then(sys::text::decimal);
                    status.own = own.and_then(|n| i32::try_from(n).ok()).unwrap_or(tid);
                }
                b"Seccomp" => (status.filtered, status.strict) = (value != b"0", value == b"1"),
                b"Seccomp_filters" => status.filters = sys::text::decimal(value),
                b"CapPrm" | b"CapBnd" => status.capabilities |= set().unwrap_or(u64::MAX),
                b"NoNewPrivs" => status.no_new_privs = value == b"1",
                b"VmSize" => status.size = first_number(value),
                b"VmRSS" => status.resident = first_number(value),
                b"Threads" => status.threads = sys::text::decimal(value).unwrap_or(0),
                b"VmLck" => status.locks_memory = !value.starts_with(b"0 "),
                b"SigPnd" | b"ShdPnd" => status.waiting |= set().unwrap_or(0),
                b"SigBlk" => status.blocked = set(),
                b"SigCgt" => status.caught = set().unwrap_or(0),
                _ => {}
            }
        }
        status.credentials = (all == CREDENTIALS.len()).then(|| credentials.digest());
        Ok(status)
    }
}

fn first_number(value: &[u8]) -> u64 {
    sys::text::words(value).next().and_then(sys::text::decimal).unwrap_or(0)
}
