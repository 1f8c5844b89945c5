//! The one walk over a stopped process: check, each kind of object, pages, seal. The only place that knows the order.
//!
//! Both ways in use it: a process that saves itself, and one that is saved from outside. It must never ask which.

use image_format::record::header::{Cpu, Features, Header, MAGIC, VERSION};
use image_format::record::memory::{Backing, Vma, VmaKind};
use image_format::record::thread::Thread;
use image_format::seal::Sum;
use image_format::{Layout, NoteType, Notes};
use state::descriptor::OpenFile;
use state::{Error, Result, Save, Scratch, Target};
use sys::abi::signal::Siginfo;
use sys::abi::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME};

use crate::core_notes::{self, Frame, Ids};
use crate::output::Output;
use crate::pages::{self, Run, Runs};

/// Most files that can be mapped.
const BACKINGS_MAX: usize = 16384;

/// A thread that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Stopped<'a> {
    /// Its record, complete.
    pub record: &'a Thread,
    /// What a debugger shall see.
    pub frame: Frame<'a>,
    /// Signals that wait for it.
    pub pending: &'a [Siginfo],
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

/// Saves the process into `output`.
///
/// # Errors
/// Something that cannot be carried, or an error while writing. The target is as it was.
pub fn save<T: Target>(
    target: &mut T,
    threads: &impl Threads,
    facts: &Facts<'_>,
    memory: Memory<'_>,
    output: &Output,
) -> Result<()> {
    let notes = Notes::new(memory.prefix, memory.strings);
    let mut save = Save { target, notes, scratch: Scratch::new(memory.scratch) };
    state::process::check(save.target)?;
    let files = state::descriptor::collect(&mut save)?;

    let vmas = Scratch::new(memory.vmas).rest::<Vma>()?;
    let backings = save.scratch.take::<Backing>(BACKINGS_MAX)?;
    let (vma_count, file_count) = state::memory::collect(&mut save, vmas, backings)?;
    let vmas = vmas.get(..vma_count).unwrap_or_default();
    let backings = backings.get_mut(..file_count).unwrap_or_default();
    let mut runs = Runs::new(Scratch::new(memory.runs).rest::<Run>()?);
    pages::plan(save.target, vmas, backings, &mut runs)?;
    let runs = runs.as_slice();
    let bytes = runs.iter().map(|r| r.len).sum();

    // The headers' length follows from the number of segments: the notes are written behind them.
    let headers = Layout::new(runs.len() as u64, bytes, 0).headers_len();
    save.notes.skip(headers)?;
    write_notes(&mut save, threads, facts, files, vmas, backings)?;
    let Save { target, notes, mut scratch } = save;
    let prefix = notes.finish_prefix()?;
    let layout = Layout::new(runs.len() as u64, bytes, prefix.len() as u64 - headers);
    layout.write_headers(prefix, runs.iter().map(|r| (r.addr, r.len, r.flags)))?;

    let rseq = scratch.take::<u64>(threads.count())?;
    for (i, page) in rseq.iter_mut().enumerate() {
        *page = threads.get(i).record.rseq.get() & !(image_format::PAGE - 1);
    }
    output.write(target, &layout, prefix, runs, rseq, &mut scratch)
}

