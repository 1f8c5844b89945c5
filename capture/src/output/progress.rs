//! How far an image is written, for whoever looks at it meanwhile from another thread.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that are done, and how many there are in all: 0 until that is known.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    /// Nothing is done yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { done: AtomicU64::new(0), all: AtomicU64::new(0) }
    }

    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// There are at least so many.
    pub fn at_least(&self, all: u64) {
        self.all.fetch_max(all, Relaxed);
    }

    /// All is to be done again.
    pub fn restart(&self) {
        self.done.store(0, Relaxed);
    }

    /// What is done, and what there is in all.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.all.load(Relaxed))
    }
}
