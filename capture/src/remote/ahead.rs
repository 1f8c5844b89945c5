//! System calls that every save makes, made all at once: each stop of a thread costs more than the calls themselves.
//!
//! Must never answer a call twice: what was true then need not be true the next time.

use std::vec;
use std::vec::Vec;

use state::{Arg, Question};
use sys::{Errno, Sysno};

/// Words of one call: number, arguments, result (see `sys::arch::Run::table`).
const WORDS: usize = 8;

/// Bytes of one call.
const ENTRY: usize = WORDS * size_of::<u64>();

/// The calls as they lie in the process's memory: a table, and each one's data behind it.
#[derive(Debug)]
pub struct Table {
    /// All of it.
    pub bytes: Vec<u8>,
}

/// The calls, cut up so that each table has at most so many bytes.
pub fn parts(questions: &[Question], room: usize) -> impl Iterator<Item = &[Question]> {
    let mut rest = questions;
    core::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |q: &&Question| {
            bytes += ENTRY + q.data_len().next_multiple_of(16);
            bytes <= room
        };
        let (part, later) = rest.split_at(rest.iter().take_while(fits).count());
        rest = later;
        (!part.is_empty()).then_some(part)
    })
}

/// Where the data of each call lies, from the table's start; 16-aligned.
fn places(questions: &[Question]) -> impl Iterator<Item = usize> {
    questions.iter().scan(questions.len() * ENTRY, |next, question| {
        let at = *next;
        *next += question.data_len().next_multiple_of(16);
        Some(at)
    })
}

impl Table {
    /// The table of these calls for a place in the process's memory.
    #[must_use]
    pub fn new(questions: &[Question], at: u64) -> Self {
        let data = questions.iter().map(|q| q.data_len().next_multiple_of(16)).sum::<usize>();
        let mut bytes = vec![0; questions.len() * ENTRY + data];
        for ((entry, question), data) in bytes.chunks_exact_mut(ENTRY).zip(questions).zip(places(questions)) {
            let args = question.args().map(|arg| match arg {
                Arg::Value(n) => n as u64,
                Arg::Data(offset) => at + (data + offset) as u64,
            });
            let words = core::iter::once(question.number() as u64).chain(args);
            for (to, word) in entry.chunks_exact_mut(size_of::<u64>()).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        Self { bytes }
    }

    /// The numbers and arguments of so many calls.
    #[must_use]
    pub fn calls(&self, count: usize) -> Vec<(usize, [usize; 6])> {
        let call = |entry: &[u8]| {
            let mut words = entry.chunks_exact(size_of::<u64>()).filter_map(|word| word.first_chunk());
            let mut word = || words.next().map_or(0, |word| u64::from_le_bytes(*word) as usize);
            (word(), [(); 6].map(|()| word()))
        };
        self.bytes.chunks_exact(ENTRY).take(count).map(call).collect()
    }

    /// What came of them, when they were made.
    #[must_use]
    pub fn answers(&self, questions: &[Question]) -> Vec<Answer> {
        let entries = self.bytes.chunks_exact(ENTRY);
        let answer = |((entry, question), data): ((&[u8], &Question), usize)| Answer {
            question: *question,
            result: entry.last_chunk().map_or(0, |word| u64::from_le_bytes(*word)),
            data: self.bytes.get(data..data + question.data_len()).unwrap_or_default().to_vec(),
        };
        entries.zip(questions).zip(places(questions)).map(answer).collect()
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer {
    question: Question,
    result: u64,
    data: Vec<u8>,
}

impl Answer {
    /// Whether it is the answer to this call.
    #[must_use]
    pub fn is_to(&self, number: Sysno, args: &[Arg; 6], data: &[u8]) -> bool {
        let Self { question, .. } = self;
        (question.number() as usize, &question.args(), question.data_len()) == (number as usize, args, data.len())
            && data.iter().all(|byte| *byte == 0)
    }

    /// Gives it.
    ///
    /// # Errors
    /// The call's.
    pub fn give(self, data: &mut [u8]) -> sys::Result<usize> {
        let result = Errno::from_ret(self.result as usize)?;
        data.copy_from_slice(&self.data);
        Ok(result)
    }
}
