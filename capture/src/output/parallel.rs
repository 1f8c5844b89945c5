//! Writing another process's memory with all cores: each worker reads, checksums and writes a batch of segments.
//!
//! Small segments are read many at a time and written as one piece, as they follow each other in the file. Must
//! never run inside a process that is being saved: it allocates and starts threads.

use std::sync::{Mutex, PoisonError};
use std::vec;
use std::vec::Vec;

use image_format::record::id_word::IdWord;
use image_format::seal::Sum;
use state::{Error, Result, Target};
use sys::fs::Fd;

use super::held::Holders;
use crate::pages::Run;

/// Bytes that are read, checksummed and written at a time: they stay in a core's cache in between.
const CHUNK: usize = 256 << 10;

/// Pieces that are read by one call (`UIO_MAXIOV` is 1024).
const PIECES: usize = 512;

/// Bytes that a worker takes at once.
const BATCH: u64 = 4 << 20;

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
    /// What to look for in it.
    pub holders: &'a Holders,
    /// Makes an error of what the kernel says of the file.
    pub failed: &'a F,
}

impl<T: Target, F: Fn(sys::Errno) -> Error + Sync> Job<'_, T, F> {
    /// Writes all segments, the first one at `at`, and their checksums to `sums`; returns the locks that it met.
    ///
    /// # Errors
    /// Memory that cannot be read, a file that cannot be written.
    pub fn run(&self, mut at: u64, mut runs: &[Run], mut sums: &mut [u64]) -> Result<Vec<IdWord>> {
        let mut batches = Vec::new();
        while !runs.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for run in runs {
                if count > 0 && bytes + run.len > BATCH {
                    break;
                }
                (count, bytes) = (count + 1, bytes + run.len);
            }
            let (mine, later) = runs.split_at(count);
            let (my_sums, later_sums) = sums.split_at_mut(count);
            batches.push(Batch { runs: mine, sums: my_sums, at });
            (runs, sums, at) = (later, later_sums, at + bytes);
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS).min(batches.len());
        let queue = Mutex::new(batches.into_iter());
        let done = Mutex::new((Vec::new(), None));
        let work = || {
            let (mut buffer, mut found) = (vec![0; CHUNK], Vec::new());
            while let Some(batch) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() {
                let result = self.batch(batch, &mut buffer, &mut found);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.0.append(&mut found);
                if let Err(e) = result {
                    done.1 = Some(e);
                    // Nobody takes another batch.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        let (found, error) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        error.map_or(Ok(found), Err)
    }

    fn batch(&self, batch: Batch<'_>, buffer: &mut [u8], found: &mut Vec<IdWord>) -> Result<()> {
        let (mut index, mut done, mut at) = (0, 0, batch.at);
        let mut sum = Sum::new();
        while index < batch.runs.len() {
            let mut pieces = Vec::with_capacity(PIECES);
            let (mut next, mut within, mut len) = (index, done, 0);
            while let Some(run) = batch.runs.get(next)
                && pieces.len() < PIECES
                && len < buffer.len()
            {
                let piece = ((run.len - within) as usize).min(buffer.len() - len);
                pieces.push((run.addr + within, piece));
                (len, within) = (len + piece, within + piece as u64);
                if within == run.len {
                    (next, within) = (next + 1, 0);
                }
            }
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            self.target
                .read_pieces(&pieces, bytes)
                .map_err(|(addr, e)| Error::failed(format_args!("memory at {addr:#x}"), "cannot be read", e))?;
            let mut rest = &*bytes;
            for (addr, piece) in pieces {
                let (head, tail) = rest.split_at(piece.min(rest.len()));
                if self.file.is_some() {
                    sum.update(head);
                }
                self.holders.scan(self.target, addr, head, found);
                rest = tail;
                done += piece as u64;
                if batch.runs.get(index).is_some_and(|run| run.len == done) {
                    if let Some(place) = batch.sums.get_mut(index) {
                        *place = core::mem::take(&mut sum).digest();
                    }
                    (index, done) = (index + 1, 0);
                }
            }
            if let Some(file) = self.file {
                sys::fs::pwrite_all(file, bytes, at).map_err(self.failed)?;
            }
            at += len as u64;
        }
        Ok(())
    }
}
