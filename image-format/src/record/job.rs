//! The job that a process is: what was asked for by whoever supervises it, by which it is known again.

use zerocopy::little_endian::{U32, U64};

use super::{StrRef, record};

record! {
    /// A job of `ckpt run`; at most one, in the image of the job's root process. A restart does not look at it.
    Job, Job, 48, {
        /// The program and its arguments as they were asked for, each ended by a NUL; of a very long one the beginning.
        command: StrRef,
        /// Absolute path of the directory in which the job was started.
        directory: StrRef,
        /// Name of the host on which it was started.
        host: StrRef,
        /// xxh3 (64 bits) of the whole command.
        command_sum: U64,
        /// Ids of the open files that were its supervisor's own standard input, output and error; [`NO_STREAM`]: the job has none of
        /// that.
        streams: [U32; 3],
        /// 1 when the kernel has told which those are.
        told: U32,
    }
}

/// No open file.
pub const NO_STREAM: u32 = u32::MAX;

/// Most bytes of a command that an image holds.
pub const COMMAND_MAX: usize = 64 << 10;
