//! Threads of an image.

use std::collections::HashMap;

use image_format::record::memory::{Backing, Vma};
use image_format::record::seccomp::{How, Seccomp};
use image_format::record::thread::{self, ThreadFlags};
use image_format::{Fault, Image, note};
use serde::Serialize;

use super::report::{string, until_nul};
use super::setting::{self, Scheduling};
use crate::signal;

/// Where `pr_pid` lies in `struct elf_prstatus`.
const PR_PID: usize = 32;
/// Where `pr_reg.rip` lies in it.
const PR_RIP: usize = 112 + 16 * 8;

/// A thread.
#[derive(Debug, Serialize)]
pub struct Thread {
    /// Its id at the save.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// The process's first thread.
    pub leader: bool,
    /// The thread that made the save.
    pub current: bool,
    /// The address where it stopped.
    pub ip: String,
    /// The same as mapping and offset in its file: `/usr/lib/libc.so.6+0x1234`.
    pub stopped_in: String,
    /// Its stack pointer.
    pub sp: String,
    /// Names of the signals that it blocks.
    pub blocked_signals: Vec<String>,
    /// `null` for the default.
    pub scheduling: Option<Scheduling>,
    /// The CPUs that it keeps to, `0-3,7`; empty when they are its parent's.
    pub cpus: String,
    /// What restricts it in what it may call, the oldest first.
    pub seccomp: Vec<String>,
}

impl Thread {
    /// All threads, in the image's order.
    pub fn all(image: &Image<'_>) -> Result<Vec<Self>, Fault> {
        let stopped = stopped(image)?;
        image.table::<thread::Thread>()?.iter().map(|thread| Self::new(image, thread, &stopped)).collect()
    }

    fn new(image: &Image<'_>, thread: &thread::Thread, stopped: &HashMap<u32, u64>) -> Result<Self, Fault> {
        let tid = thread.tid.get();
        let flags = ThreadFlags::from_bits_truncate(thread.flags.get());
        let ip = stopped.get(&tid).copied().unwrap_or(thread.jmp.rip.get());
        let mask = thread.jmp.sigmask.get();
        Ok(Self {
            tid,
            name: until_nul(&thread.comm),
            leader: flags.contains(ThreadFlags::LEADER),
            current: flags.contains(ThreadFlags::CURRENT),
            ip: format!("{ip:#x}"),
            stopped_in: place(image, ip)?,
            sp: format!("{:#x}", thread.jmp.rsp.get()),
            blocked_signals: (1..=signal::MAX).filter(|n| mask & (1 << (n - 1)) != 0).map(signal::name).collect(),
            scheduling: Scheduling::of(image, tid)?,
            cpus: setting::cpus(image, tid)?,
            seccomp: image
                .table::<Seccomp>()?
                .iter()
                .filter(|step| step.tid.get() == tid || How::of(step).is_some_and(How::is_shared))
                .filter_map(restriction)
                .collect(),
        })
    }
}

/// What a step does, in words.
fn restriction(step: &Seccomp) -> Option<String> {
    match How::of(step)? {
        How::NoNewPrivs => None,
        How::Strict => Some("strict mode".to_owned()),
        how if how.is_shared() => Some(format!("filter of {} instructions, which all threads share", step.len.get())),
        _ => Some(format!("filter of {} instructions", step.len.get())),
    }
}

/// The instruction pointer of each thread as a debugger sees it, from the standard notes.
fn stopped(image: &Image<'_>) -> Result<HashMap<u32, u64>, Fault> {
    let mut out = HashMap::new();
    for note in image.notes() {
        let note = note?;
        if note.owner != note::CORE || note.kind != note::standard::NT_PRSTATUS {
            continue;
        }
        let tid = note.desc.get(PR_PID..).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_le_bytes(*b));
        let rip = note.desc.get(PR_RIP..).and_then(|bytes| bytes.first_chunk()).map(|b| u64::from_le_bytes(*b));
        if let (Some(tid), Some(rip)) = (tid, rip) {
            out.insert(tid, rip);
        }
    }
    Ok(out)
}

/// The mapping that holds an address.
fn place(image: &Image<'_>, address: u64) -> Result<String, Fault> {
    let vmas = image.table::<Vma>()?;
    let index = vmas.partition_point(|vma| vma.end.get() <= address);
    let Some(vma) = vmas.get(index).filter(|vma| vma.start.get() <= address) else { return Ok(String::new()) };
    let within = address - vma.start.get();
    match image.table::<Backing>()?.get(vma.backing.get() as usize) {
        Some(backing) => Ok(format!("{}+{:#x}", string(image, backing.path)?, within.saturating_add(vma.offset.get()))),
        None => Ok(format!("{}+{within:#x}", string(image, vma.name)?)),
    }
}
