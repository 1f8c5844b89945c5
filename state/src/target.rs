//! The process that is being saved, as the objects see it: the same from inside and from outside.
//!
//! Most facts lie in `/proc/PID`, which looks alike from both sides; what only the process itself can ask goes
//! through [`Inside::call`], which a local target runs and a remote one injects. Must never be asked to run a
//! call that changes the process for good.

use core::cmp::Ordering;

use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::writer::Full;
use image_format::{Notes, Record};
use sys::Errno;
use sys::fs::{Fd, Owned};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::WithFiles;
use crate::descriptor::{Kind, OpenFile};
use crate::inside::Inside;
use crate::socket::leave::Leaving;
use crate::socket::shield;
use crate::{Error, Result};

/// A process whose threads all stand still.
pub trait Target: Inside + Sync {
    /// Whether its memory can be read in place, as the saver runs inside it.
    const IN_PROCESS: bool;
    /// Its pid, as it sees it itself.
    fn pid(&self) -> i32;
    /// Its directory in `/proc`, open.
    fn proc(&self) -> Fd;
    /// The directory in `/proc` of the process whose memory is saved: its own, or that of a copy of it, which has inherited
    /// all that fork(2) hands on but its descriptors.
    fn memory_proc(&self) -> Fd {
        self.proc()
    }
    /// What still has to be read changes nothing that a copy of the process would have: it may be made beside that.
    fn copy_ahead(&mut self) {}
    /// How many processes it is: a tree's descriptors stand in one table, see [`image_format::record::process`].
    fn processes(&self) -> usize {
        1
    }
    /// Whether its children are saved, too.
    fn takes_children(&self) -> bool {
        false
    }
    /// Whether its descriptors can be looked into: a filter may forbid that to whoever looks at a process that runs.
    fn shows_descriptors(&self) -> bool {
        true
    }
    /// Whether seccomp filters can be read; whether they are carried is found when they are.
    fn reads_filters(&self) -> bool {
        false
    }
    /// From now on all but descriptors is asked of the process at this place, which is below [`Target::processes`].
    fn enter(&mut self, _: usize) {}
    /// The directory in `/proc` of the process at a place.
    fn proc_of(&self, _: usize) -> Fd {
        self.proc()
    }
    /// Whose descriptor stands under a number of the table, by its directory in `/proc`, and its own number there.
    fn at(&self, fd: u32) -> (Fd, u32) {
        (self.proc_of((fd >> FD_BITS) as usize), fd & FD_MASK)
    }
    /// An address of this process as one that [`Target::read_memory`] takes whichever is entered by then.
    fn address(&self, addr: u64) -> u64 {
        addr
    }
    /// Everything but memory has been read: whoever can do without the process itself lets it go on.
    ///
    /// # Errors
    /// It cannot be let go; then it stands still until the save is over.
    fn thaw(&mut self) -> Result<()> {
        Ok(())
    }
    /// The id by which this process knows the thread that its own process knows as `tid`.
    fn tid_here(&self, tid: i32) -> i32 {
        tid
    }
    /// The other way about.
    fn tid_there(&self, tid: i32) -> i32 {
        tid
    }
    /// Whether [`Target::thaw`] will let it go on while its memory is written.
    fn is_live(&self) -> bool {
        false
    }
    /// It shall stand still after all until the image is written, for this reason.
    fn hold(&mut self, _: &'static str) {}
    /// Whether a thread of it stands at an address within this range.
    fn stands_in(&self, _: &core::ops::Range<u64>) -> bool {
        false
    }
    /// What `/proc/PID/smaps` tells of its mappings, where they are those that are saved.
    ///
    /// # Errors
    /// openat(2)'s.
    fn smaps(&self) -> sys::Result<Owned> {
        sys::fs::open_at(self.memory_proc(), c"smaps", sys::abi::O_RDONLY, 0)
    }
    /// Whether its memory is that of a copy made by fork(2), which wipes what `MADV_WIPEONFORK` asks for.
    fn is_copy(&self) -> bool {
        false
    }
    /// Told of each thing that cannot be carried: who only wants to know them all takes them, and goes on.
    ///
    /// # Errors
    /// The same, when it shall end the save.
    fn blocked(&mut self, error: Error) -> Result<()> {
        Err(error)
    }
    /// Whether it may have shared mappings.
    fn shares_any(&self) -> bool {
        !matches!(sys::memory::shares_any(self.proc()), Ok(false))
    }
    /// Whether it has locked memory; `None`: that is to be asked.
    fn locks_memory(&self) -> Option<bool> {
        None
    }
    /// Whether a descriptor of it belongs to the saver.
    fn is_ours(&self, fd: Fd) -> bool;
    /// The range of its memory that belongs to the saver; empty when there is none.
    fn our_memory(&self) -> core::ops::Range<u64>;
    /// Whether two of its descriptors share one open file description; `None` when the kernel does not tell.
    fn same_description(&self, a: Fd, b: Fd) -> Option<bool>;
    /// Which of two of its descriptors' open file descriptions comes first in an order that holds for all of them; `None` when the kernel
    /// does not tell.
    fn order_of_descriptions(&self, a: Fd, b: Fd) -> Option<Ordering>;
    /// Whether a descriptor of the saver's own (see [`Target::borrow`]) is the same open file description as one of its
    /// descriptors; `None` when the kernel does not tell.
    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool>;
    /// Which open files' contents are carried, too.
    fn carries_files(&self) -> WithFiles {
        WithFiles::None
    }

    /// Whether another process, by its id as the saver sees it, is saved together with this one.
    fn is_along(&self, pid: i32) -> bool {
        self.inner_id(pid).is_some()
    }

    /// The id by which such a process knows itself; `None`: it is not saved.
    fn inner_id(&self, _pid: i32) -> Option<i32> {
        None
    }

    /// Whether connections to other processes are to be reset at the restart, instead of being refused now.
    fn resets_connections(&self) -> bool {
        false
    }
    /// Whether connections to other processes are carried: the process ends when its image is durable.
    fn keeps_connections(&self) -> bool {
        false
    }

    /// Holds such a connection (see [`crate::socket::repair`]) up to that end, or until the process goes on after all.
    ///
    /// # Errors
    /// It cannot be held.
    fn keep_connection(&mut self, _: Owned) -> sys::Result<()> {
        Err(Errno::EPERM)
    }
    /// Whether the process stands still, so that it does not notice what is changed for a moment, or looked into: who only asks what would
    /// block a save lets it run.
    fn stands_still(&self) -> bool {
        true
    }
    /// Takes over a descriptor of the saver's own, for what a process has in transit and in no other way; its number in the table, in
    /// which it stands as if a process behind the last one had it. `None`: it cannot be carried so.
    ///
    /// # Errors
    /// No descriptor is free.
    fn adopt(&mut self, _: Owned) -> sys::Result<Option<u32>> {
        Ok(None)
    }
    /// Should the process be ended when its image is durable, this socket of it is left so before.
    fn leave(&mut self, _fd: u32, _how: Leaving) {}

    /// Does something that changes the process for a moment, and puts it back; `undo` does that if the saver ends meanwhile.
    ///
    /// # Errors
    /// Nobody can see to that: nothing was done.
    ///
    /// # Safety
    /// `undo` makes system calls and atomic stores alone.
    unsafe fn guarded<R>(&mut self, _undo: impl FnOnce(), act: impl FnOnce() -> R) -> sys::Result<R> {
        Ok(act())
    }
    /// The name of what lets nothing in for those connections from the process's end on; the restart takes it away. `None`: nothing does.
    fn shield(&mut self) -> Option<shield::Name> {
        None
    }
    /// Whether the description of one of its descriptors comes before what its epoll set `epoll` watches under `number`, as the `nth` of
    /// that number in the kernel's list, or is that, in the order of [`Target::order_of_descriptions`]; `None` when the kernel does not tell.
    fn order_of_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<Ordering>;
    /// A descriptor of the saver's own, for a moment, for the open file description of one of its descriptors. No
    /// files: closing it gives up the process's locks on a file.
    ///
    /// # Errors
    /// No descriptor is free, or the kernel does not allow it.
    fn borrow(&self, fd: Fd) -> sys::Result<Owned>;
    /// Copies memory of it, also what it may not read itself.
    ///
    /// # Errors
    /// EIO or EFAULT where nothing is mapped, or behind the end of a mapped file.
    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()>;
    /// The same where pages are a file's own and not the process's: by whatever way is the fastest.
    ///
    /// # Errors
    /// As for [`Target::read_memory`].
    fn read_file_pages(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        self.read_memory(addr, to)
    }
}

/// What the objects' `save` halves work with.
#[derive(Debug)]
pub struct Save<'s, 'b, T> {
    /// The process.
    pub target: &'s mut T,
    /// The notes under construction.
    pub notes: Notes<'b>,
    /// Memory for tables that live until the image is written.
    pub scratch: Scratch<'b>,
}

impl<T: Target> Save<'_, '_, T> {
    /// Does a part of the walk. Whoever only asks what cannot be carried takes that, and goes on with the next part.
    ///
    /// # Errors
    /// The part's, where it ends the save.
    pub fn part(&mut self, part: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        part(self).or_else(|error| self.target.blocked(error))
    }

