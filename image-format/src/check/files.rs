//! Rules of open files: descriptors, what they lead to, locks, contents of pipes, what epoll sets watch.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::description::{Files, Table};
use super::{Check, Result};
use crate::Rule;
use crate::record::descriptor::Descriptor;
use crate::record::epoll::Watch;
use crate::record::header::Features;
use crate::record::inotify::InotifyWatch;
use crate::record::lock::{Lock, LockKind};
use crate::record::process::FD_MASK;
use crate::record::pty::{ARGUMENT, CHMOD, HUNG_UP, Pty, PtyStep, REQUESTS, WRITE, WRITE_MAX};
use crate::record::socket::{FILTER_MAX, Socket, SocketStep, Step};
use crate::record::timerfd::Timerfd;
use crate::word::word;
use crate::{NoteType, StrRef};

/// The greatest number of a clock (time.h).
const CLOCK_MAX: u32 = 15;

/// Nanoseconds of a second, and seconds that the kernel keeps as nanoseconds (`KTIME_SEC_MAX`).
const SECOND: u64 = 1_000_000_000;
const SEC_MAX: u64 = i64::MAX as u64 / SECOND;

/// Bytes of the longest address or option of a socket.
const ADDRESS_MAX: usize = 256;

/// Bytes of the longest path.
const PATH_MAX: usize = 4096;

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
        self.descriptors(&files)?;
        self.locks(&files)?;
        self.pipes(&files)?;
        self.sockets(&files)?;
        self.terminals(&files)?;
        self.events(&files)
    }

    fn ascending(&self, table: &Table<'_>) -> Result {
        let mut least = 0;
        for record in table.iter() {
            let id = u64::from(word(record, 0));
            if id < least {
                let what = Rule::OpenFilesOutOfOrderOrRepeated;
                return self.bad(what, record);
            }
            least = id + 1;
        }
        Ok(())
    }

    fn descriptions(&self, files: &Files<'_>, table: &Table<'_>) -> Result {
        let kind = table.kind;
        for record in table.iter() {
            if files.holders(word(record, 0)) != 1 {
                return self.bad(Rule::TwoOpenFilesSameId, record);
            }
            if !self.requires(kind.needs) {
                return self.bad(Rule::FeatureHeaderDoesNotRequire, record);
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
            if fd < least
                || fd >= FD_MAX
                || fd > FD_MASK && !self.requires(Features::TREE) && !self.requires(Features::IN_TRANSIT)
            {
                return self.bad(Rule::DescriptorsOutOrderRepeatedTooGreat, descriptor);
            }
            if files.holders(descriptor.file.get()) == 0 {
                return self.bad(Rule::DescriptorOpenFileImageDoesNotDescribe, descriptor);
            }
            if descriptor.cloexec.get() > 1 {
                return self.bad(Rule::CloseOnExecFlagNeither0Nor1, descriptor);
            }
            least = fd.saturating_add(1);
        }
        // What is asked of an open file is asked of its first descriptor, which is found by its id.
        for descriptor in descriptors {
            let first = self.image.each::<Descriptor>().with(descriptor.file.get()).next();
            let first = first.filter(|one| one.file == descriptor.file);
            if first.is_none_or(|one| one.fd.get() > descriptor.fd.get()) {
                return self.bad(Rule::OpenFileNotCalledAfterFirstDescriptor, descriptor);
            }
        }
        Ok(descriptors)
    }

    fn locks(&self, files: &Files<'_>) -> Result {
        for lock in self.image.each::<Lock>() {
            if !self.requires(Features::LOCKS) {
                return self.bad(Rule::FeatureHeaderDoesNotRequire, lock);
            }
            if LockKind::from_number(lock.kind.get()).is_none() || lock.write.get() > 1 {
                return self.bad(Rule::LockUnknownKind, lock);
            }
            let is_lease = lock.kind.get() == LockKind::Lease as u32;
            if is_lease && !self.requires(Features::LEASES)
                || lock.signal.get() as usize > if is_lease { super::SIGNALS } else { 0 }
            {
                return self.bad(Rule::LeaseSignalThereNotImageRequiresNone, lock);
            }
            let end = lock.start.get().checked_add(lock.len.get());
            if end.is_none_or(|end| i64::try_from(end).is_err()) {
                return self.bad(Rule::LockReachesBeyondGreatestOffset, lock);
            }
            let file =
                self.image.each::<Descriptor>().with(lock.fd.get()).next().map(|descriptor| descriptor.file.get());
            if file.is_none_or(|id| !files.has(NoteType::Regular, id) && !files.has(NoteType::ContentFile, id)) {
                return self.bad(Rule::LockOnNoRegularFile, lock);
            }
        }
        Ok(())
    }

    pub(super) fn requires(&self, feature: Features) -> bool {
        self.image.header().required.get() & feature.bits() == feature.bits()
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
            let fits = self.image.bytes(one.bytes).is_some()
                && match step {
                    Step::Send => true,
                    Step::Filter => len <= FILTER_MAX && len.is_multiple_of(8) && len != 0,
                    Step::Within => len <= PATH_MAX,
                    _ => len <= ADDRESS_MAX,
                };
            if socket >= count || !there || !fits {
                return self.bad(Rule::StepSocketUnknownNamesImageDoesNot, one);
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
            if pty.master.get() != HUNG_UP && !is_master(pty.master.get()) || opened > PTYS_MAX {
                return self.bad(Rule::PseudoTerminalWithoutMasterImpossibleNumber, pty);
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
                return self.bad(Rule::StepPseudoTerminalUnknownDoesNotFitDoes, step);
            }
        }
        Ok(())
    }

    fn events(&self, files: &Files<'_>) -> Result {
        for timer in self.image.each::<Timerfd>() {
            if !matches!(timer.settime.get(), 0 | 1 | 3) || timer.clock.get() > CLOCK_MAX {
                return self.bad(Rule::TimerfdUnknownClockMode, timer);
            }
            if [timer.interval, timer.value].iter().any(|[sec, nsec]| sec.get() > SEC_MAX || nsec.get() >= SECOND) {
                return self.bad(Rule::TimerfdTimeBeyondAllClocks, timer);
            }
        }
        let mut last = (0, 0);
        for watch in self.image.each::<InotifyWatch>() {
            let (inotify, wd) = (watch.inotify.get(), watch.wd.get());
            if !files.has(NoteType::Inotify, inotify) || (inotify, wd) <= last || !(1..=WD_MAX).contains(&wd) {
                return self.bad(Rule::WatchOutOfOrderOrOfNoInotify, watch);
            }
            self.path(watch.path, watch.as_bytes())?;
            last = (inotify, wd);
        }
        let mut last = None;
        for watch in self.image.each::<Watch>() {
            let [epoll, fd, file] = [watch.epoll, watch.fd, watch.file].map(U32::get);
            if !files.has(NoteType::Epoll, epoll) || files.holders(file) == 0 || fd >= FD_MAX {
                return self.bad(Rule::EpollSetWatchesImageDoesNotDescribe, watch);
            }
            if last >= Some((epoll, fd, file)) {
                return self.bad(Rule::EpollSetsWatchOutOrderRepeated, watch);
            }
            last = Some((epoll, fd, file));
        }
        Ok(())
    }
}
