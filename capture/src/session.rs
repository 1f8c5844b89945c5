//! The one walk over a stopped process: check, each kind of object, pages, seal. The only place that knows the order.
//!
//! Both ways in use it: a process that saves itself, and one that is saved from outside. It must never ask which.

mod header;
mod ids;
#[cfg(feature = "std")]
mod inherit;
mod job;
mod shared;
#[cfg(feature = "std")]
pub mod tree;

use image_format::elf::PF_PROCESS;
use image_format::record::deadline::Deadline;
use image_format::record::frame::Frame as FrameRecord;
use image_format::record::header::{Features, Header};
use image_format::record::memory::{Backing, Vma, VmaFlags};
use image_format::record::pkey::Pkey;
use image_format::record::seccomp::{Instruction, Seccomp};
use image_format::record::thread::Thread;
use image_format::{Layout, NoteType, Notes, PAGE, align_up};
use state::content::Contents;
use state::credentials::Found;
use state::descriptor::OpenFile;
use state::guard::Guards;
use state::{Result, Save, Scratch, Target};
use sys::abi::signal::Siginfo;

use crate::core_notes::{self, Frame, Ids as Owner};
use crate::cpu;
use crate::handlers;
use crate::origin::Origin;
use crate::output::Output;
use crate::pages::{self, Run, Runs};
use crate::traces::Place;

pub use header::CLOCKS;
pub use job::{Job, command};
pub use shared::shared_objects;

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
    /// What restricts it in what it may call.
    pub seccomp: &'a [Seccomp],
    /// Memory of its stack that the saver uses: nothing in it is the program's.
    pub savers: [Place; 2],
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
    /// It was stopped, by a signal such as SIGSTOP.
    pub stopped: bool,
    /// The job that it is the root of.
    pub job: Option<Job<'a>>,
    /// Threads carry whole frames: they were stopped anywhere, not in a handler of their own.
    pub full_frames: bool,
    /// Whether all threads have the same credentials; `None`: not asked yet.
    pub same_credentials: Option<bool>,
    /// The programs of filters that restrict the threads.
    pub programs: &'a [Instruction],
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
    let mut line = [0; 80];
    let line = command_line(save.target, &mut line);
    save.target.copy_ahead();
    state::process::check(save.target)?;
    let (files, queues) = state::descriptor::collect(&mut save)?;
    let mut header = begin(&mut save, threads, facts, (files, state::descriptor::features(files), line))?;
    if let Some(found) = credentials(save.target, threads, facts)? {
        header.uid = found.user().into();
        state::credentials::save(&mut save, &found)?;
    }
    own_objects(&mut save, threads, facts)?;
    let sets = shared_objects(&mut save, files, &queues)?;

    let mut runs = Runs::new(Scratch::new(memory.runs).rest::<Run>()?);
    let contents = Contents::collect(&mut save, files)?;
    let contents = keep_contents(&mut save, contents, &mut runs)?;
    state::content::save(&mut save, files, &contents, runs.as_slice().iter().filter_map(Run::content))?;
    let along = Along {
        keys: state::pkey::find(save.target),
        shared: sets | state::shared_file::save(&mut save, files)? | state::sysv::save(&mut save, &contents)?,
        locks_future: state::setting::locks_future(save.target),
    };
    save.target.thaw()?;
    describe(&mut save, (threads, facts), (&mut header, along), &contents, memory.vmas, &mut runs)?;

    let Save { target, notes, mut scratch } = save;
    let runs = runs.as_slice();
    let (layout, prefix) = lay_out(notes, runs, &[])?;
    let rseq = rseq_pages(&mut scratch, threads)?;
    let ids = ids::Ids::collect(target, threads, &mut scratch)?;
    let search = ids.search();
    for i in 0..threads.count() {
        let frame = threads.get(i).frame;
        search.registers(frame.general().iter().copied().chain(frame.vectors()));
    }
    output.write(target, &layout, prefix, (runs, &contents), (rseq, Some(&search)), &mut scratch)?;
    Ok(layout.file_len())
}

