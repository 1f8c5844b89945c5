//! Writing another process's memory with all cores: each worker reads, checksums and writes a batch of segments.
//!
//! Small segments are written as one piece, as they follow each other in the file. Must
//! never run inside a process that is being saved: it allocates and starts threads.

use std::sync::{Mutex, PoisonError};
use std::vec;
use std::vec::Vec;

use image_format::seal::Sum;
use state::content::Contents;
use state::{Error, Result, Target};
use sys::fs::Fd;

use super::Progress;
use crate::pages::Run;
use crate::traces::Search;

/// Bytes that are read, checksummed and written at a time: they stay in a core's cache in between.
const CHUNK: usize = 256 << 10;

/// Bytes that a worker takes at once, and whose way to the disk begins then.
const BATCH: u64 = super::WRITEBACK;

/// Bytes that are worth a second worker: to start it takes as long as to write a quarter of a MiB.
const SHARED: u64 = 1 << 20;

/// Most workers.
const WORKERS: usize = 8;

/// Segments that follow each other.
struct Batch<'a> {
    runs: &'a [Run],
    sums: &'a mut [u64],
    /// Where the first one goes in the file.
    at: u64,
}

/// What the workers do.
pub struct Job<'a, T, F> {
    /// Where to write to; without, memory is only looked through.
    pub file: Option<Fd>,
    /// Whose memory.
    pub target: &'a T,
    /// What it shares.
    pub contents: &'a Contents<'a>,
    /// What to look for in it.
    pub search: Option<&'a Search<'a>>,
    /// Tells that nobody wants it any more.
    pub given_up: Option<fn() -> bool>,
    /// Where it says how far it is.
    pub progress: Option<&'static Progress>,
    /// Makes an error of what the kernel says of the file.
    pub failed: &'a F,
}

impl<T: Target, F: Fn(sys::Errno) -> Error + Sync> Job<'_, T, F> {
    /// Writes all segments, the first one at `at`, and their checksums to `sums`.
    ///
    /// # Errors
    /// Memory that cannot be read, a file that cannot be written.
    pub fn run(&self, mut at: u64, mut runs: &[Run], mut sums: &mut [u64]) -> Result<()> {
        let total: u64 = runs.iter().map(|run| run.len).sum();
        let batch = if (SHARED..8 * BATCH).contains(&total) { total / 4 } else { BATCH };
        let mut batches = Vec::new();
        while !runs.is_empty() {
            let (mut count, mut bytes, mut stored) = (0, 0, 0);
            for run in runs {
                if count > 0 && bytes + run.len > batch {
                    break;
                }
                (count, bytes, stored) = (count + 1, bytes + run.len, stored + run.stored());
            }
            let (mine, later) = runs.split_at(count);
            let (my_sums, later_sums) = sums.split_at_mut(count);
            batches.push(Batch { runs: mine, sums: my_sums, at });
            (runs, sums, at) = (later, later_sums, at + stored);
        }
        // To ask how many there may be reads some files.
        let most = match batches.len() {
            0 | 1 => 1,
            _ if total < 8 * BATCH => sys::thread::cpus().min(2),
            _ => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS),
        };
        let workers = most.min(batches.len());
        let queue = Mutex::new(batches.into_iter());
        let failure = Mutex::new(None);
        let work = || {
            let mut buffer = vec![0; CHUNK];
            loop {
                // In a statement of its own: as a loop's condition it would hold the lock while the batch is written.
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(batch) = next.filter(|_| !self.is_over()) else { break };
                if let Err(e) = self.batch(batch, &mut buffer) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    // Nobody takes another batch.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                }
            }
        };
        std::thread::scope(|scope| {
            // Where no more threads may be made, fewer do it.
            for _ in 1..workers {
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Whether there is nothing left to do: memory is only looked through, and something was found.
    fn is_over(&self) -> bool {
        self.file.is_none() && self.search.is_some_and(|search| search.found().is_some())
    }

    fn batch(&self, batch: Batch<'_>, buffer: &mut [u8]) -> Result<()> {
        let (mut at, mut filled) = (batch.at, 0);
        for (run, place) in batch.runs.iter().zip(batch.sums) {
            let (mut sum, mut done) = (Sum::new(), 0);
            while done < run.len {
                let len = ((run.len - done) as usize).min(buffer.len() - filled);
                let (piece, addr) = (buffer.get_mut(filled..filled + len).unwrap_or_default(), run.addr + done);
                super::read(self.target, self.contents, run, addr, piece)?;
                if self.file.is_some() {
                    sum.update(piece);
                }
                if let Some(search) = self.search.filter(|_| run.is_own()) {
                    search.memory(addr, piece);
                }
                done += len as u64;
                // The parent's pages are in its image.
                if !run.is_inherited() {
                    filled += len;
                }
                if filled == buffer.len() {
                    self.put(buffer, &mut at)?;
                    filled = 0;
                }
            }
            *place = sum.digest();
        }
        self.put(buffer.get(..filled).unwrap_or_default(), &mut at)?;
        if let Some(file) = self.file {
            sys::fs::begin_writeback(file, batch.at, at - batch.at);
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8], at: &mut u64) -> Result<()> {
        super::check(self.given_up)?;
        if let Some(file) = self.file {
            sys::fs::pwrite_all(file, bytes, *at).map_err(self.failed)?;
            if let Some(progress) = self.progress {
                progress.add(bytes.len() as u64);
            }
        }
        *at += bytes.len() as u64;
        Ok(())
    }
}
