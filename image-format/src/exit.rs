//! The exit codes of a restart or a save that did not happen: stable, one for each kind of cause.
//!
//! They lie between 64 and 99, apart from a shell's 126–128+N, so that a job script can tell "the program
//! ended with 1" from "there was no restart". Must never be renumbered: scripts rely on them.

use zerocopy::TryFromBytes;

/// Why no program was started (or saved). The numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes)]
#[repr(u8)]
pub enum ExitCode {
    /// The command line is wrong.
    Usage = 64,
    /// The image cannot be opened or read.
    NoImage = 66,
    /// A part of this software is not installed: the restart stub, or the library.
    NotInstalled = 69,
    /// The image file is empty.
    Empty = 70,
    /// Not an image: no ELF core, or one that something else wrote.
    NotImage = 71,
    /// An image of another machine or word size.
    WrongMachine = 72,
    /// The file ends before the image does.
    Truncated = 73,
    /// A checksum of headers or notes does not match: the file is damaged.
    Damaged = 74,
    /// Headers or notes contradict each other.
    Malformed = 75,
    /// A segment or mapping overlaps another one, or lies outside user space.
    BadAddress = 76,
    /// Written in a newer format, or needs a feature that this reader does not know.
    Newer = 77,
    /// The image may have been written by somebody else.
    Untrusted = 78,
    /// This CPU lacks what the program may use.
    Cpu = 79,
    /// This kernel, or a limit of this user, does not allow the restart.
    Kernel = 80,
    /// A file that the program had open or mapped is not there.
    FileMissing = 81,
    /// A file is shorter than it was.
    FileShrank = 82,
    /// A file was replaced, or has grown or changed since.
    FileChanged = 83,
    /// A descriptor cannot be given to the program: no terminal, no such pipe, a lock held by another.
    Descriptor = 84,
    /// Not a fault: the program saved itself and ended, as asked (HTCondor's and Slurm's requeue code).
    SavedAndExited = 85,
    /// Not enough memory, or no room in the address space.
    NoRoom = 86,
    /// The restart failed after the point of no return; the image is whole and can be tried again.
    Restore = 87,
    /// A save was refused or failed; the program goes on.
    SaveFailed = 88,
    /// Bytes of memory in the image do not match their checksum: the file is damaged.
    DamagedMemory = 89,
    /// The image belongs to another job than the one that was asked for.
    OtherJob = 90,
    /// Another `ckpt run` has the image.
    InUse = 91,
}

impl ExitCode {
    /// The one of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::try_read_from_bytes(&[number]).ok()
    }
}
