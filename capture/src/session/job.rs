//! The job that a process is the root of, as whoever supervises it has told the saver.

use image_format::record::job::{COMMAND_MAX, Job as Record};
use image_format::seal::Sum;
use state::{Result, Save, Target};

/// A job: what an image must say of it so that it can be told from others.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The program and its arguments as they were asked for, each ended by a NUL.
    pub command: &'a [u8],
    /// Absolute path of the directory in which it was started.
    pub directory: &'a [u8],
    /// Name of the host on which it was started.
    pub host: &'a [u8],
    /// How often it was restarted.
    pub generation: u32,
}

/// The part of a command that an image holds, which ends with a NUL, and the checksum of all of it.
#[must_use]
pub fn command(all: &[u8]) -> (&[u8], u64) {
    let mut sum = Sum::new();
    sum.update(all);
    let most = all.get(..COMMAND_MAX).unwrap_or(all);
    let end = most.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    (most.get(..end).unwrap_or_default(), sum.digest())
}

pub(super) fn save<T: Target>(save: &mut Save<'_, '_, T>, job: &Job<'_>) -> Result<()> {
    let (command, sum) = command(job.command);
    let record = Record {
        command: save.notes.string(command)?,
        directory: save.notes.string(job.directory)?,
        host: save.notes.string(job.host)?,
        command_sum: sum.into(),
    };
    Ok(save.notes.table(&[record])?)
}
