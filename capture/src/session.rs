//! The one walk over a stopped process: check, each kind of object, pages, seal. The only place that knows the order.
//!
//! Both ways in use it: a process that saves itself, and one that is saved from outside. It must never ask which.

use core::ops::Range;

use image_format::record::deadline::Deadline;
use image_format::record::frame::Frame as FrameRecord;
use image_format::record::header::{Features, Header, MAGIC, VERSION};
use image_format::record::id_word::IdWord;
use image_format::record::memory::{Backing, Vma, VmaKind};
use image_format::record::thread::Thread;
use image_format::seal::Sum;
use image_format::writer::Full;
use image_format::{Layout, NoteType, Notes};
use state::content::Contents;
use state::descriptor::OpenFile;
use state::guard::Guards;
use state::{Arg, Error, Inside, Question, Result, Save, Scratch, Target};
use sys::Sysno;
use sys::abi::signal::Siginfo;
use sys::abi::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME};

use crate::core_notes::{self, Frame, Ids as Owner};
use crate::cpu;
use crate::handlers;
use crate::origin::Origin;
use crate::output::{Holder, Ids, Output};
use crate::pages::{self, Run, Runs};

/// Most bytes of shared contents that are copied so that the process can go on: copying takes some 0.2 ms for 1 MiB, and
/// the memory that it takes.
const KEPT_MAX: u64 = 64 << 20;

/// Most files that can be mapped.
pub const BACKINGS_MAX: usize = 16384;

/// Most guard regions: a libc may give one to each thread.
pub const GUARDS_MAX: usize = 16384;

/// A thread that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Stopped<'a> {
    /// Its record, complete.
    pub record: &'a Thread,
    /// What a debugger shall see.
    pub frame: Frame<'a>,
    /// Signals that wait for it.
    pub pending: &'a [Siginfo],
    /// The moment until which the call lasts that it makes again, if it has one.
    pub deadline: Option<Deadline>,
}

/// All threads of the process, the current one first.
pub trait Threads {
    /// How many.
    fn count(&self) -> usize;
    /// The thread with this index below [`Threads::count`].
    fn get(&self, index: usize) -> Stopped<'_>;
}

/// What the saver knows besides the target.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Where and when.
    pub origin: Origin,
    /// Signals that wait for the process.
    pub shared_pending: &'a [Siginfo],
    /// Interval timers, read when no signal of theirs could be lost any more.
    pub timers: state::itimer::Timers,
    /// POSIX timers, read before the process's pending signals were taken.
    pub posix_timers: state::posix_timer::Timers,
    /// A signal whose action the saver has taken, with the program's own.
    pub replaced: Option<(i32, sys::abi::signal::Sigaction)>,
    /// The signal that asked for the save; 0 for a call.
    pub signal: i32,
    /// How often the process was restarted before.
    pub generation: u32,
    /// Threads carry whole frames: they were stopped anywhere, not in a handler of their own.
    pub full_frames: bool,
}

/// Memory for one save, all zero; the parts' sizes bound what can be saved.
#[derive(Debug)]
pub struct Memory<'b> {
    /// Headers and notes.
    pub prefix: &'b mut [u8],
    /// Names.
    pub strings: &'b mut [u8],
    /// Mappings.
    pub vmas: &'b mut [u8],
    /// Segments.
    pub runs: &'b mut [u8],
    /// Tables.
    pub scratch: &'b mut [u8],
}

impl<'b> Memory<'b> {
    /// Cuts one piece of zeroed memory up.
    #[must_use]
    pub fn of(bytes: &'b mut [u8]) -> Self {
        let eighth = (bytes.len() / 8) & !(image_format::PAGE as usize - 1);
        let (prefix, rest) = bytes.split_at_mut(2 * eighth);
        let (vmas, rest) = rest.split_at_mut(eighth);
        let (runs, rest) = rest.split_at_mut(eighth);
        let (scratch, strings) = rest.split_at_mut(2 * eighth);
        Self { prefix, strings, vmas, runs, scratch }
    }
}

