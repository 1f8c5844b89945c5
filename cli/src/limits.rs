//! What this box's limits say of an image, before anything is started: what a restart would meet when it is too late.
//!
//! Must never refuse what can work: only what is certain to fail counts.

use std::fs;

use image_format::record::credentials::Credentials;
use image_format::record::descriptor::Descriptor;
use image_format::record::frame::{Component, Frame};
use image_format::record::memory::{Vma, VmaFlags, VmaKind};
use image_format::record::pkey::Pkey;
use image_format::record::process::FD_MASK;
use image_format::record::pty::Pty;
use image_format::record::seccomp::Seccomp;
use image_format::record::socket::{SocketStep, Step};
use image_format::{Fault, Image};
use rustix::process::{Resource, getrlimit};
use state::frame::XSTATE_BV;

use crate::text;

/// What the restart itself needs beside the program's.
const SPARE_BYTES: u64 = 1 << 20;
const SPARE_MAPPINGS: u64 = 16;

/// What is said where it is missing.
pub const NO_PROC: &str = "/proc: is not mounted: mount it (mount -t proc proc /proc)";

/// `PROT_WRITE`.
const WRITE: u32 = 2;

/// What this CPU lacks: what the program may use by the features that there were, and what its threads have in use.
pub fn cpu(image: &Image<'_>) -> Result<Option<String>, Fault> {
    let (features, xcr0, _) = sys::arch::cpu_features();
    let names: sys::text::Text<1024> = loader::cpu::lacking(&image.header().cpu, &features, xcr0);
    if !names.as_bytes().is_empty() {
        let remedy = "start it by ckpt run --portable; or --cpu ignore to try";
        return Ok(Some(format!("CPU without {names}: the program may use these: {remedy}")));
    }
    if keys(image)? {
        return Ok(Some(
            "memory protection keys: are not there on this CPU or kernel: use a machine that has them".to_owned(),
        ));
    }
    let missing = states(image, xcr0)?;
    let remedy = "restart it on the same kind of CPU; or --cpu ignore to lose them";
    let what = || format!("{}: in use, and this CPU has none of their kind: {remedy}", missing.join(", "));
    Ok((!missing.is_empty()).then(what))
}

/// Components of the extended state that are in use, and that this CPU does not have, or has in another size.
fn states(image: &Image<'_>, xcr0: u64) -> Result<Vec<String>, Fault> {
    /// x87 and SSE are the same everywhere; protection keys are looked at by [`keys`], and AMX is in no image.
    const EVERYWHERE: u64 = 0b11 | 1 << 9 | 0b111 << 17;
    let known = image.table::<Component>()?.iter().filter(|component| {
        let number = component.number.get() & 63;
        xcr0 & 1 << number != 0 && sys::arch::xsave_component(number)[1] == component.len.get()
    });
    let known = known.fold(EVERYWHERE, |all, component| all | 1 << (component.number.get() & 63));
    let used = image.table::<Frame>()?.iter().fold(0, |all, frame| {
        let present = image.xstate(frame).and_then(|area| area.get(XSTATE_BV..)?.first_chunk());
        all | present.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    });
    let name = |number| match number {
        2 => " (AVX)",
        5..=7 => " (AVX-512)",
        _ => "",
    };
    let missing = (0..64).filter(|number| used & !known & 1 << number != 0);
    Ok(missing.map(|number| format!("XSAVE component {number}{}", name(number))).collect())
}

