//! What this CPU, this system and this user's limits say of an image, before anything is restored: what would fail later.
//!
//! Must never refuse what can work: only what is certain to fail counts.

use image_format::record::content::{Content, ContentKind};
use image_format::record::credentials::Credentials;
use image_format::record::descriptor::Descriptor;
use image_format::record::frame::{Component, Frame, SignalFrame};
use image_format::record::header::Features;
use image_format::record::memory::{Backing, BackingFlags, Vma, VmaFlags, VmaKind};
use image_format::record::pkey::Pkey;
use image_format::record::process::FD_MASK;
use image_format::record::seccomp::Seccomp;
use image_format::record::socket::{SocketStep, Step};
use image_format::{Checked, ExitCode};
use state::credentials::Change;
use state::frame::XSTATE_BV;
use state::restart::{Error, Result};
use sys::abi::mm::PROT_WRITE;
use sys::abi::{AT_FDCWD, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_NOFILE};
use sys::text::{Line, decimal, words};

/// What the restart itself needs beside the program's.
const SPARE_BYTES: u64 = 1 << 20;
const SPARE_MAPPINGS: u64 = 16;

/// `CAP_NET_ADMIN`: connections may be put into repair mode.
const NET_ADMIN: u64 = 1 << 12;
/// `CAP_IPC_LOCK`: the limit of locked memory does not hold.
const IPC_LOCK: u64 = 1 << 14;
/// `CAP_SYS_ADMIN`: what the system keeps for root may be had.
const SYS_ADMIN: u64 = 1 << 21;

/// Tells `report` what this CPU lacks: what the program may use by the features that there were, and what its threads have in use.
///
/// # Errors
/// The first that `report` gives back.
pub fn cpu(image: &Checked<'_>, mut report: impl FnMut(Error) -> Result<()>) -> Result<()> {
    let (features, xcr0, _) = sys::arch::cpu_features();
    let names = crate::cpu::lacking(&image.header().cpu, &features, xcr0);
    let lacks = |what, names: &Line| Error::about(ExitCode::Cpu, what, 0u32, names.as_bytes(), None);
    if !names.as_bytes().is_empty() {
        let what = "CPU without @: the program may use these: start it by ckpt run --portable; or --cpu ignore to try";
        report(lacks(what, &names))?;
    }
    if image.each::<Pkey>().next().is_some() && sys::arch::key_rights().is_none() {
        let what = "memory protection keys: are not there on this CPU or kernel: use a machine that has them";
        report(lacks(what, &names))?;
    }
    let missing = states(image, xcr0);
    if missing != 0 {
        let mut list = Line::new();
        for number in (0..64u64).filter(|number| missing >> number & 1 != 0) {
            crate::cpu::separate(&mut list);
            list.fill("XSAVE component #", number, b"", 0);
            list.push(match number {
                2 => b" (AVX)",
                5..=7 => b" (AVX-512)",
                _ => b"",
            });
        }
        let what = "@: in use, and this CPU has none of their kind: restart it on the same kind of CPU; or --cpu ignore to lose them";
        report(lacks(what, &list))?;
    }
    Ok(())
}

/// Components of the extended state that are in use, by threads or by what a signal has interrupted, and that this CPU does not have, or has in
/// another size; for signal frames also those that it has at a higher place.
fn states(image: &Checked<'_>, xcr0: u64) -> u64 {
    /// x87 and SSE are the same everywhere; protection keys are looked at apart, and AMX is in no image.
    const EVERYWHERE: u64 = 0b11 | 1 << 9 | 0b111 << 17;
    let (mut known, mut lower) = (EVERYWHERE, EVERYWHERE);
    for component in image.each::<Component>() {
        let number = component.number.get() & 63;
        let [at, len] = sys::arch::xsave_component(number);
        if xcr0 >> number & 1 != 0 && len == component.len.get() {
            known |= 1 << number;
            lower |= u64::from(at <= component.at.get()) << number;
        }
    }
    let mut missing = 0;
    for frame in image.each::<Frame>() {
        let present = image.xstate(frame).get(XSTATE_BV..).and_then(|header| header.first_chunk());
        missing |= present.map_or(0, |bytes| u64::from_le_bytes(*bytes)) & !known;
    }
    image.each::<SignalFrame>().fold(missing, |missing, frame| missing | frame.present.get() & !lower)
}

