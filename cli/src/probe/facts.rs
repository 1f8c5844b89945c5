//! The list of what is tried, in the order in which it is shown.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sys::abi::PrctlMmMap;
use sys::child;
use sys::namespace::{self, Kinds};
use sys::probe::{self, Tracing};

use super::Fact;
use super::trial::{Outcome, in_child, with_child, word};
use crate::stub::Stub;

/// An id that is free in a namespace of one's own.
const SOME_ID: i32 = 4242;

/// Tries everything.
pub fn all() -> Vec<Fact> {
    let mut facts = tracing();
    facts.push(fact(
        "kcmp",
        looked_at(|pid| probe::kcmp(rustix::process::getpid().as_raw_nonzero().get(), pid)),
        "save: tells which descriptors share one open file",
    ));
    facts.push(fact(
        "pidfd-getfd",
        looked_at(probe::pidfd_getfd),
        "save: a look at the program's descriptors from outside",
    ));
    facts.push(fact(
        "pagemap-scan",
        probe::pagemap_scan().map_err(word),
        "save: touched pages and guard regions are found fast; without it page by page",
    ));
    facts.push(fact(
        "userfaultfd",
        probe::userfaultfd().map_err(word),
        "save: which pages have changed since the last one",
    ));
    let proc = if fs::exists("/proc/self/maps").unwrap_or(false) { Ok(()) } else { Err("not mounted".to_owned()) };
    facts.push(fact("proc", proc, "save and restart: /proc tells what a process has"));
    facts.push(fact("memfd", memfd(), "restart: the stub that is built in, images from a pipe"));
    facts.push(fact("stub", stub(), "restart: the program that does it"));
    facts.push(fact("mm-map", in_child(mm_map), "restart: heap, arguments and environment at their old places"));
    facts.push(fact("vdso-movable", vdso(), "restart: the kernel's own code goes to its saved address"));
    facts.push(fact(
        "timer-ids",
        in_child(|| probe::timer_ids().map_err(word)),
        "restart: POSIX timers with their old ids; without it in ascending order",
    ));
    facts.push(fact("user-namespace", unshared(UnshareFlags::NEWUSER), "restart --namespace as an ordinary user"));
    facts.push(fact(
        "pid-namespace",
        unshared(UnshareFlags::NEWUSER | UnshareFlags::NEWPID),
        "restart --namespace: ids",
    ));
    facts.push(fact(
        "time-namespace",
        unshared(UnshareFlags::NEWUSER | UnshareFlags::NEWTIME),
        "restart: clocks go on from their saved values, where they would go back",
    ));
    facts.push(fact("ids-in-namespace", in_child(ids_in_namespace), "restart --namespace (clone3 with set_tid)"));
    facts.push(fact("ids-here", in_child(ids_here), "restart --pid keep (clone3 with set_tid)"));
    facts.extend(limits());
    facts
}

fn fact(name: &'static str, outcome: Outcome, meaning: &'static str) -> Fact {
    let ok = Some(outcome.is_ok());
    Fact { name, ok, value: outcome.err().unwrap_or_else(|| "yes".to_owned()), meaning }
}

fn looked_at(look: impl FnOnce(i32) -> sys::Result<()>) -> Outcome {
    with_child(look)?.map_err(word)
}

/// What a tracer may do with a child, and with others.
fn tracing() -> Vec<Fact> {
    let trace = |pid| probe::trace(pid, || write_to(pid));
    let none = |_| Tracing {
        stop: Err(sys::Errno::EAGAIN),
        mask: Err(sys::Errno::EAGAIN),
        rseq: Err(sys::Errno::EAGAIN),
        memory: Err(sys::Errno::EAGAIN),
    };
    let seen = with_child(trace).unwrap_or_else(none);
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let (ok, value, meaning) = match scope.trim() {
        "" => (Some(true), "no Yama", "save: any process of this user"),
        "0" => (Some(true), "0", "save: any process of this user"),
        "1" => (Some(false), "1", "save: only what ckpt itself has started (ckpt run), or as root"),
        "2" => (Some(false), "2", "save: only as root"),
        _ => (Some(false), "3", "save: nothing from outside; LD_PRELOAD=libckpt.so works"),
    };
    vec![
        fact("ptrace", seen.stop.map_err(word), "save: a process of one's own is stopped and read"),
        Fact { name: "ptrace-scope", ok, value: value.to_owned(), meaning },
        fact("signal-masks", seen.mask.map_err(word), "save: PTRACE_GETSIGMASK"),
        fact("rseq", seen.rseq.map_err(word), "save: restartable sequences (PTRACE_GET_RSEQ_CONFIGURATION)"),
        fact("tracer-memory", seen.memory.map_err(word), "save: /proc/PID/mem can be written by a tracer"),
    ]
}

/// A word of the child's constants, which its own mapping does not let it write.
fn write_to(pid: i32) -> sys::Result<()> {
    static WORD: u64 = 0x636b_7074;
    let failed = |e: std::io::Error| sys::Errno::new(e.raw_os_error().unwrap_or(5));
    let memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map_err(failed)?;
    memory.write_all_at(&WORD.to_ne_bytes(), (&raw const WORD) as u64).map_err(failed)
}

