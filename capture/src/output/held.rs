//! Locks in a process's memory that name their holder by its thread id, found while the memory goes by.
//!
//! glibc: the owner of a recursive or error-checking mutex, the writer of a read-write lock. musl: the lock word of such
//! mutexes (src/internal/pthread_impl.h).
//! Must only name words that hold the id of a living thread in the midst of what a lock looks like, and of which something
//! else says that they are one: what glibc's locks look like, a table of small numbers looks like, too.

use std::vec::Vec;

use image_format::record::id_word::IdWord;
use image_format::record::memory::Vma;
use state::Target;

use super::Holder;
use super::evidence::Evidence;
use super::touched::Touched;
use crate::locks::{self, Mutex, Owner, RwLock, TID_MASK};

/// Offset of the id in musl's `struct pthread`.
const MUSL_TID: u64 = 0x30;

/// Words that are looked at together.
const BLOCK: usize = 512;

/// How far from the threads' ids numbers are looked at that are nobody's id: what looks like a lock that such a one holds is
/// something else, and so may be what names a thread.
const AROUND: u32 = 64;

fn word<T: Target>(target: &T, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    target.read_memory(at, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
}

/// musl's `struct pthread` begins with a pointer to itself and has the id further on.
fn musl_id<T: Target>(target: &T, tid: u64, fs: u64) -> Option<u64> {
    let at = fs + MUSL_TID;
    (word(target, fs)? == fs && word(target, at)? & u64::from(u32::MAX) == tid).then_some(at)
}

/// Go: below the thread pointer the goroutine, in it the thread's `m`, near its beginning `procid`
/// (runtime/runtime2.go).
fn go_id<T: Target>(target: &T, tid: u64, fs: u64) -> Option<u64> {
    const M: u64 = 0x30;
    let m = word(target, word(target, fs.checked_sub(8)?)?.checked_add(M)?)?;
    let mut places = (m..m.checked_add(0x80)?).step_by(8).filter(|at| word(target, *at) == Some(tid));
    let place = places.next();
    place.filter(|_| places.next().is_none())
}

/// What looks like a lock of glibc's that a thread holds.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Address of the lock.
    pub lock: u64,
    /// Bytes of the lock.
    pub len: u64,
    /// Addresses of the words that name the holder; the second one may be 0.
    words: [u64; 2],
    /// The holder's id.
    pub tid: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Words that are to be corrected.
    words: Vec<IdWord>,
    /// What looks like a lock, but may be something else.
    candidates: Vec<Candidate>,
    /// The program has other things that look so.
    doubtful: bool,
}

impl Found {
    /// Adds what another one has found.
    pub fn append(&mut self, other: &mut Self) {
        self.words.append(&mut other.words);
        self.candidates.append(&mut other.candidates);
        self.doubtful |= core::mem::take(&mut other.doubtful);
    }

    fn add(&mut self, addr: u64, tid: u32) {
        self.words.push(IdWord { addr: addr.into(), tid: (tid & TID_MASK).into(), reserved: 0.into() });
    }

    /// The words of all that is a lock for certain, ascending.
    pub fn confirmed<T: Target>(mut self, memory: &Touched<'_, T>, threads: &[Holder], vmas: &[Vma]) -> Vec<IdWord> {
        let candidates = core::mem::take(&mut self.candidates);
        let evidence = Evidence::new(memory, threads, vmas);
        let sure = if self.doubtful { evidence.confirmed(&candidates) } else { candidates };
        for candidate in sure {
            candidate.words.iter().filter(|addr| **addr != 0).for_each(|addr| self.add(*addr, candidate.tid));
        }
        self.words.sort_unstable_by_key(|word| word.addr.get());
        self.words.dedup_by_key(|word| word.addr.get());
        self.words
    }
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Holders {
    tids: Vec<u32>,
    least: u32,
    span: u32,
    /// The C library is musl.
    musl: bool,
}

impl Holders {
    /// Looks for the ids of these threads.
    #[must_use]
    pub fn new<T: Target>(target: &T, threads: &[Holder]) -> Self {
        let musl = threads.first().is_some_and(|thread| musl_id(target, thread.tid, thread.fs).is_some());
        let mut tids: Vec<u32> = threads.iter().map(|thread| thread.tid as u32).collect();
        tids.sort_unstable();
        let least = tids.first().copied().unwrap_or(0).saturating_sub(AROUND);
        let span = tids.last().copied().unwrap_or(0) + AROUND - least;
        Self { tids, least, span, musl }
    }

    fn near(&self, half: u32) -> bool {
        (half & TID_MASK).wrapping_sub(self.least) <= self.span
    }

    /// Whether a lock may begin in one of these words: most blocks hold nothing like an id. All memory goes through it, so it is
    /// written for vector instructions: no branch, and a comparison with sign, as the oldest ones have no other.
    fn any_near(&self, block: &[[u8; 8]]) -> bool {
        const SIGN: u32 = 1 << 31;
        let mask = if self.musl { TID_MASK } else { u32::MAX };
        let (least, span) = (self.least.wrapping_add(SIGN), (self.span ^ SIGN) as i32);
        let (pairs, odd) = block.as_chunks::<2>();
        let mut near = [0; 4];
        for pair in pairs {
            for (near, half) in near.iter_mut().zip(pair.as_flattened().as_chunks::<4>().0) {
                let at = (u32::from_le_bytes(*half) & mask).wrapping_sub(least) as i32;
                *near |= if at <= span { u32::MAX } else { 0 };
            }
        }
        let [low, high, low2, high2] = near;
        (if self.musl { high | high2 } else { low | low2 }) != 0 || !odd.is_empty()
    }

