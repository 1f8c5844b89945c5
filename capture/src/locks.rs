//! What locks look like that name their holder by its thread id (glibc, sysdeps/nptl/bits/struct_mutex.h, struct_rwlock.h).
//!
//! Must never take for one what need not be one: a program's own numbers may look so, and a restart would change them.

/// `FUTEX_TID_MASK`.
pub const TID_MASK: u32 = 0x3fff_ffff;

/// 32-bit words of a `pthread_mutex_t`: lock, count, owner, users, kind, spins and elision, list (unused but for robust ones).
pub type Mutex = [u32; 10];

/// 32-bit words of a `pthread_rwlock_t`: readers, writers, wrphase_futex, writers_futex, two pads, cur_writer, shared, elision and
/// pad, pad, flags.
pub type RwLock = [u32; 14];

/// Where a held lock names its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// In its owner field.
    Field,
    /// In the lock itself, too: priority inheritance.
    FieldAndLock,
}

/// Whether a thread with this id may hold a recursive or error-checking mutex that looks so, in a process of so many threads;
/// robust ones are on their holder's list.
#[must_use]
pub fn mutex_owner(tid: u32, mutex: &Mutex, threads: u32) -> Option<Owner> {
    const RECURSIVE: u32 = 1;
    const ERROR_CHECK: u32 = 2;
    /// Priority inheritance, process-shared.
    const FLAGS: u32 = 32 | 128;
    let [lock, count, owner, users, kind, spins, list @ ..] = *mutex;
    let counted = match kind & !FLAGS {
        RECURSIVE => (1..1 << 20).contains(&count),
        ERROR_CHECK => count == 0,
        _ => false,
    };
    if owner != tid || !counted || !(1..=threads).contains(&users) || spins != 0 || list != [0; 4] {
        return None;
    }
    match lock {
        1 | 2 => Some(Owner::Field),
        lock if lock & TID_MASK == tid => Some(Owner::FieldAndLock),
        _ => None,
    }
}

/// Whether a thread with this id may hold a read-write lock for writing that looks so, in a process of so many threads.
#[must_use]
pub fn is_written(tid: u32, lock: &RwLock, threads: u32) -> bool {
    /// Write phase, write-locked.
    const WRITTEN: u32 = 3;
    let [readers, writers, phase, futex, pad3, pad4, writer, shared, elision, elision2, pad2, pad2b, flags, _] = *lock;
    readers & WRITTEN == WRITTEN
        && readers >> 3 <= threads
        && writers <= threads
        && matches!(phase, 1 | 3)
        && matches!(futex, 1 | 3)
        && writer == tid
        && shared <= 1
        && [pad3, pad4, elision, elision2, pad2, pad2b] == [0; 6]
        && flags <= 3
}

/// Whether the number at an address is one of the running numbers of a table: the number before it stands one row before, and
/// one from far before as many rows before. `read` fills a piece of memory, if it can.
#[must_use]
pub fn is_running_number(at: u64, number: u32, read: impl Fn(u64, &mut [u8]) -> bool) -> bool {
    /// Bytes of a row at most.
    const ROW: usize = 1024;
    let mut before = [0; ROW];
    let from = at.saturating_sub(ROW as u64);
    if !read(from, &mut before) {
        return false;
    }
    let rows = before.as_chunks::<4>().0.iter().zip((from..).step_by(4));
    let mut rows =
        rows.filter(|(word, _)| u32::from_le_bytes(**word) == number.wrapping_sub(1)).map(|(_, row)| at - row);
    rows.any(|row| {
        // Some number of threads with running ids, each with a lock in a table, are no such table.
        let far = (number / 2).min(4096);
        let mut word = [0; 4];
        let place = at.checked_sub(row * u64::from(far));
        place.is_some_and(|place| read(place, &mut word)) && u32::from_le_bytes(word) == number - far
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `row` words, with running numbers in one of them, read as the memory at 0x1000.
    fn table(row: usize, rows: u32) -> impl Fn(u64, &mut [u8]) -> bool {
        let words = (0..rows).flat_map(move |n| (0..row).map(move |i| if i == 2 { n } else { 1 }));
        let bytes: std::vec::Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        move |at, to| {
            let from = at.checked_sub(0x1000).map_or(usize::MAX, |from| from as usize);
            let piece = from.checked_add(to.len()).and_then(|end| bytes.get(from..end));
            piece.map(|piece| to.copy_from_slice(piece)).is_some()
        }
    }

    #[test]
    fn rows_of_a_table_are_seen() {
        for row in [10, 14, 42, 250] {
            let at = 0x1000 + (1500 * row as u64 + 2) * 4;
            assert!(is_running_number(at, 1500, table(row, 2000)), "{row}");
            assert!(!is_running_number(at, 1501, table(row, 2000)), "{row}");
        }
    }

    #[test]
    fn locks_of_threads_with_running_ids_are_no_table() {
        let locks = |at: u64, to: &mut [u8]| {
            let inner = table(10, 20);
            let ok = inner(at, to);
            // Ids from 5000 on.
            for word in to.as_chunks_mut::<4>().0 {
                let n = u32::from_le_bytes(*word);
                *word = if n == 1 { n } else { n + 5000 }.to_le_bytes();
            }
            ok
        };
        assert!(!is_running_number(0x1000 + (19 * 10 + 2) * 4, 5019, locks));
    }
}