/// Saves the process into `output`; returns the image's length in bytes.
///
/// # Errors
/// Something that cannot be carried, or an error while writing. The target is as it was.
pub fn save<T: Target>(
    target: &mut T,
    threads: &impl Threads,
    facts: &Facts<'_>,
    memory: Memory<'_>,
    output: &mut Output,
) -> Result<u64> {
    let notes = Notes::new(memory.prefix, memory.strings);
    let mut save = Save { target, notes, scratch: Scratch::new(memory.scratch) };
    // It lies in the process's memory, which is busy while that is copied.
    let mut line = [0; 80];
    let line = sys::fs::read_file_at(save.target.proc(), c"cmdline", &mut line).unwrap_or_default();
    save.target.copy_ahead();
    state::process::check(save.target)?;
    let files = state::descriptor::collect(&mut save)?;
    let ids = Owner { pid: save.target.pid(), uid: owner(save.target.proc()) };
    let mut header = header(ids, facts, files, clocks(save.target)?);
    save.notes.table(&[header])?;
    write_threads(&mut save, threads, facts, (ids, line))?;
    let table = keep_room(&mut save, threads)?;
    write_objects(&mut save, threads, facts, files)?;

    let contents = Contents::collect(&mut save, files)?;
    let mut runs = Runs::new(Scratch::new(memory.runs).rest::<Run>()?);
    let contents = keep_contents(&mut save, contents, files, &mut runs)?;
    let parts = runs.as_slice().len();
    let shared_files = state::shared_file::save(&mut save, files)?;
    let locks = state::setting::locks_future(save.target);
    save.target.thaw()?;
    let vmas = Scratch::new(memory.vmas).rest::<Vma>()?;
    let backings = save.scratch.take::<Backing>(BACKINGS_MAX)?;
    let (vma_count, file_count) = state::memory::collect(&mut save, vmas, backings, &contents)?;
    let vmas = vmas.get(..vma_count).unwrap_or_default();
    let backings = backings.get_mut(..file_count).unwrap_or_default();
    let mut guards = Guards::new(save.scratch.take(GUARDS_MAX)?);
    pages::plan(save.target, vmas, backings, &mut runs, &mut guards)?;
    runs.rotate(parts);
    let runs = runs.as_slice();
    let bytes = runs.iter().map(|r| r.len).sum();
    core_notes::files(&mut save.notes, vmas, backings)?;
    state::memory::save(&mut save, vmas, backings, &contents)?;
    state::mm::save(&mut save)?;
    state::cwd::save(&mut save)?;
    state::umask::save(&mut save)?;
    state::rlimit::save(&mut save)?;
    state::sigaction::save(&mut save, facts.replaced)?;
    state::setting::save(&mut save, locks)?;
    state::guard::save(&mut save, &guards)?;
    let guards = if guards.as_slice().is_empty() { Features::empty() } else { Features::GUARDS };
    let (handlers, held) = handlers::save(&mut save, threads, vmas, runs, facts.origin.components.as_slice())?;
    let found = contents.features() | shared_files | guards | handlers;
    header.required = (header.required.get() | found.bits()).into();
    header.cpu = cpu::needed(header.cpu, save.target.memory_proc(), threads, held);
    header.vdso_sum = vdso_sum(save.target, vmas)?.into();
    save.notes.replace_first(&header)?;

    // The headers' length follows from the number of segments: the notes are moved behind them.
    let Save { target, notes, mut scratch } = save;
    let headers = Layout::new(runs.len() as u64, bytes, 0).headers_len();
    let prefix = notes.finish_prefix(headers)?;
    let layout = Layout::new(runs.len() as u64, bytes, prefix.len() as u64 - headers);
    layout.write_headers(prefix, runs.iter().map(|r| (r.addr, r.len, r.flags)))?;

    let rseq = scratch.take::<u64>(threads.count())?;
    for (i, page) in rseq.iter_mut().enumerate() {
        *page = threads.get(i).record.rseq.get() & !(image_format::PAGE - 1);
    }
    let holders = scratch.take::<Holder>(if T::IN_PROCESS { 0 } else { threads.count() })?;
    for (i, holder) in holders.iter_mut().enumerate() {
        let Stopped { record, frame, .. } = threads.get(i);
        *holder = Holder { tid: record.tid.get().into(), fs: record.jmp.fs_base.get(), regs: frame.regs };
    }
    let headers = usize::try_from(headers).map_err(|_| Full)?;
    let table = table.start + headers..table.end + headers;
    output.write(
        target,
        &layout,
        prefix,
        (runs, &contents),
        &Ids { rseq_pages: rseq, threads: holders, vmas, table },
        &mut scratch,
    )?;
    Ok(layout.file_len())
}

