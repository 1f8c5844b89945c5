//! Rules of open files: descriptors, what they lead to, locks, contents of pipes, what epoll sets watch.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::description::{Files, Table, word};
use super::{Check, Result};
use crate::record::descriptor::Descriptor;
use crate::record::epoll::Watch;
use crate::record::header::Features;
use crate::record::inotify::InotifyWatch;
use crate::record::lock::{Lock, LockKind};
use crate::record::pipe::{CLOSED, Pipe, PipeData};
use crate::record::process::FD_MASK;
use crate::record::pty::{ARGUMENT, CHMOD, Pty, PtyStep, REQUESTS, WRITE, WRITE_MAX};
use crate::record::socket::{Socket, SocketStep, Step};
use crate::record::timerfd::Timerfd;
use crate::{NoteType, StrRef};

/// The greatest number of a clock (time.h).
const CLOCK_MAX: u32 = 15;

/// Nanoseconds of a second, and seconds that the kernel keeps as nanoseconds (`KTIME_SEC_MAX`).
const SECOND: u64 = 1_000_000_000;
const SEC_MAX: u64 = i64::MAX as u64 / SECOND;

/// Bytes of the longest address or option of a socket.
const ADDRESS_MAX: usize = 256;

/// Greatest number of an inotify watch: a restart counts up to it.
const WD_MAX: u32 = 1 << 16;

/// Greatest sum of the numbers of pseudo-terminals: a restart counts up to each.
const PTYS_MAX: u64 = 1 << 17;

/// No descriptor has this number: a restart needs one above all of them.
const FD_MAX: u32 = i32::MAX as u32;

