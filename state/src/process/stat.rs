//! `/proc/PID/stat`: one line of numbers behind a name that may hold anything.

use core::ffi::CStr;

use sys::Errno;
use sys::fs::Fd;
use sys::text::{decimal, words};

/// Fields, as proc_pid_stat(5) counts them: the third is the first behind the name.
const BEHIND: usize = 3;

/// What the line says.
pub struct Stat {
    /// The process's id, as the others in here are: in the pid namespace of this `/proc`.
    pub pid: i64,
    /// The name, filled up with zeros.
    pub name: [u8; 16],
    fields: [i64; 50],
}

impl Stat {
    /// Reads it.
    ///
    /// # Errors
    /// The process is gone, or the line has another form.
    pub fn read(proc: Fd) -> sys::Result<Self> {
        Self::read_at(proc, c"stat")
    }

    /// Reads that of a thread: `task/TID/stat`.
    ///
    /// # Errors
    /// As for [`Stat::read`].
    pub fn read_at(proc: Fd, path: &CStr) -> sys::Result<Self> {
        let mut text = [0; 1024];
        let text = sys::fs::read_file_at(proc, path, &mut text)?;
        let (open, close) = (text.iter().position(|b| *b == b'('), text.iter().rposition(|b| *b == b')'));
        let (open, close) = open.zip(close).ok_or(Errno::EINVAL)?;
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(text.get(open + 1..close).unwrap_or_default()) {
            *to = *from;
        }
        let pid = words(text).next().and_then(decimal).map_or(0, |n| n as i64);
        let mut fields = [0; 50];
        for (to, word) in fields.iter_mut().zip(words(text.get(close + 1..).unwrap_or_default())) {
            let (sign, digits) = word.strip_prefix(b"-").map_or((1, word), |digits| (-1, digits));
            *to = decimal(digits).map_or(0, |n| sign * n as i64);
        }
        Ok(Self { pid, name, fields })
    }

    /// The field of this number; 0 for one that is not there, or no number.
    #[must_use]
    pub fn field(&self, number: usize) -> i64 {
        number.checked_sub(BEHIND).and_then(|at| self.fields.get(at)).copied().unwrap_or(0)
    }
}
