//! The program's clocks go on from their saved values, in a time namespace that it is born into.
//!
//! After a reboot, or on another machine, `CLOCK_MONOTONIC` stands lower, and what a runtime keeps of it in its own memory (timers of Go, Java,
//! Node, Python's asyncio) would wait for as long as the old machine had been up. Must never take rights away from a process that has some: a
//! user namespace is for one that has none.

use image_format::ExitCode;
use image_format::record::header::Header;
use loader::options::Clock;
use state::restart::{Error, Result};
use sys::abi::{CLOCK_BOOTTIME, CLOCK_MONOTONIC};
use sys::namespace::Kinds;
use sys::text::Line;
use sys::{Errno, credentials, namespace};

use super::namespaces::write;
use crate::start::tell;

const SECOND: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME at the save, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clocks([(usize, u64); 2]);

impl Clocks {
    /// Of an image.
    pub fn of(header: &Header) -> Self {
        Self([(CLOCK_MONOTONIC, header.monotonic_nsec.get()), (CLOCK_BOOTTIME, header.boottime_nsec.get())])
    }

    /// How far this machine's stand below them, in nanoseconds.
    fn ahead(self) -> u64 {
        self.0.iter().fold(0, |most, (clock, saved)| most.max(saved.saturating_sub(sys::time::nanoseconds(*clock))))
    }

    /// Whether they are to go on, and can. Where they should and cannot, standard error says so.
    ///
    /// # Errors
    /// They must, and cannot.
    pub fn go_on(self, wish: Clock) -> Result<bool> {
        let ahead = self.ahead();
        if wish == Clock::New || wish == Clock::Auto && ahead == 0 {
            return Ok(false);
        }
        let Err(why) = possible() else { return Ok(true) };
        if wish == Clock::Keep {
            return Err(refused(why));
        }
        let seconds = ahead / SECOND;
        let mut line = Line::new();
        let mut add = |pattern, number| line.fill(pattern, number, b"", 0);
        add("clocks: this machine's stand # d ", seconds / 86_400);
        add("# h ", seconds / 3600 % 24);
        add("# min ", seconds / 60 % 60);
        add(
            "# s below the program's, for which timers of its runtime (Go, Java, Node, asyncio) may wait longer: ",
            seconds % 60,
        );
        add(why, 0);
        tell(2, "@", 0, line.as_bytes(), 0);
        Ok(false)
    }

    /// Makes the clocks of a time namespace in which nobody is yet go on from these values.
    ///
    /// # Errors
    /// The kernel's word.
    pub fn set(self) -> Result<()> {
        let mut text = Line::new();
        let mut add = |name: &'static str, (clock, saved): (usize, u64)| {
            let now = sys::time::nanoseconds(clock);
            text.push(name.as_bytes());
            // What lies beyond whole seconds counts upwards, below 0 too.
            let (sign, seconds, rest) = match saved.checked_sub(now) {
                Some(ahead) => (" # ", ahead / SECOND, ahead % SECOND),
                None => {
                    let behind = now - saved;
                    (" -# ", behind.div_ceil(SECOND), (SECOND - behind % SECOND) % SECOND)
                }
            };
            text.fill(sign, seconds, b"", 0);
            text.fill("#\n", rest, b"", 0);
        };
        let [monotonic, boottime] = self.0;
        add("monotonic", monotonic);
        add("boottime", boottime);
        write(c"/proc/self/timens_offsets", text.as_bytes())
    }
}

/// Whether this process may have a time namespace, at the cost of no rights.
fn possible() -> core::result::Result<(), &'static str> {
    const NO_NAMESPACE: &str = "a time namespace cannot be made";
    if namespace::may_unshare(Kinds::TIME).is_ok() {
        return Ok(());
    }
    if credentials::capabilities().is_ok_and(|[effective, ..]| effective != 0) {
        return Err(
            "a time namespace takes the capability SYS_ADMIN, and who has others would lose them in a user namespace",
        );
    }
    namespace::may_unshare(Kinds::TIME | Kinds::USER).map_err(|_| NO_NAMESPACE)
}

fn refused(why: &'static str) -> Error {
    let what = "clocks: cannot go on: @: --clock new leaves this machine's";
    Error::about(ExitCode::Kernel, what, 0u32, why.as_bytes(), None)
}

/// What is said where the program gets this very process's id, so that no other one is born.
pub fn in_place(wish: Clock) -> Result<()> {
    const WHY: &str = "cannot go on, as the program gets this very process's id";
    if wish == Clock::Keep {
        let what = "clocks: @: restart it from another process";
        return Err(Error::about(ExitCode::Kernel, what, 0u32, WHY.as_bytes(), None));
    }
    tell(2, "clocks: @", 0, WHY.as_bytes(), 0);
    Ok(())
}

/// The kernel's word about a clock's file.
pub fn failed(path: &core::ffi::CStr, e: Errno) -> Error {
    let what = "@: cannot be written (!): --clock new leaves this machine's, --pid new needs no namespace";
    Error::about(ExitCode::Kernel, what, 0u32, path.to_bytes(), e)
}