impl<'a> Check<'_, 'a> {
    #[inline(never)] // A smaller frame has shorter addresses.
    pub(super) fn files(&self) -> Result {
        let files = Files::of(self.image);
        // First the order of each table: the searches for duplicates rely on it.
        for table in files.tables() {
            self.ascending(table)?;
        }
        for table in files.tables() {
            self.descriptions(&files, table)?;
        }
        let descriptors = self.descriptors(&files)?;
        self.locks(&files, descriptors)?;
        self.pipe_data(&files)?;
        self.sockets(&files)?;
        self.terminals(&files)?;
        self.events(&files)
    }

    fn ascending(&self, table: &Table<'_>) -> Result {
        let mut least = 0;
        for record in table.iter() {
            let id = u64::from(word(record, 0));
            if id < least {
                let what = "open files are out of order or repeated";
                return Err(self.malformed(what, record));
            }
            least = id + 1;
        }
        Ok(())
    }

    fn descriptions(&self, files: &Files<'_>, table: &Table<'_>) -> Result {
        let kind = table.kind;
        for record in table.iter() {
            if files.holders(word(record, 0)) != 1 {
                return Err(self.malformed("two open files have the same id", record));
            }
            if !self.requires(kind.needs) {
                return Err(self.malformed("a feature that the header does not require", record));
            }
            if kind.path == 0 {
                continue;
            }
            let path = StrRef { at: word(record, kind.path).into(), len: word(record, kind.path + 4).into() };
            if kind.named == 0 || word(record, kind.named) != 0 {
                self.path(path, record)?;
            } else {
                self.string(path)?;
            }
        }
        Ok(())
    }

    fn descriptors(&self, files: &Files<'_>) -> Result<&'a [Descriptor]> {
        let descriptors = self.image.rows::<Descriptor>();
        let mut least = 0u32;
        for descriptor in descriptors {
            let fd = descriptor.fd.get();
            if fd < least || fd >= FD_MAX || fd > FD_MASK && !self.requires(Features::TREE) {
                return self.bad("descriptors are out of order, repeated, or too great", descriptor);
            }
            if files.holders(descriptor.file.get()) == 0 {
                return self.bad("a descriptor of an open file that the image does not describe", descriptor);
            }
            if descriptor.cloexec.get() > 1 {
                return self.bad("a close-on-exec flag is neither 0 nor 1", descriptor);
            }
            least = fd.saturating_add(1);
        }
        Ok(descriptors)
    }

    fn locks(&self, files: &Files<'_>, descriptors: &[Descriptor]) -> Result {
        for lock in self.image.each::<Lock>() {
            if !self.requires(Features::LOCKS) {
                return self.bad("a feature that the header does not require", lock);
            }
            if LockKind::from_number(lock.kind.get()).is_none() || lock.write.get() > 1 {
                return self.bad("a lock of an unknown kind", lock);
            }
            let is_lease = lock.kind.get() == LockKind::Lease as u32;
            if is_lease && !self.requires(Features::LEASES)
                || lock.signal.get() as usize > if is_lease { super::SIGNALS } else { 0 }
            {
                return self.bad("a lease with a signal that there is not, or in an image that requires none", lock);
            }
            let end = lock.start.get().checked_add(lock.len.get());
            if end.is_none_or(|end| i64::try_from(end).is_err()) {
                return self.bad("a lock reaches beyond the greatest offset", lock);
            }
            let at = descriptors.binary_search_by_key(&lock.fd.get(), |descriptor| descriptor.fd.get());
            let file = at.ok().and_then(|at| descriptors.get(at)).map(|descriptor| descriptor.file.get());
            if file.is_none_or(|id| !files.has(NoteType::Regular, id) && !files.has(NoteType::ContentFile, id)) {
                return self.bad("a lock on what is no regular file", lock);
            }
        }
        Ok(())
    }

    pub(super) fn requires(&self, feature: Features) -> bool {
        self.image.header().required.get() & feature.bits() == feature.bits()
    }

    fn pipe_data(&self, files: &Files<'_>) -> Result {
        // The ends' access modes: 0 reads, 1 writes.
        let is_end = |id: u32, mode: u32| {
            let pipe = files.find(NoteType::Pipe, id).and_then(|bytes| Pipe::ref_from_bytes(bytes).ok());
            id == CLOSED || pipe.is_some_and(|p| p.flags.get() & 3 == mode && p.named.get() == 0)
        };
        // A FIFO of which both ends are inside: any end that can be read.
        let is_fifo = |data: &PipeData| {
            let pipe = files.find(NoteType::Pipe, data.read.get()).and_then(|bytes| Pipe::ref_from_bytes(bytes).ok());
            data.write.get() == CLOSED && pipe.is_some_and(|p| p.named.get() != 0 && p.flags.get() & 3 != 1)
        };
        // The stub that knows no trees refuses them all.
        let knows = cfg!(any(not(feature = "terse"), feature = "tree"));
        for pipe in self.image.each::<Pipe>().filter(|pipe| knows && pipe.again.get() != 0) {
            let is_made = |other: &Pipe| {
                let id = other.id.get();
                other.ino == pipe.ino
                    && (other.again.get(), other.named.get()) == (0, 0)
                    && self.image.each::<PipeData>().any(|data| [data.read.get(), data.write.get()].contains(&id))
            };
            if !self.requires(Features::PIPES_AGAIN)
                || pipe.named.get() != 0
                || !self.image.each::<Pipe>().any(is_made)
                || self.image.each::<PipeData>().any(|data| data.read == pipe.id || data.write == pipe.id)
            {
                return self.bad("an end of a pipe that was opened again, without the pipe", pipe);
            }
        }
        let mut last = (0, 0);
        for one in self.image.each::<PipeData>() {
            let ends = (one.read.get(), one.write.get());
            if !self.requires(Features::INNER_PIPES) {
                return self.bad("a feature that the header does not require", one);
            }
            if !is_fifo(one) && (ends.0 == ends.1 || !is_end(ends.0, 0) || !is_end(ends.1, 1)) {
                return self.bad("a pipe's contents without its two ends", one);
            }
            let size = one.size.get() as usize;
            if self.image.bytes(one.bytes).is_none_or(|bytes| bytes.len() > size) || one.packet.get() > 1 {
                return self.bad("a pipe's contents do not fit the strings or its buffer", one);
            }
            if ends < last {
                return self.bad("contents of pipes are out of order", one);
            }
            last = ends;
        }
        Ok(())
    }

    fn sockets(&self, files: &Files<'_>) -> Result {
        let count = self.image.each::<Socket>().count();
        for one in self.image.each::<SocketStep>() {
            let (socket, a, b) = (one.socket.get() as usize, one.a.get() as usize, one.b.get() as usize);
            let len = one.bytes.len.get() as usize;
            let (step, there) = match Step::from_number(one.step.get()) {
                None => (Step::Wish, false),
                Some(Step::Accept) => (Step::Accept, a < count && b < count),
                Some(step @ Step::Pair) => (step, a < count),
                Some(step @ Step::Connect) => (step, a < count || len != 0),
                Some(step @ Step::Right) => (step, if b == 0 { files.holders(a as u32) != 0 } else { a < count }),
                Some(step) => (step, true),
            };
            let fits = self.image.bytes(one.bytes).is_some() && (len <= ADDRESS_MAX || step == Step::Send);
            if socket >= count || !there || !fits {
                return self.bad("a step of a socket that is unknown, or names what the image does not have", one);
            }
        }
        Ok(())
    }

    fn terminals(&self, files: &Files<'_>) -> Result {
        const MASTER: u8 = core::mem::offset_of!(Pty, master) as u8;
        let is_master = |id: u32| files.find(NoteType::Pty, id).is_some_and(|pty| word(pty, MASTER) == id);
        let mut opened = 0;
        for pty in self.image.each::<Pty>() {
            opened += u64::from(pty.number.get());
            if !is_master(pty.master.get()) || opened > PTYS_MAX {
                return self.bad("a pseudo-terminal without its master, or with an impossible number", pty);
            }
        }
        for step in self.image.each::<PtyStep>() {
            let (request, echo) = (step.request.get(), step.echo.get() as usize);
            let bytes = self.image.bytes(step.bytes).map_or(usize::MAX, <[u8]>::len);
            let fits = match request {
                WRITE => bytes <= WRITE_MAX && echo <= bytes,
                // Of a master it would be that of `/dev/ptmx`.
                CHMOD => echo <= 0o777 && step.slave.get() != 0,
                _ => bytes == ARGUMENT && REQUESTS.contains(&request),
            };
            if !fits || !is_master(step.master.get()) {
                return self.bad("a step of a pseudo-terminal that is unknown, or does not fit what it does", step);
            }
        }
        Ok(())
    }

    fn events(&self, files: &Files<'_>) -> Result {
        for timer in self.image.each::<Timerfd>() {
            if !matches!(timer.settime.get(), 0 | 1 | 3) || timer.clock.get() > CLOCK_MAX {
                return self.bad("a timerfd of unknown clock or mode", timer);
            }
            if [timer.interval, timer.value].iter().any(|[sec, nsec]| sec.get() > SEC_MAX || nsec.get() >= SECOND) {
                return self.bad("a timerfd's time is beyond all clocks", timer);
            }
        }
        let mut last = (0, 0);
        for watch in self.image.each::<InotifyWatch>() {
            let (inotify, wd) = (watch.inotify.get(), watch.wd.get());
            if !files.has(NoteType::Inotify, inotify) || (inotify, wd) <= last || !(1..=WD_MAX).contains(&wd) {
                return self
                    .bad("a watch of inotify is out of order, has an impossible number, or belongs to none", watch);
            }
            self.path(watch.path, watch.as_bytes())?;
            last = (inotify, wd);
        }
        let mut last = None;
        for watch in self.image.each::<Watch>() {
            let [epoll, fd, file] = [watch.epoll, watch.fd, watch.file].map(U32::get);
            if !files.has(NoteType::Epoll, epoll) || files.holders(file) == 0 || fd >= FD_MAX {
                return self.bad("an epoll set watches what the image does not describe", watch);
            }
            if last >= Some((epoll, fd, file)) {
                return self.bad("what epoll sets watch is out of order or repeated", watch);
            }
            last = Some((epoll, fd, file));
        }
        Ok(())
    }
}
