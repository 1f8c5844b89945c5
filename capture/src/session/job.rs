//! The job that a process is the root of, as whoever supervises it has told the saver.

use image_format::record::job::{COMMAND_MAX, Job as Record, NO_STREAM};
use image_format::seal::Sum;
use state::descriptor::OpenFile;
use state::{Result, Save, Target};
use sys::fs::Fd;
use zerocopy::little_endian::U32;

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
    /// Device and inode of files that were the supervisor's standard input, output and error before the last restart, which has opened them again for
    /// the job; (0, 0): none.
    pub reopened: [(u64, u64); 3],
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

pub(super) fn save<T: Target>(save: &mut Save<'_, '_, T>, job: &Job<'_>, files: &[OpenFile]) -> Result<()> {
    let (command, sum) = command(job.command);
    let streams = streams(save.target, files, job.reopened);
    let record = Record {
        command: save.notes.string(command)?,
        directory: save.notes.string(job.directory)?,
        host: save.notes.string(job.host)?,
        command_sum: sum.into(),
        streams: streams.unwrap_or([NO_STREAM; 3]).map(U32::new),
        told: u32::from(streams.is_some()).into(),
    };
    Ok(save.notes.table(&[record])?)
}

/// Which open files are this process's own standard streams: it supervises the job, or is a copy of who does. `None`: the kernel does not tell.
fn streams<T: Target>(target: &T, files: &[OpenFile], reopened: [(u64, u64); 3]) -> Option<[u32; 3]> {
    let of = |id: (u64, u64)| files.iter().filter(move |file| file.id == file.fd && (file.dev, file.ino) == id);
    let mut streams = [NO_STREAM; 3];
    for ((own, reopened), stream) in (0..).zip(reopened).zip(&mut streams) {
        if let Some(file) = of(reopened).next() {
            *stream = file.id;
        }
        let Ok(stat) = sys::fs::fstat(own) else { continue };
        for file in of((stat.dev, stat.ino)) {
            if target.is_same(own, file.fd as Fd)? {
                *stream = file.id;
            }
        }
    }
    Some(streams)
}
