//! The rules that hold between the tables of an image: ids that must be unique, references that must lead somewhere.
//!
//! [`crate::Image::check_seal`] has proved that the bytes are those that were written; a hostile writer seals
//! nonsense just as well. Restart and `ckpt verify` both run [`records`] before they believe a table.
//!
//! Must never take more than a few passes over the tables, whatever their counts: lookups are binary searches.

mod content;
pub(crate) mod description;
mod files;
mod frame;
mod job;
mod pipe;
mod process;
mod seccomp;
mod semaphore;
mod sysv;

use core::cell::Cell;

use crate::note;
use crate::record::cwd::Cwd;
use crate::record::deadline::Deadline;
use crate::record::guard::Guard;
use crate::record::header::Features;
use crate::record::itimer::Itimer;
use crate::record::memory::{Backing, BackingFlags, NO_BACKING, Vma, VmaFlags, VmaKind};
use crate::record::mm::Mm;
use crate::record::pending::Pending;
use crate::record::pkey::Pkey;
use crate::record::posix_timer::{PROCESS_CPU, PosixTimer, THREAD_CPU};
use crate::record::rlimit::Rlimit;
use crate::record::sched::{Affinity, CPUS_MAX, Sched};
use crate::record::setting::{Setting, WHICH};
use crate::record::shared_file::SharedFile;
use crate::record::sigaction::Sigaction;
use crate::record::thread::{Thread, ThreadFlags};
use crate::record::umask::Umask;
use zerocopy::IntoBytes;

use crate::{Fault, Image, PAGE, Record, Rule, SEGMENT_MAX, StrRef, USER_END};

/// `PROT_READ | PROT_WRITE | PROT_EXEC`.
const PROT_ALL: u32 = 7;
const PROT_EXEC: u32 = 4;

/// Signals, and so entries of the table of actions.
const SIGNALS: usize = 64;

/// `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`: those that begin anew with each boot.
const CLOCKS: [u32; 2] = [1, 7];

/// `RLIM_NLIMITS`.
const RLIMITS: u32 = 16;

/// Bytes of auxiliary vector: the kernel's own room for it is smaller (`AT_VECTOR_SIZE`).
const AUXV_MAX: usize = 1024;

/// Most POSIX timers: what a save carries.
const POSIX_TIMERS_MAX: usize = 64;

/// Threads that may be passed over in looking for those of pending signals: no real process comes near.
const MATCH_MAX: usize = 1 << 28;

/// Checks every record and every reference of an image whose seal was checked.
///
/// # Errors
/// The first rule that is broken, with the record's place in the file.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn records(image: &Image<'_>) -> Result<(), Fault> {
    let check = Check { image, fault: Cell::new(Fault::Empty) };
    check.all().map_err(|Broken| check.fault.get())
}

/// A rule is broken, and [`Check`] knows which.
struct Broken;

/// One byte: a fault is four words, and would be copied at every `?`.
type Result<T = (), E = Broken> = core::result::Result<T, E>;

struct Check<'i, 'a> {
    image: &'i Image<'a>,
    /// The first fault, once there is one.
    fault: Cell<Fault>,
}