/// The credentials of a process, for a restart by root; `None`: they are not all those of one user here, so that a restart cannot give them.
fn credentials<T: Target>(target: &T, threads: &impl Threads, facts: &Facts<'_>) -> Result<Option<Found>> {
    if facts.same_credentials == Some(false) || !state::credentials::are_known(target)? {
        return Ok(None);
    }
    let asked = if facts.same_credentials.is_some() { 0 } else { threads.count() };
    match Found::of(target, (0..asked).map(|i| threads.get(i).record.tid.get() as i32)) {
        Err(differs) if differs.errno().is_none() => Ok(None),
        found => found.map(Some),
    }
}

/// What is asked while the process stands still, of what is written when it goes on.
#[derive(Clone, Copy, Debug)]
struct Along {
    keys: Pkey,
    shared: Features,
    locks_future: u64,
}

/// The beginning of the command line. It lies in the process's memory, which is busy while that is copied.
fn command_line<'l, T: Target>(target: &T, line: &'l mut [u8]) -> &'l [u8] {
    sys::fs::read_file_at(target.proc(), c"cmdline", line).unwrap_or_default()
}

/// The header, as far as it is known, and the threads.
fn begin<T: Target>(
    save: &mut Save<'_, '_, T>,
    threads: &impl Threads,
    facts: &Facts<'_>,
    (files, features, line): (&[OpenFile], Features, &[u8]),
) -> Result<Header> {
    let ids = Owner { pid: save.target.pid(), uid: header::owner(save.target.proc()) };
    let mut header = header::new(ids, facts, features, header::clocks(save.target)?);
    if (0..threads.count()).any(|i| !threads.get(i).seccomp.is_empty()) {
        header.required = (header.required.get() | Features::SECCOMP.bits()).into();
    }
    save.notes.table(&[header])?;
    write_threads(save, threads, facts, (ids, line))?;
    facts.job.as_ref().map_or(Ok(()), |job| job::save(save, job, files))?;
    Ok(header)
}

/// The process's memory and all that a copy of it has, too; completes the header.
fn describe<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    (threads, facts): (&impl Threads, &Facts<'_>),
    (header, along): (&mut Header, Along),
    contents: &Contents<'_>,
    vmas: &'b mut [u8],
    runs: &mut Runs<'_>,
) -> Result<()> {
    let Along { mut keys, shared, locks_future } = along;
    let parts = runs.as_slice().len();
    let vmas = Scratch::new(vmas).rest::<Vma>()?;
    let backings = save.scratch.take::<Backing>(BACKINGS_MAX)?;
    let found = state::memory::collect(save, vmas, backings, contents, &mut keys)?;
    // Whoever supervises it knows, too, and one that saved itself before has no gate.
    header.generation = header.generation.get().max(found.restarts).into();
    let vmas = vmas.get(..found.vmas).unwrap_or_default();
    let backings = backings.get_mut(..found.backings).unwrap_or_default();
    let mut guards = Guards::new(save.scratch.take(GUARDS_MAX)?);
    pages::plan(save.target, vmas, backings, runs, &mut guards)?;
    runs.rotate(parts);
    core_notes::files(&mut save.notes, vmas, backings)?;
    state::memory::save(save, vmas, backings, contents)?;
    state::mm::save(save)?;
    state::cwd::save(save)?;
    state::umask::save(save)?;
    state::rlimit::save(save)?;
    state::sigaction::save(save, facts.replaced)?;
    state::setting::save(save, locks_future)?;
    state::guard::save(save, &guards)?;
    let guards = if guards.as_slice().is_empty() { Features::empty() } else { Features::GUARDS };
    let sealed = vmas.iter().any(|vma| vma.flags.get() & VmaFlags::SEALED.bits() != 0);
    let sealed = if sealed { Features::SEALED } else { Features::empty() };
    let keys = state::pkey::save(save, &keys)?;
    let components = facts.origin.components.as_slice();
    let (handlers, held) = handlers::save(save, threads, vmas, runs.as_slice(), components)?;
    let found = contents.features() | shared | guards | sealed | keys | handlers;
    header.required = (header.required.get() | found.bits()).into();
    header.cpu = cpu::needed(header.cpu, save.target.memory_proc(), threads, held);
    header.vdso_sum = header::vdso_sum(save.target, vmas)?.into();
    save.notes.replace_first(header)?;
    Ok(())
}