/// Tells `report` everything else that cannot work here: the object, the reason, the remedy.
///
/// # Errors
/// The first that `report` gives back.
pub fn system(image: &Checked<'_>, mut report: impl FnMut(Error) -> Result<()>) -> Result<()> {
    if sys::fs::stat(c"/proc/self/maps").is_err() {
        report(refused("/proc: is not mounted: mount it (mount -t proc proc /proc)", 0, &Line::new()))?;
    }
    memory(image, &mut report)?;
    descriptors(image, &mut report)?;
    let repairs =
        |step: &&SocketStep| (step.step.get(), step.a.get(), step.b.get()) == (Step::Option as u32, TCP, REPAIR);
    let connections = image.each::<SocketStep>().filter(repairs).count() as u64 / 2;
    if connections != 0 && !has(NET_ADMIN) {
        let what =
            "# TCP connections to other processes: carried, which takes CAP_NET_ADMIN here, too: restart as root";
        report(refused(what, connections, &Line::new()))?;
    }
    if image.table::<Seccomp>().last().is_some_and(|end| end.first.get() != 0) && sys::process::may_filter().is_err() {
        let what = "seccomp filters: take CAP_SYS_ADMIN, as they were installed without no_new_privs: restart as root";
        report(refused(what, 0, &Line::new()))?;
    }
    Ok(())
}

/// The credentials that a restart gives the process, where they are not to be its own: those of a tree of several users, and those of
/// another user whose process root restarts, unless root is asked for (`as_root`).
///
/// # Errors
/// It is another user's, and the image does not tell all of them.
pub fn credentials<'a>(image: &Checked<'a>, as_root: bool) -> Result<Option<&'a Credentials>> {
    let (own, header) = (image.each::<Credentials>().next(), image.header());
    let is_root = sys::process::effective_uid() == 0;
    let are_required = header.required.get() & Features::CREDENTIALS.bits() != 0;
    let is_others = header.uid != 0 || own.is_some_and(|own| own.uid.iter().any(|id| id.get() != 0));
    if if is_root { as_root || !is_others && !are_required } else { !are_required } {
        return Ok(None);
    }
    if own.is_none() {
        let what = "process of user #: its rights are not in the image: restart it as that user, or --as-root";
        return Err(refused(what, header.uid.get().into(), &Line::new()));
    }
    Ok(own)
}

/// What a restart must change for that.
///
/// # Errors
/// It may not, or [`credentials`].
#[inline(never)] // So that it exists once.
pub fn rights(image: &Checked<'_>, as_root: bool) -> Result<Change> {
    credentials(image, as_root)?.map_or(Ok(Change::Nothing), |own| {
        state::credentials::check(image.header().pid.get(), own, image.contents(own.groups))
    })
}

/// What this system refuses; `what` is a pattern for the number and the text, see [`sys::text::Text::fill`].
fn refused(what: &'static str, number: u64, text: &Line) -> Error {
    Error::about(ExitCode::Kernel, what, number, text.as_bytes(), None)
}

/// `SOL_TCP` and `TCP_REPAIR`.
const TCP: u32 = 6;
const REPAIR: u32 = 19;