    /// Writes a table: one record for each open file description of this kind, ascending by id.
    ///
    /// # Errors
    /// What `make` finds; no room.
    pub fn each<R: Record>(
        &mut self,
        files: &[OpenFile],
        kind: Kind,
        mut make: impl FnMut(&mut T, &OpenFile) -> Result<R>,
    ) -> Result<()> {
        self.notes.begin(R::TYPE)?;
        for file in files.iter().filter(|f| f.is_first(kind)) {
            self.notes.push(&make(self.target, file)?)?;
        }
        self.notes.end()?;
        Ok(())
    }
}

/// Zeroed memory that is given out in pieces and never taken back: the saver's heap.
#[derive(Debug)]
pub struct Scratch<'b> {
    rest: &'b mut [u8],
}

impl<'b> Scratch<'b> {
    /// Gives out pieces of `memory`, which must be zero.
    #[must_use]
    pub fn new(memory: &'b mut [u8]) -> Self {
        Self { rest: memory }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn room(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes, at an address that is a multiple of 16.
    ///
    /// # Errors
    /// No room.
    pub fn bytes(&mut self, len: usize) -> Result<&'b mut [u8], Full> {
        let rest = core::mem::take(&mut self.rest);
        let skip = rest.as_ptr().align_offset(16);
        let (_, rest) = rest.split_at_mut_checked(skip).ok_or(Full)?;
        let (piece, rest) = rest.split_at_mut_checked(len).ok_or(Full)?;
        self.rest = rest;
        Ok(piece)
    }

    /// The next `count` values, all zero.
    ///
    /// # Errors
    /// No room.
    pub fn take<R: FromBytes + IntoBytes + Immutable + KnownLayout>(
        &mut self,
        count: usize,
    ) -> Result<&'b mut [R], Full> {
        let len = count.checked_mul(size_of::<R>()).ok_or(Full)?;
        <[R]>::mut_from_bytes(self.bytes(len)?).map_err(|_| Full)
    }

