//! Threads: what the kernel keeps for each besides its registers.

use image_format::record::thread::{DEATH_SIGNAL_SHIFT, Jmp, Thread, ThreadFlags};
use sys::abi::signal::Altstack;
use sys::arch::Context;
use sys::fs::Fd;
use sys::text::Text;
use sys::{Errno, Sysno};

use crate::inside::{Arg, Inside, Question};
use crate::process::restarting::Part;
use crate::target::parent;
use crate::{Error, Result};

/// The signature that every libc registers its rseq area with on x86 (`RSEQ_SIG`).
const RSEQ_SIG: u32 = 0x5305_3053;

/// Lengths that rseq areas are registered with: the original structure, and what newer kernels advertise.
const RSEQ_LENGTHS: [u32; 3] = [32, 33, 64];

/// How far from the thread pointer a libc puts the rseq area, bytes.
const RSEQ_REACH: u64 = 0x1800;

/// Where a thread's rseq area is, as far as the saver knows.
#[derive(Clone, Copy, Debug)]
pub enum Rseq {
    /// A tracer was told: address, length, signature; address 0 for none.
    Known(u64, u32, u32),
    /// It has to be found near this thread pointer.
    Near(u64),
}

/// What only the thread itself can ask: its alternate signal stack, tid address, parent-death signal and timer slack.
// SAFETY: each fills its data, or returns a number.
pub const QUESTIONS: [Question; 4] = unsafe {
    [
        Question::new(Sysno::sigaltstack, Arg::Value(0), Arg::Data(0), size_of::<Altstack>()),
        Question::new(Sysno::prctl, Arg::Value(sys::abi::PR_GET_TID_ADDRESS), Arg::Data(0), 8),
        Question::new(Sysno::prctl, Arg::Value(sys::abi::PR_GET_PDEATHSIG), Arg::Data(0), 4),
        Question::new(Sysno::prctl, Arg::Value(sys::abi::PR_GET_TIMERSLACK), Arg::Value(0), 0),
    ]
};

/// What the kernel keeps for a thread. Collected on the thread itself; `tid` is its id as `proc` lists it, `own` as
/// the thread sees it.
///
/// # Errors
/// A fact cannot be had.
pub fn save(inside: &mut impl Inside, proc: Fd, tid: i32, own: i32, rseq: Rseq) -> Result<Thread> {
    let failed = |what: &'static str| move |e| Error::failed(format_args!("thread {tid}"), what, e);
    let zero = Arg::Value(0);
    let [altstack, tid_address, _, slack] = QUESTIONS;
    let (_, data) = altstack.ask(inside).map_err(failed("its alternate signal stack cannot be read"))?;
    let [sp, flags, size] = split(&data);
    let (_, data) = tid_address.ask(inside).map_err(failed("its tid address cannot be read"))?;
    let tid_address = u64::from_le_bytes(data);
    let mut data = [0; 24];
    let args = [Arg::Value(own as usize), Arg::Data(0), Arg::Data(8), zero, zero, zero];
    // SAFETY: fills two words.
    unsafe { inside.call(Sysno::get_robust_list, args, &mut data) }
        .map_err(failed("its robust list cannot be read"))?;
    let [robust_list, robust_len, _] = split(&data);
    let death_signal = death_signal(inside, proc).map_err(failed("its parent-death signal cannot be read"))?;
    let (slack, []) = slack.ask(inside).map_err(failed("its timer slack cannot be read"))?;
    let (rseq, rseq_len, rseq_sig) = match rseq {
        Rseq::Known(area, len, signature) => (area, len, signature),
        Rseq::Near(fs_base) => {
            let found = find_rseq(inside, fs_base);
            let (area, len) = found.map_err(failed("its rseq area was not found near its thread pointer"))?;
            (area, len, RSEQ_SIG)
        }
    };
    let mut comm = [0; 16];
    let path = Text::<48>::of(format_args!("task/{tid}/comm"));
    let mut buffer = [0; 32];
    let name = sys::fs::read_file_at(proc, path.as_c_str(), &mut buffer).map_err(failed("its name cannot be read"))?;
    for (to, from) in comm.iter_mut().zip(name.strip_suffix(b"\n").unwrap_or(name)) {
        *to = *from;
    }
    Ok(Thread {
        tid: (own as u32).into(),
        flags: (death_signal << DEATH_SIGNAL_SHIFT).into(),
        jmp: Jmp::default(),
        altstack_sp: sp.into(),
        altstack_size: size.into(),
        altstack_flags: (flags as u32 as i32).into(),
        rseq_sig: rseq_sig.into(),
        tid_address: tid_address.into(),
        robust_list: robust_list.into(),
        robust_len: robust_len.into(),
        rseq: rseq.into(),
        rseq_len: rseq_len.into(),
        timer_slack: u32::try_from(slack).unwrap_or(u32::MAX).into(),
        comm,
        runtime_tid: 0.into(),
    })
}