fn memory(image: &Checked<'_>, report: &mut impl FnMut(Error) -> Result<()>) -> Result<()> {
    let bytes = |which: &dyn Fn(&Vma) -> bool| -> u64 {
        image.each::<Vma>().filter(|v| which(v)).map(|v| v.end.get().saturating_sub(v.start.get())).sum()
    };
    let private = |v: &Vma| v.prot.get() & PROT_WRITE != 0 && v.kind.get() != VmaKind::FileShared as u32;
    let flags = |v: &Vma| VmaFlags::from_bits_truncate(v.flags.get());
    // The kernel looks at the limit of the stack when that grows, not when it is mapped.
    let stack = |v: &Vma| flags(v).contains(VmaFlags::GROWS_DOWN);
    let locked = if has(IPC_LOCK) { 0 } else { bytes(&|v| flags(v).contains(VmaFlags::LOCKED)) };
    let mut within = |what: &'static str, need, resource, option| match sys::process::rlimit(resource) {
        Ok(limit) if need > limit.hard => {
            let what = Line::filled(what, need, b"", 0);
            {
                let (what, words) = (what.as_bytes(), ["", option]);
                report(Error::with_reason(
                    ExitCode::Kernel,
                    "@: more than the limit of %",
                    limit.hard,
                    what,
                    None,
                    words,
                ))
            }
        }
        _ => Ok(()),
    };
    within("% of address space", bytes(&|_| true) + SPARE_BYTES, RLIMIT_AS, "raise it (ulimit -Hv)")?;
    within("% of writable memory", bytes(&|v| private(v) && !stack(v)), RLIMIT_DATA, "raise it (ulimit -Hd)")?;
    within("% of locked memory", locked, RLIMIT_MEMLOCK, "raise it (ulimit -Hl)")?;
    let count = image.table::<Vma>().len() as u64;
    if let Some(limit) = setting(c"/proc/sys/vm/max_map_count").filter(|limit| count + SPARE_MAPPINGS > *limit) {
        let what = Line::filled("# mappings", count, b"", 0);
        report(refused("@: more than #: raise it (sysctl vm.max_map_count)", limit, &what))?;
    }
    if setting(c"/proc/sys/vm/overcommit_memory") == Some(2)
        && let Some((need, free)) = promised(bytes(&private))
    {
        let what = Line::filled("% of writable memory", need, b"", 0);
        let promises =
            "@: this system promises % more: free some, or raise it (sysctl vm.overcommit_ratio, vm.overcommit_memory)";
        report(refused(promises, free, &what))?;
    }
    Ok(())
}

/// How much writable memory this system still promises, if that is less than `need`: that too.
#[inline(never)] // For its buffers: the limit of the stack may be small.
fn promised(need: u64) -> Option<(u64, u64)> {
    let kept = if has(SYS_ADMIN) { Some(0) } else { setting(c"/proc/sys/vm/admin_reserve_kbytes") };
    let mut system = [0; 2048];
    let system = sys::fs::read_file_at(AT_FDCWD, c"/proc/meminfo", &mut system).unwrap_or_default();
    let (limit, used) = (kib(system, b"CommitLimit:")?, kib(system, b"Committed_AS:")?);
    // A child that becomes the program gives up as much as it has, but its supervisor keeps it.
    let free = limit.saturating_sub(used + (kept.unwrap_or(0) << 10));
    (need > free).then_some((need, free))
}

fn descriptors(image: &Checked<'_>, report: &mut impl FnMut(Error) -> Result<()>) -> Result<()> {
    let table = image.table::<Descriptor>();
    let top = table.iter().map(|d| u64::from(d.fd.get() & FD_MASK)).max().unwrap_or(0);
    let Ok(limit) = sys::process::rlimit(RLIMIT_NOFILE).map(|limit| limit.hard) else { return Ok(()) };
    // What is opened waits above the program's numbers until all is there.
    let contents = image.each::<Content>().filter(|one| one.kind.get() != ContentKind::SysV as u32).count();
    let again = image.each::<Backing>().filter(|one| {
        let flags = one.flags.get();
        flags & BackingFlags::CONTENT.bits() != 0 && flags & BackingFlags::WRITTEN.bits() == 0
    });
    let need = top.max(63) + 1 + (table.len() + contents + again.count()) as u64;
    let mut what = Line::filled("descriptor #: ", top, b"", 0);
    if top >= limit {
        report(refused("@above the limit of #: raise it (ulimit -Hn)", limit, &what))?;
    } else if need > limit {
        let needs = "a restart needs as many numbers above it as there are descriptors and contents without a named file, # in all, and ";
        what.fill(needs, need, b"", 0);
        report(refused("@the limit is #: raise it (ulimit -Hn)", limit, &what))?;
    }
    Ok(())
}

/// Whether this user has a capability.
fn has(capability: u64) -> bool {
    sys::credentials::capabilities().is_ok_and(|[effective, ..]| effective & capability != 0)
}

/// A number in a file of `/proc/sys`.
fn setting(path: &core::ffi::CStr) -> Option<u64> {
    let mut buffer = [0; 32];
    words(sys::fs::read_file_at(AT_FDCWD, path, &mut buffer).ok()?).next().and_then(decimal)
}

/// Bytes on the first line that begins so, in `/proc/meminfo`.
fn kib(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(name))?;
    words(line).nth(1).and_then(decimal).map(|kib| kib << 10)
}