/// Where everything lies, and the prefix: the headers' length follows from the number of segments, so the notes are moved behind
/// them. `images`: pids and lengths of other processes' images.
fn lay_out<'b>(notes: Notes<'b>, runs: &[Run], images: &[(u64, u64)]) -> Result<(Layout, &'b mut [u8])> {
    let stored = runs.iter().map(Run::stored);
    let parts = runs.iter().map(|r| (r.addr, r.len, r.flags));
    let parts = parts.chain(images.iter().map(|(pid, len)| (*pid, *len, PF_PROCESS)));
    let bytes = stored.chain(images.iter().map(|(_, len)| *len)).map(|len| align_up(len, PAGE)).sum();
    let count = (runs.len() + images.len()) as u64;
    let headers = Layout::new(count, bytes, 0).headers_len();
    let prefix = notes.finish_prefix(headers)?;
    let layout = Layout::new(count, bytes, prefix.len() as u64 - headers);
    layout.write_headers(prefix, parts)?;
    Ok((layout, prefix))
}

/// Pages that the kernel may write to at any time.
fn rseq_pages<'b>(scratch: &mut Scratch<'b>, threads: &impl Threads) -> Result<&'b [u64]> {
    let rseq = scratch.take::<u64>(threads.count())?;
    for (i, page) in rseq.iter_mut().enumerate() {
        *page = threads.get(i).record.rseq.get() & !(PAGE - 1);
    }
    Ok(rseq)
}

/// What is shared must be written as it is now: from a copy when the process goes on, else as long as it stands still.
fn keep_contents<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    mut contents: Contents<'b>,
    runs: &mut Runs<'_>,
) -> Result<Contents<'b>> {
    pages::plan_contents(save.target, &contents, runs)?;
    let runs = runs.as_slice();
    if save.target.is_live() && !runs.is_empty() {
        if runs.iter().map(|r| r.len).sum::<u64>() > KEPT_MAX {
            save.target.hold("it has too much shared memory for a copy");
            return Ok(contents);
        }
        for index in 0..contents.objects().len() {
            let first = runs.partition_point(|r| r.content() < Some(index));
            let own = runs.iter().skip(first).take_while(|r| r.content() == Some(index));
            let parts = own.map(|r| (r.addr, r.addr + r.len));
            if contents.keep(save.target, index, parts).is_err() {
                save.target.hold("its shared memory cannot be copied");
                break;
            }
        }
    }
    Ok(contents)
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
        state::seccomp::save(save, facts.programs, (0..threads.count()).map(|i| threads.get(i).seccomp))?;
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

/// All of the process's own that can change, or end, when it goes on.
fn own_objects<T: Target>(save: &mut Save<'_, '_, T>, threads: &impl Threads, facts: &Facts<'_>) -> Result<()> {
    // What is a thread's is found by its id.
    let order = save.scratch.take::<u32>(threads.count())?;
    order.iter_mut().zip(0..).for_each(|(place, index)| *place = index);
    order.sort_unstable_by_key(|index| threads.get(*index as usize).record.tid.get());
    let sorted = || order.iter().map(|index| threads.get(*index as usize));
    let own = sorted().map(|t| (t.record.tid.get() as i32, t.pending));
    state::pending::save(save, [(0, facts.shared_pending)].into_iter().chain(own))?;
    state::itimer::save(save, &facts.timers)?;
    state::posix_timer::save(save, &facts.posix_timers, facts.shared_pending)?;
    state::sched::save(save, sorted().map(|t| t.record.tid.get() as i32))
}
