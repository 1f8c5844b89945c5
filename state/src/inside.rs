//! System calls inside a process: what can be asked there, and who makes the calls.
//!
//! Must never change memory of the process but a call's own data.

use sys::{Errno, Sysno};

/// An argument of a system call made inside a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number.
    Value(usize),
    /// The address of the call's data, plus an offset in bytes.
    Data(usize),
}

/// A system call that an object makes in every save, known beforehand: many of them can be made at once.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    number: Sysno,
    args: [Arg; 6],
    len: usize,
}

impl Question {
    /// A call with these first two arguments; the others are 0. `len`: bytes of its data, all zero before the call.
    ///
    /// # Safety
    /// As [`Question::of`].
    #[must_use]
    pub const unsafe fn new(number: Sysno, first: Arg, second: Arg, len: usize) -> Self {
        let zero = Arg::Value(0);
        // SAFETY: the caller vouches.
        unsafe { Self::of(number, [first, second, zero, zero, zero, zero], len) }
    }

    /// A call with these arguments.
    ///
    /// # Safety
    /// It only asks: the kernel changes no memory but the call's data, of that length, now or later.
    #[must_use]
    pub const unsafe fn of(number: Sysno, args: [Arg; 6], len: usize) -> Self {
        Self { number, args, len }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> Sysno {
        self.number
    }

    /// Its arguments.
    #[must_use]
    pub const fn args(&self) -> [Arg; 6] {
        self.args
    }

    /// Bytes of its data.
    #[must_use]
    pub const fn data_len(&self) -> usize {
        self.len
    }

    /// Makes the call.
    ///
    /// # Errors
    /// The call's.
    pub fn ask<const LEN: usize>(&self, inside: &mut impl Inside) -> sys::Result<(usize, [u8; LEN])> {
        let mut data = [0; LEN];
        let room = data.get_mut(..self.len).ok_or(Errno::EOVERFLOW)?;
        // SAFETY: who made the question vouches for it, and this is its data.
        let result = unsafe { inside.call(self.number, self.args, room) }?;
        Ok((result, data))
    }
}

/// Runs system calls inside a process, on one of its threads.
pub trait Inside {
    /// Makes a call. `data` is copied into the process before and out of it afterwards.
    ///
    /// ```compile_fail
    /// #![forbid(unsafe_code)]
    /// use state::{Arg, Here, Inside};
    /// let words = vec![0u64; 512];
    /// let zero = Arg::Value(0);
    /// let args = [Arg::Value(words.as_ptr() as usize), Arg::Value(4096), zero, zero, zero, zero];
    /// let _ = Here.call(sys::Sysno::munmap, args, &mut []);
    /// ```
    ///
    /// # Errors
    /// The call's.
    ///
    /// # Safety
    /// The kernel changes no memory of the process but `data`, or memory that is mapped for this call alone.
    unsafe fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize>;
    /// These calls come next: where each one costs much, they are made at once.
    fn prefetch(&mut self, _: &[Question]) {}
}

/// This thread of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here;

impl Inside for Here {
    unsafe fn call(&mut self, number: Sysno, args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let base = data.as_mut_ptr() as usize;
        let args = args.map(|arg| match arg {
            Arg::Value(n) => n,
            Arg::Data(offset) => base.wrapping_add(offset),
        });
        // SAFETY: pointers point into `data`; the caller vouches for the call.
        unsafe { sys::call(number, args) }
    }
}
