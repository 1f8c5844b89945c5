//! A process beside the program that does nothing: a SIGTERM that goes to all of a job, as a batch system's, a service manager's or a shutdown's, ends it, and
//! one that goes to `ckpt run` alone does not. So a save for the end knows whether the program may have got it, too.
//!
//! It is in the program's process group, holds nothing open, and ends with this command. Must never be taken for a part of the program.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use sys::abi::signal::{SIGKILL, SIGTERM};
use sys::{child, process, signal};

/// Its process id, for who saves, in a child of this command; 0: there is none.
static PID: AtomicI32 = AtomicI32::new(0);

/// Whether it has ended, or is about to. One that there is not tells nothing.
pub fn was_hit() -> bool {
    /// How often it is looked at, a millisecond apart, until it is asleep or has ended.
    const LOOKS: u32 = 1000;
    let pid = PID.load(Ordering::Relaxed);
    if pid == 0 {
        return false;
    }
    let mut seen_asleep = false;
    for _ in 0..LOOKS {
        match Look::at(pid) {
            Look::Hit => return true,
            // Its signals are told after its state: in between it may have taken one. But then it is never asleep again.
            Look::Asleep if seen_asleep => return false,
            Look::Asleep => seen_asleep = true,
            // It takes a signal, or is on its way to its end, where no signal waits any more (get_signal, kernel/signal.c).
            Look::Awake => {
                seen_asleep = false;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    true
}

/// What one look at it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It sleeps, or is stopped, and no signal to end waits for it.
    Asleep,
    /// It does something.
    Awake,
    /// A signal to end waits for it, or it has ended.
    Hit,
}

impl Look {
    fn at(pid: i32) -> Self {
        // It is not waited for before the next save: its id is its own.
        Self::of(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
    }

    /// What its `status` in `/proc` tells; of one that is gone that is nothing.
    fn of(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let fatal = signal::bit(SIGTERM) | signal::bit(SIGKILL);
        let waits =
            |name| field(name).and_then(|set| u64::from_str_radix(set, 16).ok()).is_none_or(|set| set & fatal != 0);
        match field("State:").and_then(|state| state.chars().next()) {
            None | Some('Z' | 'X') => Self::Hit,
            Some(_) if waits("SigPnd:") || waits("ShdPnd:") => Self::Hit,
            Some('S' | 'T' | 't') => Self::Asleep,
            Some(_) => Self::Awake,
        }
    }
}

/// The process, if there is one.
#[derive(Debug, Default)]
pub struct Witness {
    pid: Option<i32>,
}

impl Witness {
    /// Starts it beside the program, unless it is there. Where none can be made there is none: a save for the end knows less then.
    pub fn start(&mut self, program: i32) {
        if self.pid.is_some() {
            return;
        }
        let parent = process::pid();
        // SAFETY: this command has one thread.
        let Ok(pid) = (unsafe { child::fork(None) }) else { return };
        if pid == 0 {
            wait(parent);
        }
        let group = rustix::process::Pid::from_raw(program).and_then(|pid| rustix::process::getpgid(Some(pid)).ok());
        let joins = |group: rustix::process::Pid| {
            child::set_group(pid.unsigned_abs(), group.as_raw_nonzero().get().unsigned_abs()).is_ok()
        };
        if !group.is_some_and(joins) {
            // In this command's group it would get what the program does not.
            let _ = process::kill(pid, SIGKILL);
            let _ = child::wait(pid, true);
            return;
        }
        self.pid = Some(pid);
        PID.store(pid, Ordering::Relaxed);
    }

    /// A child has ended that was this one, perhaps: the program has sent a signal to its group.
    pub fn has_ended(&mut self, pid: i32) {
        if self.pid.take_if(|own| *own == pid).is_some() {
            // Somebody else may get its id; who saves now has seen its end, or will see that it is gone.
            PID.store(-1, Ordering::Relaxed);
        }
    }

    /// Ends it.
    pub fn end(&mut self) {
        if let Some(pid) = self.pid.take() {
            PID.store(0, Ordering::Relaxed);
            let _ = process::kill(pid, SIGKILL);
            let _ = child::wait(pid, true);
        }
    }
}

/// What the process does: nothing, until SIGTERM, or its parent's end.
fn wait(parent: i32) -> ! {
    let _ = process::set_death_signal(SIGKILL);
    // Who looks for `ckpt run` by its name or command line shall find that.
    let _ = fs::write("/proc/self/comm", "witness");
    let _ = hide_command();
    // SAFETY: this process uses none from now on.
    let _ = unsafe { sys::fs::close_range(0, u32::MAX) };
    let _ = signal::set_default(SIGTERM);
    let _ = signal::set_mask(signal::ALL & !signal::bit(SIGTERM));
    while child::parent() == parent {
        std::thread::sleep(Duration::from_secs(3600));
    }
    process::exit(0)
}

/// Overwrites the command line.
fn hide_command() -> io::Result<()> {
    let len = fs::read("/proc/self/cmdline")?.len();
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    // arg_start, as proc_pid_stat(5) counts; the first behind the name is the third.
    let start = fields.split_whitespace().nth(48 - 3).and_then(|word| word.parse().ok());
    let start = start.ok_or(io::ErrorKind::InvalidData)?;
    OpenOptions::new().write(true).open("/proc/self/mem")?.write_all_at(&vec![0; len], start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, own: u64, shared: u64) -> String {
        format!("Name:\twitness\nState:\t{state}\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n")
    }

    #[test]
    fn each_state_is_told() {
        let (term, kill) = (signal::bit(SIGTERM), signal::bit(SIGKILL));
        for (text, look) in [
            (status("S (sleeping)", 0, 0), Look::Asleep),
            (status("T (stopped)", 0, 1), Look::Asleep),
            (status("R (running)", 0, 0), Look::Awake),
            (status("D (disk sleep)", 0, 0), Look::Awake),
            (status("S (sleeping)", 0, term), Look::Hit),
            (status("R (running)", kill, 0), Look::Hit),
            (status("Z (zombie)", 0, 0), Look::Hit),
            (String::new(), Look::Hit),
        ] {
            assert_eq!(Look::of(&text), look, "{text}");
        }
    }
}