/// What is shared must be written as it is now: from a copy when the process goes on, else as long as it stands still.
fn keep_contents<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    mut contents: Contents<'b>,
    files: &[OpenFile],
    runs: &mut Runs<'_>,
) -> Result<Contents<'b>> {
    pages::plan_contents(save.target, &contents, runs)?;
    let runs = runs.as_slice();
    state::content::save(save, files, &contents, runs.iter().filter_map(Run::content))?;
    if save.target.is_live() && !runs.is_empty() {
        if runs.iter().map(|r| r.len).sum::<u64>() > KEPT_MAX {
            save.target.hold("it has too much shared memory for a copy");
            return Ok(contents);
        }
        for index in 0..contents.objects().len() {
            let parts = runs.iter().filter(|r| r.content() == Some(index)).map(|r| (r.addr, r.addr + r.len));
            if contents.keep(save.target, index, parts).is_err() {
                save.target.hold("its shared memory cannot be copied");
                break;
            }
        }
    }
    Ok(contents)
}

/// Room among the notes for locks that the writer of a process's memory will find; where it is.
fn keep_room<T: Target>(save: &mut Save<'_, '_, T>, threads: &impl Threads) -> Result<Range<usize>> {
    /// Bytes of a note in front of its contents.
    const HEAD: usize = 20;
    if T::IN_PROCESS {
        return Ok(0..0);
    }
    let empty = save.scratch.take::<IdWord>(256 + 16 * threads.count())?;
    let start = save.notes.position() as usize + HEAD;
    save.notes.table(empty)?;
    Ok(start..start + size_of_val(empty))
}

/// The threads, for debuggers and for the restart.
fn write_threads<T: Target>(
    save: &mut Save<'_, '_, T>,
    threads: &impl Threads,
    facts: &Facts<'_>,
    (ids, line): (Owner, &[u8]),
) -> Result<()> {
    let each = || (0..threads.count()).map(|i| threads.get(i));
    let frames = save.scratch.take::<FrameRecord>(if facts.full_frames { threads.count() } else { 0 })?;
    for (i, t) in each().enumerate() {
        let (tid, mask) = (t.record.tid.get(), t.record.jmp.sigmask.get());
        let signal = if i == 0 { facts.signal } else { 0 };
        let (at, len) =
            core_notes::thread(&mut save.notes, ids, tid, signal, mask, &t.frame, &facts.origin.components)?;
        if let Some(frame) = frames.get_mut(i) {
            let regs = t.frame.regs.map(Into::into);
            *frame = FrameRecord { regs, xstate_at: at.into(), xstate_len: len.into(), reserved: 0.into() };
        }
        if i == 0 {
            core_notes::process(&mut save.notes, ids, &t.record.comm, line, facts.signal)?;
        }
    }
    save.notes.begin(NoteType::Thread)?;
    for t in each() {
        save.notes.push(t.record)?;
    }
    save.notes.end()?;
    save.notes.table(facts.origin.components.as_slice())?;
    if facts.full_frames {
        save.notes.table(frames)?;
        write_deadlines(save, threads)?;
    }
    Ok(())
}

/// The moments that threads wait for, each once: several may wait for the same one.
fn write_deadlines<T: Target>(save: &mut Save<'_, '_, T>, threads: &impl Threads) -> Result<()> {
    let deadline = |i: usize| threads.get(i).deadline;
    save.notes.begin(NoteType::Deadline)?;
    for i in 0..threads.count() {
        if let Some(one) =
            deadline(i).filter(|one| !(0..i).any(|j| deadline(j).is_some_and(|other| other.at == one.at)))
        {
            save.notes.push(&one)?;
        }
    }
    save.notes.end()?;
    Ok(())
}