/// The signal that the calling thread gets when its parent ends; 0 for none. SIGKILL from a supervisor as the parent is the supervisor's doing, not
/// the program's.
fn death_signal(inside: &mut impl Inside, proc: Fd) -> sys::Result<u32> {
    let [_, _, death_signal, _] = QUESTIONS;
    let (_, data) = death_signal.ask(inside)?;
    let signal = u32::from_le_bytes(data);
    if signal as i32 != sys::abi::signal::SIGKILL {
        return Ok(signal);
    }
    let parent = parent(proc)?;
    // In a namespace the parent cannot be seen: there it always is a supervisor.
    if parent == 0 {
        return Ok(0);
    }
    let path = Text::<32>::of(format_args!("/proc/{parent}"));
    let directory = sys::fs::open(path.as_c_str(), sys::abi::O_DIRECTORY, 0)?;
    Ok(if matches!(Part::of(directory.fd()), Part::Supervisor(_)) { 0 } else { signal })
}

fn split(data: &[u8; 24]) -> [u64; 3] {
    let mut words = data.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()));
    core::array::from_fn(|_| words.next().unwrap_or(0))
}

/// An area as the kernel wants it.
#[repr(C, align(32))]
struct Area([u8; 32]);

/// Finds the thread's rseq area by asking to register candidates: the kernel answers EBUSY for the one that it
/// already has and EINVAL for others (kernel/rseq.c). No other interface tells from inside.
fn find_rseq(inside: &mut impl Inside, fs_base: u64) -> sys::Result<(u64, u32)> {
    if fs_base == 0 {
        return Ok((0, 0));
    }
    // First an area of our own: where none is registered the kernel takes it, and would as well take, and overwrite,
    // whatever lies beside the thread pointer.
    let mut own = Area([0; 32]);
    let mut ask = |flags: usize| {
        let zero = Arg::Value(0);
        let number = [Arg::Value(32), Arg::Value(flags), Arg::Value(RSEQ_SIG as usize)];
        let [len, flags, sig] = number;
        // SAFETY: an area of this call, which is taken away again before it ends.
        unsafe { inside.call(Sysno::rseq, [Arg::Data(0), len, flags, sig, zero, zero], &mut own.0) }
    };
    match ask(0) {
        Ok(_) => {
            ask(sys::abi::RSEQ_FLAG_UNREGISTER)?;
            return Ok((0, 0));
        }
        Err(Errno::ENOSYS) => return Ok((0, 0)),
        Err(_) => {}
    }
    let mut call = |area: u64, len: u32| {
        let args = [area as usize, len as usize, 0, RSEQ_SIG as usize, 0, 0].map(Arg::Value);
        // SAFETY: the thread has an area: another one is refused.
        unsafe { inside.call(Sysno::rseq, args, &mut []) }
    };
    let middle = fs_base & !31;
    for len in RSEQ_LENGTHS {
        let offsets = (0..RSEQ_REACH / 32).flat_map(|i| [(i + 1) * 32, 0u64.wrapping_sub(i * 32)]);
        for offset in offsets {
            let area = middle.wrapping_add(offset);
            if let Err(Errno::EBUSY | Errno::EPERM) = call(area, len) {
                return Ok((area, len));
            }
        }
    }
    Err(Errno::ENOENT)
}