impl<'a> Check<'_, 'a> {
    fn all(&self) -> Result {
        self.memory()?;
        self.threads()?;
        self.process()?;
        self.contents()?;
        self.tree()?;
        self.sysv()?;
        self.semaphores()?;
        self.job()?;
        self.files()
    }

    /// A rule is broken by what lies at this place of the notes.
    fn bad<T, R: ?Sized>(&self, what: Rule, place: &R) -> Result<T> {
        Err(self.malformed(what, core::ptr::from_ref(place).addr()))
    }

    #[cold]
    #[inline(never)]
    fn malformed(&self, what: Rule, address: usize) -> Broken {
        self.fault.set(Fault::malformed(what, self.image.offset_of(address)));
        Broken
    }

    /// The string resolves.
    #[inline(never)]
    fn string(&self, string: StrRef) -> Result<&'a [u8]> {
        self.image.string(string).map_err(|fault| {
            self.fault.set(fault);
            Broken
        })
    }

    /// The string resolves, and is an absolute path.
    fn path(&self, path: StrRef, record: &[u8]) -> Result {
        if self.string(path)?.first() == Some(&b'/') {
            return Ok(());
        }
        self.bad(Rule::PathNotAbsolute, record)
    }

    /// The record of a type that an image has exactly one of.
    fn single<R: Record>(&self) -> Result<&'a R> {
        let mut all = self.image.each();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            _ => self.bad(Rule::RecordNotThereOnce, self.image.header()),
        }
    }

    fn memory(&self) -> Result {
        let backings = self.image.rows::<Backing>();
        for backing in backings {
            if backing.flags.get() & BackingFlags::RING.bits() == 0 {
                self.path(backing.path, backing.as_bytes())?;
            }
            if backing.flags.get() & BackingFlags::CONTENT.bits() != 0 && !self.is_nameless(backing.content.get()) {
                return self.bad(Rule::FileSharedContentsNotThere, backing);
            }
        }
        let pkey = self.image.each::<Pkey>().next();
        if let Some(pkey) = pkey.filter(|_| !self.requires(Features::PROTECTION_KEYS)) {
            return self.bad(Rule::ProtectionKeysNotRequired, pkey);
        }
        let keys = pkey.map_or(1, |pkey| pkey.keys.get() | 1);
        for vma in self.image.each::<Vma>() {
            self.string(vma.name)?;
            // The restart makes sure that it has all of these.
            if keys >> vma.key.get().min(31) & 1 == 0 {
                return self.bad(Rule::MappingWithUnknownKey, vma);
            }
            if vma.flags.get() & VmaFlags::SEALED.bits() != 0 && !self.requires(Features::SEALED) {
                return self.bad(Rule::SealsNotRequired, vma);
            }
            if vma.prot.get() & !PROT_ALL != 0 {
                return self.bad(Rule::MappingUnknownProtectionBits, vma);
            }
            let of_file =
                matches!(VmaKind::from_number(vma.kind.get()), Some(VmaKind::FilePrivate | VmaKind::FileShared));
            let backing = vma.backing.get();
            if of_file && backings.get(backing as usize).is_none() {
                return self.bad(Rule::MappingFileImageDoesNotName, vma);
            }
            if !of_file && backing != NO_BACKING {
                return self.bad(Rule::MappingCannotFileNamesOne, vma);
            }
            if of_file && !vma.offset.get().is_multiple_of(PAGE) {
                return self.bad(Rule::MappingOffsetFileNotPageAligned, vma);
            }
            if of_file && vma.flags.get() & VmaFlags::GROWS_DOWN.bits() != 0 {
                return self.bad(Rule::MappingFileGrowsDown, vma);
            }
        }
        for piece in self.image.each::<SharedFile>() {
            self.path(piece.path, piece.as_bytes())?;
            let (offset, len) = (piece.offset.get(), u64::from(piece.len.get()));
            let fits = offset.is_multiple_of(PAGE)
                && offset < i64::MAX as u64 - SEGMENT_MAX
                && (1..=SEGMENT_MAX).contains(&len);
            if !fits || !self.requires(Features::SHARED_FILES) {
                return self.bad(Rule::PieceSharedFileNoFileCan, piece);
            }
        }
        self.guards()
    }

    /// The first mapping that ends behind an address: that of the address, if there is one.
    #[inline(never)] // So that it exists once.
    fn mapping_at(&self, address: u64) -> Option<&'a Vma> {
        let vmas = self.image.rows::<Vma>();
        vmas.get(vmas.partition_point(|vma| vma.end.get() <= address))
    }

    fn guards(&self) -> Result {
        let mut least = 0;
        for guard in self.image.each::<Guard>() {
            let (start, end) = (guard.start.get(), guard.end.get());
            let vma = self.mapping_at(start);
            let inside = vma.is_some_and(|vma| vma.start.get() <= start && end <= vma.end.get());
            let aligned = start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
            if !inside || !aligned || start < least || start >= end || !self.requires(Features::GUARDS) {
                return self.bad(Rule::GuardRegionOutOrderNoMapping, guard);
            }
            least = end;
        }
        Ok(())
    }

    #[inline(never)] // A smaller frame has shorter addresses.
    fn threads(&self) -> Result {
        let threads = self.image.rows::<Thread>();
        let header = self.image.header();
        let Some(first) = threads.first() else {
            return self.bad(Rule::ImageWithoutThreads, header);
        };
        for deadline in self.image.each::<Deadline>() {
            let at = deadline.at.get();
            if at >= USER_END || !at.is_multiple_of(8) || !CLOCKS.contains(&deadline.clock.get()) {
                return self.bad(Rule::DeadlineNoAddressOnUnknownClock, deadline);
            }
        }
        let (mut leaders, mut current) = (0usize, 0usize);
        for thread in threads {
            let flags = ThreadFlags::from_bits_truncate(thread.flags.get());
            let leads = flags.contains(ThreadFlags::LEADER);
            if leads != (thread.tid == header.pid) {
                return self.bad(Rule::ThreadLeadsWithoutProcessIdReverse, thread);
            }
            leaders += usize::from(leads);
            current += usize::from(flags.contains(ThreadFlags::CURRENT));
            let jmp = &thread.jmp;
            let (tid_address, stack) = (thread.tid_address, thread.altstack_sp);
            let ids = [tid_address, thread.runtime_tid];
            let addresses = [jmp.rsp, jmp.fs_base, jmp.gs_base, thread.robust_list, thread.rseq, stack];
            let addresses = addresses.iter().chain(&ids);
            if { addresses }.any(|address| address.get() >= USER_END) {
                return self.bad(Rule::AddressThreadLiesKernelSpace, thread);
            }
            let rip = jmp.rip.get();
            let code = self.mapping_at(rip).is_some_and(|v| v.start.get() <= rip && v.prot.get() & PROT_EXEC != 0);
            if !code {
                return self.bad(Rule::ThreadGoesOnWhereNoCode, thread);
            }
            // A control word with reserved bits would be a fault in the restart's last assembly.
            if jmp.mxcsr.get() & !0xffff != 0 {
                return self.bad(Rule::ThreadMXCSRReservedBits, thread);
            }
            let flags = thread.flags.get();
            if flags & ThreadFlags::TID_WORD.bits() != 0 && thread.tid_address.get() == 0 {
                return self.bad(Rule::ThreadKeepsIdNoAddress, thread);
            }
        }
        if header.stopped.get() > u32::from(self.requires(Features::FULL_FRAME)) {
            return self.bad(Rule::ProcessWasStoppedDidNotSayHowGoesOn, header);
        }
        if leaders != 1 || current != 1 {
            return self.bad(Rule::NotExactlyOneThreadLeadsMadeSave, first);
        }
        self.frames(threads)?;
        self.seccomp(threads)?;
        self.pending(threads)
    }

    fn pending(&self, threads: &[Thread]) -> Result {
        self.ascending_by_thread::<Pending>()?;
        self.ascending_by_thread::<Sched>()?;
        self.ascending_by_thread::<Affinity>()?;
        // Mostly threads stand in the same order: the next one is looked for where the last one was found.
        let (mut from, mut work) = (0, 0);
        for signal in self.image.each::<Pending>() {
            let tid = signal.tid.get();
            let (before, behind) = threads.split_at(from);
            let found = behind.iter().chain(before).position(|thread| thread.tid.get() == tid);
            work += found.unwrap_or(0);
            if tid != 0 && found.is_none() || work > MATCH_MAX {
                return self.bad(Rule::PendingSignalNoThreadImage, signal);
            }
            from = if tid == 0 { 0 } else { (from + found.unwrap_or(0)) % threads.len() };
            let number = signal.siginfo.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            if number == 0 || number as usize > SIGNALS {
                return self.bad(Rule::PendingSignalNoValidNumber, signal);
            }
        }
        Ok(())
    }

    /// What is a thread's is found by its id, which such records begin with.
    fn ascending_by_thread<R: Record>(&self) -> Result {
        let mut least = 0;
        for record in self.image.each::<R>() {
            let tid = crate::word::word(record.as_bytes(), 0);
            if tid < least {
                return self.bad(Rule::ThreadsOutOrder, record);
            }
            least = tid;
        }
        Ok(())
    }

    fn process(&self) -> Result {
        let mm = self.single::<Mm>()?;
        self.path(mm.exe, mm.as_bytes())?;
        let ranges = [
            (mm.start_code, mm.end_code),
            (mm.start_data, mm.end_data),
            (mm.start_brk, mm.brk),
            (mm.arg_start, mm.arg_end),
            (mm.env_start, mm.env_end),
            (mm.start_stack, mm.start_stack),
        ];
        if ranges.into_iter().any(|(start, end)| start.get() > end.get() || end.get() > USER_END) {
            return self.bad(Rule::RangeMmFieldsReversedKernelSpace, mm);
        }
        let auxv = self.image.note_of(note::CORE, note::standard::NT_AUXV).unwrap_or_default();
        if auxv.is_empty() || auxv.len() > AUXV_MAX || !auxv.len().is_multiple_of(16) {
            return self.bad(Rule::AuxiliaryVectorMissingTornTooLong, mm);
        }
        let cwd = self.single::<Cwd>()?;
        self.path(cwd.path, cwd.as_bytes())?;
        let umask = self.single::<Umask>()?;
        if umask.mask.get() & !0o777 != 0 {
            return self.bad(Rule::UmaskMoreThanNineBits, umask);
        }
        if self.image.each::<Sigaction>().len() != SIGNALS {
            return self.bad(Rule::Not64SignalActions, mm);
        }
        self.limits_and_timers()
    }

    fn limits_and_timers(&self) -> Result {
        let mut seen = 0u32;
        for limit in self.image.each::<Rlimit>() {
            let resource = limit.resource.get();
            if resource >= RLIMITS || seen & (1 << resource) != 0 {
                return self.bad(Rule::LimitUnknownRepeated, limit);
            }
            if limit.soft.get() > limit.hard.get() {
                return self.bad(Rule::SoftLimitAboveHardLimit, limit);
            }
            seen |= 1 << resource;
        }
        let settings = self.image.rows::<Setting>();
        let known = settings.iter().all(|s| WHICH.contains(&s.which.get()));
        if !known || !settings.is_sorted_by(|a, b| a.which.get() < b.which.get()) {
            return self.bad(Rule::SettingUnknownRepeatedOutOrder, settings);
        }
        for cpus in self.image.each::<Affinity>() {
            if cpus.first.get() >= CPUS_MAX || !cpus.first.get().is_multiple_of(64) {
                return self.bad(Rule::SetCPUsNoKernel, cpus);
            }
        }
        let mut seen = 0u32;
        for timer in self.image.each::<Itimer>() {
            let which = timer.which.get();
            if which > 2 || seen & (1 << which) != 0 || timer.value_usec.get() == 0 {
                return self.bad(Rule::IntervalTimerUnknownRepeatedNotRunning, timer);
            }
            seen |= 1 << which;
        }
        let mut last = None;
        for (count, timer) in (1..).zip(self.image.each::<PosixTimer>()) {
            let id = timer.id.get();
            if last >= Some(id) || count > POSIX_TIMERS_MAX {
                return self.bad(Rule::POSIXTimersOutOrderTooMany, timer);
            }
            last = Some(id);
            let receiver = match timer.notify.get() {
                0 | 1 => timer.tid.get() == 0,
                4 => self.image.each::<Thread>().any(|t| t.tid == timer.tid),
                _ => false,
            };
            let clock = timer.clock.get() >= 0 || [PROCESS_CPU, THREAD_CPU].contains(&timer.clock.get());
            let clock = clock
                && (timer.owner.get() == 0
                    || timer.clock.get() == THREAD_CPU && self.image.each::<Thread>().any(|t| t.tid == timer.owner));
            if !receiver || timer.signal.get() as usize > SIGNALS || !clock {
                return self.bad(Rule::POSIXTimerUnknownClockSignalReceiver, timer);
            }
        }
        Ok(())
    }
}