    fn is_thread(&self, half: u32) -> bool {
        self.tids.binary_search(&(half & TID_MASK)).is_ok()
    }

    /// Finds where a language's own runtime keeps a thread's id for signals that it sends: musl, and Go without a C library.
    pub fn cached<T: Target>(&self, target: &T, threads: &[Holder], found: &mut Found) {
        for Holder { tid, fs, .. } in threads {
            if let Some(addr) = musl_id(target, *tid, *fs).or_else(|| go_id(target, *tid, *fs)) {
                found.add(addr, *tid as u32);
            }
        }
    }

    /// Looks through memory that was read at `addr`, a multiple of 8.
    pub fn scan<T: Target>(&self, memory: &Touched<'_, T>, addr: u64, bytes: &[u8], found: &mut Found) {
        let (words, _) = bytes.as_chunks::<8>();
        for (block, at) in words.chunks(BLOCK).zip((addr..).step_by(BLOCK * 8)) {
            if !self.any_near(block) {
                continue;
            }
            let halves = |word: &[u8; 8]| {
                let word = u64::from_le_bytes(*word);
                (word as u32, (word >> 32) as u32)
            };
            for (word, at) in block.iter().map(halves).zip((at..).step_by(8)) {
                self.judge(memory, (addr, bytes), at, word, found);
            }
        }
    }

    fn judge<T: Target>(
        &self,
        memory: &Touched<'_, T>,
        piece: Piece<'_>,
        at: u64,
        (low, high): (u32, u32),
        found: &mut Found,
    ) {
        if !self.musl && self.near(low) && low & !TID_MASK == 0 {
            let (threads, is_thread) = (self.tids.len() as u32, self.is_thread(low));
            let read = |at, to: &mut [u8]| memory.fill(at, to);
            let mut may_be = |lock: u64, len, other| {
                if !is_thread {
                    found.doubtful = true;
                } else if !locks::is_running_number(at, low, read) {
                    found.candidates.push(Candidate { lock, len, words: [at, other], tid: low });
                }
            };
            let lock = at.wrapping_sub(8);
            let mutex: Option<Mutex> = words(memory, piece, lock);
            match mutex.and_then(|mutex| locks::mutex_owner(low, &mutex, threads)) {
                Some(Owner::Field) => may_be(lock, size_of::<Mutex>() as u64, 0),
                Some(Owner::FieldAndLock) => may_be(lock, size_of::<Mutex>() as u64, lock),
                None => {}
            }
            let lock = at.wrapping_sub(24);
            let rwlock: Option<RwLock> = if high <= 1 { words(memory, piece, lock) } else { None };
            if rwlock.is_some_and(|rwlock| locks::is_written(low, &rwlock, threads)) {
                may_be(lock, size_of::<RwLock>() as u64, 0);
            }
        }
        if self.musl
            && self.is_thread(high)
            && words(memory, piece, at).is_some_and(|lock| is_musl_mutex(memory, at, &lock))
        {
            found.add(at + 4, high);
        }
    }
}

/// musl's mutex: type, lock, waiters, nothing, nothing, count, links of its holder's list, of which the first one leads to
/// where the mutex's second one is named.
fn is_musl_mutex<T: Target>(memory: &Touched<'_, T>, at: u64, lock: &[u32; 10]) -> bool {
    const RECURSIVE: u32 = 1;
    const ERROR_CHECK: u32 = 2;
    /// Robust within one process: the kernel's list of the holder does not have it. Its plain kind names the holder, too.
    const ROBUST: u32 = 4;
    const NEXT: u64 = 32;
    let [kind, _, waiters, none, nothing, count, previous, previous_high, ..] = *lock;
    let mut first = [0; 8];
    let previous = u64::from(previous) | u64::from(previous_high) << 32;
    let kind = kind & !0x80;
    (matches!(kind & !ROBUST, RECURSIVE | ERROR_CHECK) || kind == ROBUST)
        && waiters < 1 << 20
        && count < 1 << 20
        && none | nothing == 0
        && memory.fill(previous, &mut first)
        && u64::from_le_bytes(first) == at + NEXT
}

/// Memory that has been read: from where on, and its bytes.
type Piece<'p> = (u64, &'p [u8]);

/// Words of memory, from the piece if they lie there; `None`: they cannot be read.
fn words<const N: usize, T: Target>(memory: &Touched<'_, T>, (from, piece): Piece<'_>, at: u64) -> Option<[u32; N]> {
    let mut bytes = [[0; 4]; N];
    let known = usize::try_from(at.wrapping_sub(from)).ok().and_then(|start| piece.get(start..)?.get(..4 * N));
    match known {
        Some(known) => bytes.as_flattened_mut().copy_from_slice(known),
        None => memory.fill(at, bytes.as_flattened_mut()).then_some(())?,
    }
    Some(bytes.map(u32::from_le_bytes))
}
