//! The processes of a tree: who is whose parent, in which group and session, under which terminal.

use zerocopy::little_endian::U32;

use super::record;

/// Bits of a number in a table of descriptors that are the program's own number. Those above tell whose it is: the place of its
/// process among [`Process`]es, so that one table serves the whole tree. No process has greater numbers unless root has raised
/// `fs.nr_open`.
pub const FD_BITS: u32 = 20;

/// The program's own number, see [`FD_BITS`].
pub const FD_MASK: u32 = (1 << FD_BITS) - 1;

/// Most processes of a tree: what the numbers of descriptors leave room for.
pub const PROCESSES_MAX: usize = 1 << (31 - FD_BITS);

/// No terminal.
pub const NO_TERMINAL: u32 = u32::MAX;

/// In [`Process::stopped`]: its parent knows; or was not told yet.
pub const STOPPED: u32 = 1;
/// See [`STOPPED`].
pub const UNTOLD: u32 = 2;

record! {
    /// A process of the tree. The first one is the root, which the image itself is of; the next ones' images are the
    /// image's segments of [`crate::elf::PT_PROCESS`], in order; then come those that have ended and wait for their parents.
    Process, Process, 40, {
        /// Its id.
        pid: U32,
        /// Its parent's id; 0 for the root.
        parent: U32,
        /// Its process group.
        group: U32,
        /// Its session.
        session: U32,
        /// Id of the open file that is its session's terminal, when the process leads the session or is the root; or
        /// [`NO_TERMINAL`].
        terminal: U32,
        /// That terminal's foreground process group.
        foreground: U32,
        /// The signal that its parent gets at its end.
        exit_signal: U32,
        /// 1 when it has ended and waits for its parent; 2 when it is gone, and only its process group is there still.
        ended: U32,
        /// How, as wait(2) tells it.
        status: U32,
        /// Whether it was stopped, by a signal such as SIGSTOP: [`STOPPED`], [`UNTOLD`], or 0.
        stopped: U32,
    }
}