fn memfd() -> Outcome {
    let made = rustix::fs::memfd_create("trial", rustix::fs::MemfdFlags::CLOEXEC).map_err(word)?;
    rustix::fs::fstat(&made).map(drop).map_err(word)
}

fn stub() -> Outcome {
    let nothing = crate::stub::Options::with_files(crate::stub::Files::Verify);
    Stub::new(std::path::Path::new("-"), &nothing, &[]).map(drop).map_err(|failure| failure.into_parts().1)
}

/// Sets what is set already.
fn mm_map() -> Outcome {
    let stat = fs::read_to_string("/proc/self/stat").map_err(|e| crate::failure::reason(&e))?;
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    // proc_pid_stat(5) counts from 1, and two fields lie before the parenthesis.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let map = PrctlMmMap {
        start_code: field(26),
        end_code: field(27),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk: probe::brk(),
        start_stack: field(28),
        arg_start: field(48),
        arg_end: field(49),
        env_start: field(50),
        env_end: field(51),
        auxv: 0,
        auxv_size: 0,
        exe_fd: -1,
    };
    sys::process::set_mm_map(&map).map_err(word)
}

/// Sealed mappings refuse to be moved (mseal(2), `sl` among their flags).
fn vdso() -> Outcome {
    let maps = fs::read_to_string("/proc/self/smaps").map_err(|e| crate::failure::reason(&e))?;
    let own = maps.lines().skip_while(|line| !line.ends_with("[vdso]"));
    let flags = own.into_iter().find_map(|line| line.strip_prefix("VmFlags:")).unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "sl") {
        Err("sealed (CONFIG_MSEAL_SYSTEM_MAPPINGS)".to_owned())
    } else {
        Ok(())
    }
}

fn unshared(flags: UnshareFlags) -> Outcome {
    // SAFETY: no descriptor table is unshared, in a child with one thread.
    in_child(|| unsafe { unshare_unsafe(flags) }.map_err(word))
}

/// A process with a chosen id in a pid namespace.
fn ids_in_namespace() -> Outcome {
    let kinds = Kinds::PID | Kinds::TIME;
    namespace::unshare(kinds).or_else(|_| namespace::unshare(kinds | Kinds::USER)).map_err(word)?;
    // PID 1 waits; its end ends all others.
    // SAFETY: a child with one thread.
    let init = unsafe { child::fork(None) }.map_err(word)?;
    if init == 0 {
        probe::sleep();
    }
    // SAFETY: as above.
    let pid = unsafe { child::fork(Some(SOME_ID)) }.map_err(word);
    if pid == Ok(0) {
        sys::process::exit(i32::from(sys::process::pid() != SOME_ID));
    }
    let ended = pid.map(|pid| child::wait(pid, true));
    let _ = sys::process::kill(init, sys::abi::signal::SIGKILL);
    let _ = child::wait(init, true);
    match ended? {
        Ok(Some((_, child::Change::Exited(0)))) => Ok(()),
        _ => Err("the id is not as asked for".to_owned()),
    }
}

/// Chooses an id that was free a moment ago.
fn ids_here() -> Outcome {
    // SAFETY: a child with one thread.
    let free = unsafe { child::fork(None) }.map_err(word)?;
    if free == 0 {
        sys::process::exit(0);
    }
    let _ = child::wait(free, true);
    // SAFETY: as above.
    let pid = unsafe { child::fork(Some(free)) }.map_err(word)?;
    if pid == 0 {
        sys::process::exit(0);
    }
    let _ = child::wait(pid, true);
    Ok(())
}

/// Whether this command, and so what it starts, runs under a seccomp filter.
fn seccomp() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    match mode.map(str::trim) {
        Some("0") => "none",
        Some("1") => "strict",
        Some("2") => "filter",
        _ => "unknown",
    }
    .to_owned()
}

fn limits() -> Vec<Fact> {
    let plain = |name, value, meaning| Fact { name, ok: None, value, meaning };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let limit = |which| {
        let limit = getrlimit(which);
        let text = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
        format!("{} (of {})", text(limit.current), text(limit.maximum))
    };
    vec![
        plain("max-map-count", read("/proc/sys/vm/max_map_count"), "restart: most mappings of a program"),
        plain(
            "overcommit-memory",
            read("/proc/sys/vm/overcommit_memory"),
            "restart: with 2, a program's writable memory must fit",
        ),
        plain(
            "seccomp",
            seccomp(),
            "save, restart: system calls that a filter forbids fail; what has no other than this is saved, and others by their PID, as root",
        ),
        plain("pid-max", read("/proc/sys/kernel/pid_max"), "restart --pid keep: ids below this one"),
        plain("nofile", limit(Resource::Nofile), "restart: descriptors below this one"),
        plain("memlock", limit(Resource::Memlock), "restart: bytes of locked memory"),
        plain("address-space", limit(Resource::As), "restart: bytes of address space"),
        plain("data", limit(Resource::Data), "restart: bytes of writable memory"),
    ]
}