    /// All that is left, as values of one type.
    ///
    /// # Errors
    /// Not even room for one.
    pub fn rest<R: FromBytes + IntoBytes + Immutable + KnownLayout>(&mut self) -> Result<&'b mut [R], Full> {
        let room = self.rest.len().saturating_sub(16) / size_of::<R>();
        self.take(room)
    }
}

/// The value of a line `Key:\tvalue` of `/proc/PID/status`, or of another file of that shape.
///
/// # Errors
/// The file cannot be read.
pub fn status_value<'t>(
    proc: Fd,
    file: &core::ffi::CStr,
    key: &[u8],
    to: &'t mut [u8],
) -> sys::Result<Option<&'t [u8]>> {
    let mut buffer = [0; 2048];
    let mut lines = sys::fs::Lines::open_at(proc, file, &mut buffer)?.pass_long().whole();
    while let Some(line) = lines.next_line()? {
        let Some(rest) = line.strip_prefix(key).and_then(|l| l.strip_prefix(b":")) else { continue };
        let value = rest.trim_ascii();
        let to = to.get_mut(..value.len()).ok_or(Errno::EOVERFLOW)?;
        to.copy_from_slice(value);
        return Ok(Some(to));
    }
    Ok(None)
}

/// The id that a process or thread has in its own, innermost pid namespace, by its `status` in the directory of `/proc`.
#[must_use]
pub fn inner_id(proc: Fd, status: &core::ffi::CStr) -> Option<i32> {
    let mut buffer = [0; 256];
    let ids = status_value(proc, status, b"NSpid", &mut buffer).ok().flatten()?;
    sys::text::words(ids).last().and_then(sys::text::decimal).and_then(|n| i32::try_from(n).ok())
}

/// The id of a process's parent; 0 when the parent cannot be seen from here.
///
/// # Errors
/// Its status cannot be read.
pub fn parent(proc: Fd) -> sys::Result<u32> {
    let mut buffer = [0; 16];
    let parent = status_value(proc, c"status", b"PPid", &mut buffer)?;
    parent.and_then(sys::text::decimal).map(|parent| parent as u32).ok_or(Errno::ENOENT)
}
