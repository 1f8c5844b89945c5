//! Records of the sample image, each made of what matters of it.

use image_format::record::memory::{Vma, VmaKind};
use image_format::record::pending::Pending;
use image_format::record::rlimit::Rlimit;
use image_format::record::setting::Setting;
use image_format::record::thread::{Thread, ThreadFlags};
use image_format::{PAGE, StrRef};

use super::{Run, STACK, TEXT, zeroed};

pub fn thread(tid: u32, name: &[u8], flags: ThreadFlags) -> Thread {
    let mut thread: Thread = zeroed();
    thread.tid = tid.into();
    thread.flags = flags.bits().into();
    thread.jmp.rip = (TEXT + 0x10).into();
    thread.jmp.rsp = (STACK + 3 * PAGE).into();
    thread.jmp.sigmask = (1 << 11).into();
    thread.comm[..name.len()].copy_from_slice(name);
    thread
}

pub fn vma(start: u64, pages: u64, prot: u32, kind: VmaKind, backing: u32, name: StrRef) -> Vma {
    Vma {
        start: start.into(),
        end: (start + pages * PAGE).into(),
        prot: prot.into(),
        flags: 0.into(),
        kind: (kind as u32).into(),
        backing: backing.into(),
        offset: 0.into(),
        name,
        key: 0.into(),
        reserved: 0.into(),
    }
}

pub fn pending(tid: u32, signal: u32) -> Pending {
    let mut siginfo = [0; 128];
    siginfo[..4].copy_from_slice(&signal.to_le_bytes());
    Pending { tid: tid.into(), reserved: 0.into(), siginfo }
}

pub fn setting(which: u32, value: u64) -> Setting {
    Setting { which: which.into(), reserved: 0.into(), value: value.into() }
}

pub fn limit(resource: u32, soft: u64, hard: u64) -> Rlimit {
    Rlimit { resource: resource.into(), reserved: 0.into(), soft: soft.into(), hard: hard.into() }
}

pub fn run(addr: u64, flags: u32, pages: u64) -> Run {
    let bytes = vec![(addr >> 12).to_le_bytes()[0] | 1; usize::try_from(pages * PAGE).unwrap()];
    Run { addr, flags, bytes }
}