/// The record's context for the assembly.
#[must_use]
pub fn context(jmp: &Jmp) -> Context {
    Context {
        rbx: jmp.rbx.get(),
        rbp: jmp.rbp.get(),
        r12: [jmp.r12.get(), jmp.r13.get(), jmp.r14.get(), jmp.r15.get()],
        rsp: jmp.rsp.get(),
        rip: jmp.rip.get(),
        mxcsr: jmp.mxcsr.get(),
        x87_cw: jmp.x87_cw.get(),
        fs_base: jmp.fs_base.get(),
        gs_base: jmp.gs_base.get(),
        sigmask: jmp.sigmask.get(),
    }
}

/// The assembly's context for the record.
#[must_use]
pub fn jmp(context: &Context) -> Jmp {
    let [r12, r13, r14, r15] = context.r12.map(Into::into);
    Jmp {
        rbx: context.rbx.into(),
        rbp: context.rbp.into(),
        r12,
        r13,
        r14,
        r15,
        rsp: context.rsp.into(),
        rip: context.rip.into(),
        mxcsr: context.mxcsr.into(),
        x87_cw: (context.x87_cw & 0xffff).into(),
        fs_base: context.fs_base.into(),
        gs_base: context.gs_base.into(),
        sigmask: context.sigmask.into(),
    }
}