/// All that can change, or end, when the process goes on.
fn write_objects<T: Target>(
    save: &mut Save<'_, '_, T>,
    threads: &impl Threads,
    facts: &Facts<'_>,
    files: &[OpenFile],
) -> Result<()> {
    let own = (0..threads.count()).map(|i| threads.get(i)).map(|t| (t.record.tid.get() as i32, t.pending));
    state::pending::save(save, own.chain([(0, facts.shared_pending)]))?;
    state::itimer::save(save, &facts.timers)?;
    state::posix_timer::save(save, &facts.posix_timers, facts.shared_pending)?;
    state::sched::save(save, (0..threads.count()).map(|i| threads.get(i).record.tid.get() as i32))?;
    state::regular::save(save, files)?;
    state::directory::save(save, files)?;
    state::device::save(save, files)?;
    state::pipe::save(save, files)?;
    state::terminal::save(save, files)?;
    state::pty::save(save, files)?;
    state::eventfd::save(save, files)?;
    state::timerfd::save(save, files)?;
    state::signalfd::save(save, files)?;
    state::socket::save(save, files)?;
    state::inotify::save(save, files)?;
    state::pidfd::save(save, files)?;
    state::epoll::save(save, files)?;
    state::lock::save(save, files)?;
    state::descriptor::save(save, files)
}

/// Who owns a process.
fn owner(proc: sys::fs::Fd) -> u32 {
    sys::fs::fstat(proc).map_or_else(|_| sys::process::uid(), |stat| stat.uid)
}

/// The clocks as the process sees them: in a time namespace they are not the saver's.
pub const CLOCKS: [Question; 2] = [clock(CLOCK_MONOTONIC), clock(CLOCK_BOOTTIME)];

const fn clock(which: usize) -> Question {
    Question::new(Sysno::clock_gettime, Arg::Value(which), Arg::Data(0), 16)
}

fn clocks(inside: &mut impl Inside) -> Result<[u64; 2]> {
    let mut clocks = [0; 2];
    for (nsec, question) in clocks.iter_mut().zip(CLOCKS) {
        let (_, time) =
            question.ask::<16>(inside).map_err(|e| Error::failed(format_args!("clocks"), "cannot be read", e))?;
        let word = |at: usize| time.get(at..).and_then(|t| t.first_chunk()).map_or(0, |t| u64::from_le_bytes(*t));
        *nsec = word(0).wrapping_mul(1_000_000_000).wrapping_add(word(8));
    }
    Ok(clocks)
}

/// All of the header but what is known later: the vdso's checksum, and what the process needs of the CPU.
fn header(ids: Owner, facts: &Facts<'_>, files: &[OpenFile], clocks: [u64; 2]) -> Header {
    let Origin { uuid, boot_id, release, cpu, .. } = facts.origin;
    let [monotonic, boottime] = clocks;
    // In a time namespace the clocks are nobody else's: as after another boot.
    let here = sys::time::now(CLOCK_MONOTONIC).sec as u64;
    let boot_id = if here.abs_diff(monotonic / 1_000_000_000) > 1 { [0; 16] } else { boot_id };
    let wall = sys::time::now(CLOCK_REALTIME);
    let threads = if facts.full_frames { Features::FULL_FRAME } else { Features::JMP_CONTEXT };
    let required = threads | state::descriptor::features(files);
    Header {
        magic: MAGIC,
        major: VERSION.0.into(),
        minor: VERSION.1.into(),
        pid: (ids.pid as u32).into(),
        required: required.bits().into(),
        uuid,
        boot_id,
        wall_sec: wall.sec.into(),
        wall_nsec: (wall.nsec as u32).into(),
        uid: ids.uid.into(),
        monotonic_nsec: monotonic.into(),
        boottime_nsec: boottime.into(),
        release,
        cpu,
        vdso_sum: 0.into(),
        generation: facts.generation.into(),
        reserved: 0.into(),
        reserved2: 0.into(),
    }
}

/// Checksum of the vdso's bytes, by which a restart knows whether the kernel's is the same; 0 when there is none.
fn vdso_sum<T: Target>(target: &T, vmas: &[Vma]) -> Result<u64> {
    let Some(vma) = vmas.iter().find(|v| v.kind.get() == VmaKind::Vdso as u32) else { return Ok(0) };
    let mut sum = Sum::new();
    let mut page = [0; image_format::PAGE as usize];
    let mut at = vma.start.get();
    while at < vma.end.get() {
        let failed = |e| Error::failed(format_args!("vdso at {at:#x}"), "cannot be read", e);
        target.read_memory(at, &mut page).map_err(failed)?;
        sum.update(&page);
        at += image_format::PAGE;
    }
    Ok(sum.digest())
}
