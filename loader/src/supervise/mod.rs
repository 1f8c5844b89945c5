//! Supervision of a program by its parent: signals, job control, the terminal, the exit status. For the stub, where its process is not the
//! program, and for `ckpt run`.
//!
//! Must never allocate, and must never act on a program that it did not start.

pub mod inbox;
pub mod proxy;
pub mod terminal;

use sys::Result;
use sys::abi::signal::SIGKILL;
use sys::fs::Fd;

pub use inbox::Inbox;
pub use proxy::{Duty, End, News, Proxy};
pub use terminal::Terminal;

/// What comes through the pipe of `--ready` before the four bytes of the program's pid, as its parent sees it, in this machine's order.
pub const SAYS_PID: u8 = b'p';
/// What comes when the program has taken over. It may come first: the program and the stub that has made it run side by side.
pub const SAYS_RUNNING: u8 = b'.';

/// The process group and session of a program under supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The supervisor's process group: keys of the terminal reach both.
    WithUs,
    /// A group of its own, which is the terminal's foreground if the supervisor's was.
    OwnGroup,
    /// A session of its own, without a terminal and without supervision.
    OwnSession,
}

impl Place {
    /// In the foreground a pipeline stays one group, so that the terminal serves all of it. Else a group of its own makes a key, or a
    /// signal to the supervisor's group, come once.
    #[must_use]
    pub fn beside_us(terminal: Option<&Terminal>) -> Self {
        if terminal.is_some_and(Terminal::is_ours) && terminal::in_pipeline() { Self::WithUs } else { Self::OwnGroup }
    }

    /// Takes this place: called in the program's process before it is the program. `foreground`: the terminal, if the supervisor's group was
    /// its foreground.
    ///
    /// # Errors
    /// The kernel's, for the group or session.
    pub fn take(self, foreground: Option<&Terminal>) -> Result<()> {
        match self {
            Self::WithUs => Ok(()),
            Self::OwnGroup => {
                sys::process::lead_group(0)?;
                if let Some(terminal) = foreground {
                    terminal.give(sys::process::group());
                }
                Ok(())
            }
            Self::OwnSession => sys::child::new_session(),
        }
    }
}

/// This process is killed when its parent ends; false when that has happened already. `parent`: its id. `pipe`: the end for writing of a pipe whose
/// only reader is the parent. Where Yama is on, the parent's own helpers may trace this process.
#[must_use]
pub fn end_with_parent(parent: i32, pipe: Fd) -> bool {
    // EINVAL: there is no Yama, or the parent is in another namespace.
    let _ = sys::process::set_tracer(parent);
    sys::process::set_death_signal(SIGKILL).is_ok() && sys::fs::hung_up(pipe) == Ok(false)
}
