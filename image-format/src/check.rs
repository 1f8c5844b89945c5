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
#[cfg(any(not(feature = "terse"), feature = "tree"))]
mod process;
#[cfg(any(not(feature = "terse"), feature = "tree"))]
mod seccomp;
#[cfg(any(not(feature = "terse"), feature = "tree"))]
mod semaphore;
#[cfg(any(not(feature = "terse"), feature = "tree"))]
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
use crate::record::sched::{Affinity, CPUS_MAX};
use crate::record::setting::{Setting, WHICH};
use crate::record::shared_file::SharedFile;
use crate::record::sigaction::Sigaction;
use crate::record::thread::{Thread, ThreadFlags};
use crate::record::umask::Umask;
use zerocopy::IntoBytes;

use crate::{Fault, Image, PAGE, Record, SEGMENT_MAX, StrRef, USER_END};

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

/// Comparisons that matching pending signals with threads may take: no real process comes near.
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
        #[cfg(any(not(feature = "terse"), feature = "tree"))]
        self.tree()?;
        #[cfg(any(not(feature = "terse"), feature = "tree"))]
        self.sysv()?;
        #[cfg(any(not(feature = "terse"), feature = "tree"))]
        self.semaphores()?;
        self.files()
    }

    fn bad<T, R: Record>(&self, what: &'static str, record: &R) -> Result<T> {
        Err(self.malformed(what, record.as_bytes()))
    }

    #[cold]
    #[cfg_attr(not(feature = "terse"), inline(never))]
    fn malformed(&self, what: &'static str, place: &[u8]) -> Broken {
        self.fault.set(Fault::malformed(what, self.image.offset_of(place)));
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
        Err(self.malformed("a path is not absolute", record))
    }

    /// The record of a type that an image has exactly one of.
    fn single<R: Record>(&self) -> Result<&'a R> {
        let mut all = self.image.each();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            _ => self.bad("a record that must be there once is missing or repeated", self.image.header()),
        }
    }

    fn memory(&self) -> Result {
        let backings = self.image.rows::<Backing>();
        for backing in backings {
            self.path(backing.path, backing.as_bytes())?;
            if backing.flags.get() & BackingFlags::CONTENT.bits() != 0 && !self.is_nameless(backing.content.get()) {
                return self.bad("a file of shared contents that are not there", backing);
            }
        }
        let pkey = self.image.each::<Pkey>().next();
        if let Some(pkey) = pkey.filter(|_| !self.requires(Features::PROTECTION_KEYS)) {
            return self.bad("protection keys in an image that requires none", pkey);
        }
        let keys = pkey.map_or(1, |pkey| pkey.keys.get() | 1);
        for vma in self.image.each::<Vma>() {
            self.string(vma.name)?;
            // The restart makes sure that it has all of these.
            if keys >> vma.key.get().min(31) & 1 == 0 {
                return self.bad("a mapping with a protection key that the process has not", vma);
            }
            if vma.flags.get() & VmaFlags::SEALED.bits() != 0 && !self.requires(Features::SEALED) {
                return self.bad("a sealed mapping in an image that requires no seals", vma);
            }
            if vma.prot.get() & !PROT_ALL != 0 {
                return self.bad("a mapping with unknown protection bits", vma);
            }
            let of_file =
                matches!(VmaKind::from_number(vma.kind.get()), Some(VmaKind::FilePrivate | VmaKind::FileShared));
            let backing = vma.backing.get();
            if of_file && backings.get(backing as usize).is_none() {
                return self.bad("a mapping of a file that the image does not name", vma);
            }
            if !of_file && backing != NO_BACKING {
                return self.bad("a mapping that cannot have a file names one", vma);
            }
            if of_file && !vma.offset.get().is_multiple_of(PAGE) {
                return self.bad("a mapping's offset in its file is not page-aligned", vma);
            }
            if of_file && vma.flags.get() & VmaFlags::GROWS_DOWN.bits() != 0 {
                return self.bad("a mapping of a file that grows down", vma);
            }
        }
        for piece in self.image.each::<SharedFile>() {
            self.path(piece.path, piece.as_bytes())?;
            let (offset, len) = (piece.offset.get(), u64::from(piece.len.get()));
            let fits = offset.is_multiple_of(PAGE)
                && offset < i64::MAX as u64 - SEGMENT_MAX
                && (1..=SEGMENT_MAX).contains(&len);
            if !fits || !self.requires(Features::SHARED_FILES) {
                return self.bad("a piece of a shared file that no file can have", piece);
            }
        }
        self.guards()
    }

    fn guards(&self) -> Result {
        let (vmas, mut least) = (self.image.rows::<Vma>(), 0);
        for guard in self.image.each::<Guard>() {
            let (start, end) = (guard.start.get(), guard.end.get());
            let vma = vmas.get(vmas.partition_point(|vma| vma.end.get() <= start));
            let inside = vma.is_some_and(|vma| vma.start.get() <= start && end <= vma.end.get());
            let aligned = start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
            if !inside || !aligned || start < least || start >= end || !self.requires(Features::GUARDS) {
                return self.bad("a guard region out of order, or in no mapping", guard);
            }
            least = end;
        }
        Ok(())
    }

    fn threads(&self) -> Result {
        let threads = self.image.rows::<Thread>();
        let header = self.image.header();
        let Some(first) = threads.first() else {
            return self.bad("an image without threads", header);
        };
        let vmas = self.image.rows::<Vma>();
        for deadline in self.image.each::<Deadline>() {
            let at = deadline.at.get();
            if at >= USER_END || !at.is_multiple_of(8) || !CLOCKS.contains(&deadline.clock.get()) {
                return self.bad("a deadline at no address, or on an unknown clock", deadline);
            }
        }
        let (mut leaders, mut current) = (0usize, 0usize);
        for thread in threads {
            let flags = ThreadFlags::from_bits_truncate(thread.flags.get());
            let leads = flags.contains(ThreadFlags::LEADER);
            if leads != (thread.tid == header.pid) {
                return self.bad("a thread leads without the process's id, or the reverse", thread);
            }
            leaders += usize::from(leads);
            current += usize::from(flags.contains(ThreadFlags::CURRENT));
            let jmp = &thread.jmp;
            let (tid_address, stack) = (thread.tid_address, thread.altstack_sp);
            let addresses = [jmp.rsp, jmp.fs_base, jmp.gs_base, tid_address, thread.robust_list, thread.rseq, stack];
            if addresses.iter().any(|address| address.get() >= USER_END) {
                return self.bad("an address of a thread lies in kernel space", thread);
            }
            let rip = jmp.rip.get();
            let index = vmas.partition_point(|vma| vma.end.get() <= rip);
            let code = vmas.get(index).is_some_and(|v| v.start.get() <= rip && v.prot.get() & PROT_EXEC != 0);
            if !code {
                return self.bad("a thread goes on where no code is", thread);
            }
            // A control word with reserved bits would be a fault in the restart's last assembly.
            if jmp.mxcsr.get() & !0xffff != 0 {
                return self.bad("a thread's MXCSR has reserved bits", thread);
            }
            let flags = thread.flags.get();
            if flags & ThreadFlags::TID_WORD.bits() != 0 && thread.tid_address.get() == 0 {
                return self.bad("a thread keeps its id at no address", thread);
            }
        }
        if leaders != 1 || current != 1 {
            return self.bad("not exactly one thread leads, or made the save", first);
        }
        self.frames(threads)?;
        #[cfg(any(not(feature = "terse"), feature = "tree"))]
        self.seccomp(threads)?;
        self.pending(threads)
    }

    fn pending(&self, threads: &[Thread]) -> Result {
        let pending = self.image.each::<Pending>();
        if pending.len().saturating_mul(threads.len()) > MATCH_MAX {
            return self.bad("an absurd number of pending signals", self.image.header());
        }
        for signal in pending {
            let tid = signal.tid.get();
            if tid != 0 && !threads.iter().any(|thread| thread.tid.get() == tid) {
                return self.bad("a pending signal for no thread of the image", signal);
            }
            let number = signal.siginfo.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            if number == 0 || number as usize > SIGNALS {
                return self.bad("a pending signal with no valid number", signal);
            }
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
            return self.bad("a range of the mm fields is reversed, or in kernel space", mm);
        }
        let auxv = self.image.note_of(note::CORE, note::standard::NT_AUXV).unwrap_or_default();
        if auxv.is_empty() || auxv.len() > AUXV_MAX || !auxv.len().is_multiple_of(16) {
            return self.bad("the auxiliary vector is missing, torn or too long", mm);
        }
        let cwd = self.single::<Cwd>()?;
        self.path(cwd.path, cwd.as_bytes())?;
        let umask = self.single::<Umask>()?;
        if umask.mask.get() & !0o777 != 0 {
            return self.bad("a umask with more than nine bits", umask);
        }
        if self.image.each::<Sigaction>().len() != SIGNALS {
            return self.bad("not 64 signal actions", mm);
        }
        self.limits_and_timers()
    }

    fn limits_and_timers(&self) -> Result {
        let mut seen = 0u32;
        for limit in self.image.each::<Rlimit>() {
            let resource = limit.resource.get();
            if resource >= RLIMITS || seen & (1 << resource) != 0 {
                return self.bad("a limit is unknown or repeated", limit);
            }
            if limit.soft.get() > limit.hard.get() {
                return self.bad("a soft limit above its hard limit", limit);
            }
            seen |= 1 << resource;
        }
        let settings = self.image.rows::<Setting>();
        let known = settings.iter().all(|s| WHICH.contains(&s.which.get()));
        if !known || !settings.is_sorted_by(|a, b| a.which.get() < b.which.get()) {
            return Err(self.malformed("a setting is unknown, repeated or out of order", settings.as_bytes()));
        }
        for cpus in self.image.each::<Affinity>() {
            if cpus.first.get() >= CPUS_MAX || !cpus.first.get().is_multiple_of(64) {
                return self.bad("a set of CPUs that no kernel has", cpus);
            }
        }
        let mut seen = 0u32;
        for timer in self.image.each::<Itimer>() {
            let which = timer.which.get();
            if which > 2 || seen & (1 << which) != 0 || timer.value_usec.get() == 0 {
                return self.bad("an interval timer is unknown, repeated or not running", timer);
            }
            seen |= 1 << which;
        }
        let mut last = None;
        for (count, timer) in (1..).zip(self.image.each::<PosixTimer>()) {
            let id = timer.id.get();
            if last >= Some(id) || count > POSIX_TIMERS_MAX {
                return self.bad("POSIX timers are out of order, or too many", timer);
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
                return self.bad("a POSIX timer of an unknown clock, signal or receiver", timer);
            }
        }
        Ok(())
    }
}