fn write_notes<T: Target>(
    save: &mut Save<'_, '_, T>,
    threads: &impl Threads,
    facts: &Facts<'_>,
    files: &[OpenFile],
    vmas: &[Vma],
    backings: &mut [Backing],
) -> Result<()> {
    let ids = Ids { pid: save.target.pid(), uid: sys::process::uid() };
    let header = header(save.target, ids, facts, files, vmas)?;
    save.notes.table(&[header])?;

    let each = || (0..threads.count()).map(|i| threads.get(i));
    for (i, t) in each().enumerate() {
        let (tid, mask) = (t.record.tid.get(), t.record.jmp.sigmask.get());
        let signal = if i == 0 { facts.signal } else { 0 };
        core_notes::thread(&mut save.notes, ids, tid, signal, mask, &t.frame)?;
        if i == 0 {
            let mut line = [0; 80];
            let line = sys::fs::read_file_at(save.target.proc(), c"cmdline", &mut line).unwrap_or_default();
            core_notes::process(&mut save.notes, ids, &t.record.comm, line, facts.signal)?;
        }
    }
    core_notes::files(&mut save.notes, vmas, backings)?;

    save.notes.begin(NoteType::Thread)?;
    for t in each() {
        save.notes.push(t.record)?;
    }
    save.notes.end()?;
    state::memory::save(save, vmas, backings)?;
    state::mm::save(save)?;
    state::sigaction::save(save, facts.replaced)?;
    let own = each().map(|t| (t.record.tid.get() as i32, t.pending));
    state::pending::save(save, own.chain([(0, facts.shared_pending)]))?;
    state::itimer::save(save, &facts.timers)?;
    state::posix_timer::save(save, &facts.posix_timers, facts.shared_pending)?;
    state::cwd::save(save)?;
    state::umask::save(save)?;
    state::rlimit::save(save)?;
    state::regular::save(save, files)?;
    state::directory::save(save, files)?;
    state::device::save(save, files)?;
    state::pipe::save(save, files)?;
    state::terminal::save(save, files)?;
    state::eventfd::save(save, files)?;
    state::timerfd::save(save, files)?;
    state::signalfd::save(save, files)?;
    state::epoll::save(save, files)?;
    state::lock::save(save, files)?;
    state::descriptor::save(save, files)
}

fn header<T: Target>(target: &T, ids: Ids, facts: &Facts<'_>, files: &[OpenFile], vmas: &[Vma]) -> Result<Header> {
    let mut uuid = [0; 16];
    let random = |e| Error::failed(format_args!("image"), "no random number for its id", e);
    sys::process::random(&mut uuid).map_err(random)?;
    let wall = sys::time::now(CLOCK_REALTIME);
    let required = Features::JMP_CONTEXT | state::descriptor::features(files);
    Ok(Header {
        magic: MAGIC,
        major: VERSION.0.into(),
        minor: VERSION.1.into(),
        pid: (ids.pid as u32).into(),
        required: required.bits().into(),
        uuid,
        boot_id: boot_id(),
        wall_sec: wall.sec.into(),
        wall_nsec: (wall.nsec as u32).into(),
        uid: ids.uid.into(),
        monotonic_nsec: sys::time::nanoseconds(CLOCK_MONOTONIC).into(),
        boottime_nsec: sys::time::nanoseconds(CLOCK_BOOTTIME).into(),
        release: sys::process::kernel_release(),
        cpu: cpu(),
        vdso_sum: vdso_sum(target, vmas)?.into(),
        generation: facts.generation.into(),
        reserved: 0.into(),
        reserved2: 0.into(),
    })
}

/// What this CPU offers.
#[must_use]
pub fn cpu() -> Cpu {
    let (words, xcr0, size) = sys::arch::cpu_features();
    Cpu { words: words.map(Into::into), xcr0: xcr0.into(), xsave_size: size.into(), reserved: 0.into() }
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

/// `/proc/sys/kernel/random/boot_id` in binary; zero where it cannot be read.
fn boot_id() -> [u8; 16] {
    let mut buffer = [0; 64];
    let text =
        sys::fs::read_file_at(sys::abi::AT_FDCWD, c"/proc/sys/kernel/random/boot_id", &mut buffer).unwrap_or_default();
    let mut id = [0; 16];
    let digits = text.iter().filter_map(|b| char::from(*b).to_digit(16));
    for (i, digit) in digits.take(32).enumerate() {
        if let Some(byte) = id.get_mut(i / 2) {
            *byte = *byte << 4 | digit as u8;
        }
    }
    id
}
