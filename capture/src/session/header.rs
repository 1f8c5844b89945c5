//! The first note: who and where, the clocks, and what the restart will need.

use image_format::record::header::{Features, Header, MAGIC, Traces, VERSION};
use image_format::record::memory::{Vma, VmaKind};
use image_format::seal::Sum;
use state::{Arg, Error, Inside, Question, Result, Target};
use sys::Sysno;
use sys::abi::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME};

use super::Facts;
use crate::core_notes::Ids as Owner;
use crate::origin::Origin;

/// Who owns a process.
pub(super) fn owner(proc: sys::fs::Fd) -> u32 {
    sys::fs::fstat(proc).map_or_else(|_| sys::process::uid(), |stat| stat.uid)
}

/// The clocks as the process sees them: in a time namespace they are not the saver's.
pub const CLOCKS: [Question; 2] = [clock(CLOCK_MONOTONIC), clock(CLOCK_BOOTTIME)];

const fn clock(which: usize) -> Question {
    // SAFETY: fills the structure.
    unsafe { Question::new(Sysno::clock_gettime, Arg::Value(which), Arg::Data(0), 16) }
}

pub(super) fn clocks(inside: &mut impl Inside) -> Result<[u64; 2]> {
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
pub(super) fn new(ids: Owner, facts: &Facts<'_>, files: Features, clocks: [u64; 2]) -> Header {
    let Origin { uuid, boot_id, release, cpu, .. } = facts.origin;
    let [monotonic, boottime] = clocks;
    // In a time namespace the clocks are nobody else's: as after another boot.
    let here = sys::time::now(CLOCK_MONOTONIC).sec as u64;
    let boot_id = if here.abs_diff(monotonic / 1_000_000_000) > 1 { [0; 16] } else { boot_id };
    let wall = sys::time::now(CLOCK_REALTIME);
    let threads = if facts.full_frames { Features::FULL_FRAME } else { Features::JMP_CONTEXT };
    let required = threads | files;
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
        traces: (Traces::Unknown as u32).into(),
        trace: 0.into(),
        stopped: u32::from(facts.stopped).into(),
        reserved: 0.into(),
    }
}

/// Checksum of the vdso's bytes, by which a restart knows whether the kernel's is the same; 0 when there is none.
pub(super) fn vdso_sum<T: Target>(target: &T, vmas: &[Vma]) -> Result<u64> {
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