/// Whether the process has protection keys, which are not there on this CPU or kernel.
fn keys(image: &Image<'_>) -> Result<bool, Fault> {
    Ok(!image.table::<Pkey>()?.is_empty() && sys::arch::key_rights().is_none())
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
    if !has(IPC_LOCK) {
        within("locked memory", bytes(&|v| flags(v).contains(VmaFlags::LOCKED)), hard(Resource::Memlock), "l");
    }
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let table = image.table::<Descriptor>()?;
    let top = table.iter().map(|d| u64::from(d.fd.get() & FD_MASK)).max().unwrap_or(0);
    if let Some(limit) = hard(Resource::Nofile) {
        // What is opened waits above the program's numbers until all is there.
        let need = top.max(63) + 1 + table.len() as u64;
        if top >= limit {
            lines.push(format!("descriptor {top}: above the limit of {limit}: raise it (ulimit -Hn)"));
        } else if need > limit {
            lines.push(format!(
                "descriptor {top}: a restart needs as many numbers above it as there are descriptors, {need} in all, and the limit is {limit}: raise it (ulimit -Hn)"
            ));
        }
    }
    let repairs =
        |step: &&SocketStep| (step.step.get(), step.a.get(), step.b.get()) == (Step::Option as u32, TCP, REPAIR);
    let connections = image.table::<SocketStep>()?.iter().filter(repairs).count() / 2;
    if connections != 0 && !has(NET_ADMIN) {
        let what = text::count(connections, "TCP connection");
        lines.push(format!("{what} to other processes: carried, which takes CAP_NET_ADMIN here, too: restart as root"));
    }
    if image.table::<Seccomp>()?.last().is_some_and(|end| end.first.get() != 0) && sys::process::may_filter().is_err() {
        lines.push(
            "seccomp filters: take CAP_SYS_ADMIN, as they were installed without no_new_privs: restart as root"
                .to_owned(),
        );
    }
    for own in image.table::<Credentials>()? {
        let groups = image.bytes(own.groups).unwrap_or_default();
        let refused = state::credentials::check(image.header().pid.get(), own, groups).err();
        lines.extend(refused.map(|error| error.to_string()));
    }
    let mappings = vmas.len() as u64 + SPARE_MAPPINGS;
    if let Some(limit) = number("/proc/sys/vm/max_map_count").filter(|limit| mappings > *limit) {
        lines.push(format!("{} mappings: more than {limit}: raise it (sysctl vm.max_map_count)", vmas.len()));
    }
    if number("/proc/sys/vm/overcommit_memory") == Some(2) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // This command's own goes before the program's comes.
        let own = kib(&status, "VmData").unwrap_or(0) + kib(&status, "VmStk").unwrap_or(0);
        let kept = if has(SYS_ADMIN) { 0 } else { number("/proc/sys/vm/admin_reserve_kbytes").unwrap_or(0) << 10 };
        let system = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let limit = kib(&system, "CommitLimit").unwrap_or(u64::MAX);
        let free = limit.saturating_add(own).saturating_sub(kib(&system, "Committed_AS").unwrap_or(0) + kept);
        let need = bytes(&private);
        if need > free {
            let (need, free) = (text::size(need), text::size(free));
            let remedy = "free some, or raise it (sysctl vm.overcommit_ratio, vm.overcommit_memory)";
            lines.push(format!("{need} of writable memory: this system promises {free} more: {remedy}"));
        }
    }
    Ok(lines)
}

/// A line of `/proc/meminfo` or of a process's `status`, bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some(line?.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// `CAP_IPC_LOCK`: the limit of locked memory does not hold. `CAP_SYS_ADMIN`: what the system keeps for root may be had.
const IPC_LOCK: u64 = 1 << 14;
const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_NET_ADMIN`: connections may be put into repair mode.
const NET_ADMIN: u64 = 1 << 12;
/// `SOL_TCP` and `TCP_REPAIR`.
const TCP: u32 = 6;
const REPAIR: u32 = 19;

/// Whether this user has a capability.
fn has(capability: u64) -> bool {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & capability != 0)
}

/// Pseudo-terminals of the program whose numbers somebody else has: they get others, and links to them lead elsewhere.
///
/// # Errors
/// The image is not sound.
pub fn taken_terminals(image: &Image<'_>) -> Result<Vec<String>, Fault> {
    let masters = image.table::<Pty>()?.iter().filter(|end| end.id == end.master);
    let paths = masters.map(|master| format!("/dev/pts/{}", master.number.get()));
    Ok(paths.filter(|path| std::fs::symlink_metadata(path).is_ok()).collect())
}
