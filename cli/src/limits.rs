//! What this box's limits say of an image, before anything is started: what a restart would meet when it is too late.
//!
//! Must never refuse what can work: only what is certain to fail counts.

use std::fs;

use image_format::record::descriptor::Descriptor;
use image_format::record::memory::{Vma, VmaFlags, VmaKind};
use image_format::{Fault, Image};
use rustix::process::{Resource, getrlimit};

use crate::text;

/// What the restart itself needs beside the program's.
const SPARE_BYTES: u64 = 1 << 20;
const SPARE_MAPPINGS: u64 = 16;

/// What is said where it is missing.
pub const NO_PROC: &str = "/proc: is not mounted: mount it (mount -t proc proc /proc)";

/// `PROT_WRITE`.
const WRITE: u32 = 2;

/// What this CPU lacks.
pub fn cpu(image: &Image<'_>) -> Option<String> {
    let (features, xcr0, _) = sys::arch::cpu_features();
    let names: sys::text::Text<1024> = loader::cpu::lacking(&image.header().cpu, &features, xcr0);
    let what = || {
        format!(
            "CPU without {names}: the program may use these: start it by ckpt run --portable; or --cpu ignore to try"
        )
    };
    (!names.as_bytes().is_empty()).then(what)
}

/// Everything that cannot work here, a line each: the object, the reason, the remedy.
pub fn judge(image: &Image<'_>) -> Result<Vec<String>, Fault> {
    let vmas = image.table::<Vma>()?;
    let bytes = |which: &dyn Fn(&Vma) -> bool| -> u64 {
        vmas.iter().filter(|v| which(v)).map(|v| v.end.get().saturating_sub(v.start.get())).sum()
    };
    let private = |v: &Vma| v.prot.get() & WRITE != 0 && v.kind.get() != VmaKind::FileShared as u32;
    let flags = |v: &Vma| VmaFlags::from_bits_truncate(v.flags.get());
    // The kernel looks at the limit of the stack when that grows, not when it is mapped.
    let stack = |v: &Vma| flags(v).contains(VmaFlags::GROWS_DOWN);
    let mut lines = Vec::new();
    if !fs::exists("/proc/self/maps").unwrap_or(false) {
        lines.push(NO_PROC.to_owned());
    }
    let mut within = |what: &str, need: u64, limit: Option<u64>, option: &str| {
        if let Some(limit) = limit.filter(|limit| need > *limit) {
            let (need, limit) = (text::size(need), text::size(limit));
            lines.push(format!("{need} of {what}: more than the limit of {limit}: raise it (ulimit -H{option})"));
        }
    };
    let hard = |which| getrlimit(which).maximum;
    within("address space", bytes(&|_| true) + SPARE_BYTES, hard(Resource::As), "v");
    within("writable memory", bytes(&|v| private(v) && !stack(v)), hard(Resource::Data), "d");
    if !may_lock() {
        within("locked memory", bytes(&|v| flags(v).contains(VmaFlags::LOCKED)), hard(Resource::Memlock), "l");
    }
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let top = image.table::<Descriptor>()?.iter().map(|d| u64::from(d.fd.get())).max().unwrap_or(0);
    if let Some(limit) = hard(Resource::Nofile).filter(|limit| top >= *limit) {
        lines.push(format!("descriptor {top}: above the limit of {limit}: raise it (ulimit -Hn)"));
    }
    let mappings = vmas.len() as u64 + SPARE_MAPPINGS;
    if let Some(limit) = number("/proc/sys/vm/max_map_count").filter(|limit| mappings > *limit) {
        lines.push(format!("{} mappings: more than {limit}: raise it (sysctl vm.max_map_count)", vmas.len()));
    }
    if number("/proc/sys/vm/overcommit_memory") == Some(2) {
        let free = promised("CommitLimit").saturating_sub(promised("Committed_AS"));
        let need = bytes(&private);
        if need > free {
            let (need, free) = (text::size(need), text::size(free));
            let remedy = "free some, or raise it (sysctl vm.overcommit_ratio, vm.overcommit_memory)";
            lines.push(format!("{need} of writable memory: this system promises {free} more: {remedy}"));
        }
    }
    Ok(lines)
}

/// A line of `/proc/meminfo`, bytes.
fn promised(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(u64::MAX >> 10) << 10
}

/// Whether the limit of locked memory does not hold for this user (`CAP_IPC_LOCK`).
fn may_lock() -> bool {
    const IPC_LOCK: u64 = 1 << 14;
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & IPC_LOCK != 0)
}