/// Finds where a thread's own id lies in memory by the layout of what the kernel, the C library or the runtime has there: at the tid address,
/// and in the thread's descriptor. `read` reads the process's memory.
pub fn find_id_words(record: &mut Thread, read: impl Fn(u64, &mut [u8]) -> sys::Result<()>) {
    let (tid, fs, at) = (u64::from(record.tid.get()), record.jmp.fs_base.get(), record.tid_address.get());
    let word = |at: u64| {
        let mut bytes = [0; 8];
        read(at, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    };
    let holds = |at: u64| word(at).is_some_and(|word| word & u64::from(u32::MAX) == tid);
    if at != 0 && holds(at) {
        record.flags = (record.flags.get() | ThreadFlags::TID_WORD.bits()).into();
    } else if fs != 0 {
        let found = musl_id(fs, word, holds).or_else(|| go_id(fs, word, holds));
        record.runtime_tid = found.unwrap_or(0).into();
    }
}

/// musl's `struct pthread` begins with a pointer to itself and has `tid` at byte 48 (src/internal/pthread_impl.h); musl's tid address is
/// elsewhere.
fn musl_id(fs: u64, word: impl Fn(u64) -> Option<u64>, holds: impl Fn(u64) -> bool) -> Option<u64> {
    const TID: u64 = 48;
    let at = fs.checked_add(TID)?;
    (word(fs)? == fs && holds(at)).then_some(at)
}

/// Go without a C library: below the thread pointer lies the goroutine that runs, or the thread's own; in it at byte 48 the thread's `m`. An `m` begins with
/// its thread's own goroutine, which points back to it, and has `procid` behind a `gobuf` of seven words, or of six since Go 1.25, and
/// another word (runtime/runtime2.go).
fn go_id(fs: u64, word: impl Fn(u64) -> Option<u64>, holds: impl Fn(u64) -> bool) -> Option<u64> {
    const M: u64 = 48;
    const PROC_ID: [u64; 2] = [72, 64];
    let m = word(word(fs.checked_sub(8)?)?.checked_add(M)?)?;
    let own = word(m)?;
    if word(own.checked_add(M)?)? != m {
        return None;
    }
    PROC_ID.into_iter().filter_map(|at| m.checked_add(at)).find(|at| holds(*at))
}

/// Gives the calling thread what it had: thread pointer, tid address, robust list, rseq, alternate stack; and its own id where the kernel,
/// the C library or the runtime keeps it.
///
/// # Errors
/// The step that the kernel refused.
///
/// # Safety
/// The program's memory is in place; this code uses no thread-local storage.
pub unsafe fn restore(thread: &Thread) -> core::result::Result<(), (&'static str, Errno)> {
    // SAFETY: the program's own thread pointer; nothing here depends on the old one.
    unsafe {
        sys::process::arch_prctl(sys::abi::ARCH_SET_FS, thread.jmp.fs_base.get() as usize)
            .map_err(|e| ("FS base", e))?;
        sys::process::arch_prctl(sys::abi::ARCH_SET_GS, thread.jmp.gs_base.get() as usize)
            .map_err(|e| ("GS base", e))?;
    }
    let tid_address = thread.tid_address.get();
    // SAFETY: the address that the kernel had of this thread, in memory that is in place.
    unsafe { sys::thread::set_tid_address(tid_address) };
    if thread.flags.get() & ThreadFlags::TID_WORD.bits() != 0 {
        let word = tid_address as usize as *mut i32;
        // SAFETY: the record says that a thread id lay there; the memory is in place and writable.
        unsafe { word.write_unaligned(sys::thread::tid()) };
    }
    own_ids(thread);
    if thread.robust_list.get() != 0 {
        // SAFETY: as above.
        unsafe { sys::thread::set_robust_list(thread.robust_list.get(), thread.robust_len.get()) }
            .map_err(|e| ("robust list", e))?;
    }
    if thread.rseq.get() != 0 {
        // SAFETY: the thread's own area; a pending critical section ended when the signal came.
        unsafe { sys::thread::rseq(thread.rseq.get(), thread.rseq_len.get(), 0, thread.rseq_sig.get()) }
            .map_err(|e| ("rseq", e))?;
    }
    let stack = Altstack {
        sp: thread.altstack_sp.get() as usize,
        // SS_ONSTACK is only reported, never set; the other bits are set.
        flags: thread.altstack_flags.get() & !sys::abi::signal::SS_ONSTACK,
        size: thread.altstack_size.get() as usize,
        pad: 0,
    };
    // SAFETY: the thread's own region.
    unsafe { sys::signal::set_altstack(&stack) }.map_err(|e| ("alternate signal stack", e))?;
    let numbers = [
        (sys::abi::PR_SET_TIMERSLACK, thread.timer_slack.get()),
        (sys::abi::PR_SET_PDEATHSIG, thread.flags.get() >> DEATH_SIGNAL_SHIFT),
    ];
    for (option, value) in numbers.into_iter().filter(|(_, value)| *value != 0) {
        // SAFETY: numbers only.
        let _ = unsafe { sys::process::prctl(option, value as usize, 0, 0) };
    }
    Ok(())
}

/// Most entries of a robust list that the kernel looks at (`ROBUST_LIST_LIMIT`).
const ROBUST_MAX: usize = 2048;

/// `FUTEX_TID_MASK`.
const TID_MASK: u32 = 0x3fff_ffff;

/// Under another id: writes it into the thread's descriptor, and into the robust locks that the thread holds, which the kernel releases at its
/// end only under that id. Reads and writes by `/proc/self/mem`, where a bad pointer is an error and no fault.
fn own_ids(thread: &Thread) {
    let (head, old, new) = (thread.robust_list.get(), thread.tid.get(), sys::thread::tid() as u32);
    if old == new {
        return;
    }
    let Ok(mem) = sys::fs::open(c"/proc/self/mem", sys::abi::O_RDWR, 0) else { return };
    let change = |at: u64| {
        let mut bytes = [0; 4];
        if sys::fs::pread_exact(mem.fd(), &mut bytes, at).is_err() {
            return;
        }
        let value = u32::from_le_bytes(bytes);
        if value & TID_MASK == old {
            let _ = sys::fs::pwrite_all(mem.fd(), &(value & !TID_MASK | new).to_le_bytes(), at);
        }
    };
    if thread.runtime_tid.get() != 0 {
        change(thread.runtime_tid.get());
    }
    let word = |at: u64| {
        let mut bytes = [0; 8];
        sys::fs::pread_exact(mem.fd(), &mut bytes, at).ok().map(|()| u64::from_le_bytes(bytes))
    };
    // struct robust_list_head: next, futex_offset, list_op_pending; bit 0 of a pointer marks a PI mutex.
    let (Some(first), Some(offset), Some(pending)) = (word(head), word(head + 8), word(head + 16)) else { return };
    let change = |entry: u64| {
        if entry & !1 != 0 {
            change((entry & !1).wrapping_add(offset));
        }
    };
    change(pending);
    let mut entry = first;
    for _ in 0..ROBUST_MAX {
        if entry & !1 == head {
            return;
        }
        change(entry);
        let Some(next) = word(entry & !1) else { return };
        entry = next;
    }
}
