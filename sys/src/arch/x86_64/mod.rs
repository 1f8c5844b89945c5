//! x86_64: contexts, thread entry, the way back from a signal handler, CPU features.
//!
//! Register offsets below are those of [`Context`]. Nothing here may use the red zone or thread-local storage.

mod gate;
#[cfg(feature = "remote")]
mod inject;
mod vdso;
#[cfg(feature = "remote")]
pub use inject::*;

pub use gate::*;
pub use vdso::*;

use core::arch::naked_asm;

use static_assertions::const_assert_eq;

use crate::abi::CloneArgs;

/// The jmp context: the registers that a call preserves (System V ABI), and what hangs on the thread.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Context {
    /// RBX.
    pub rbx: u64,
    /// RBP.
    pub rbp: u64,
    /// R12 to R15.
    pub r12: [u64; 4],
    /// RSP after the return from [`enter`].
    pub rsp: u64,
    /// Where [`enter`] returns to.
    pub rip: u64,
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word in the low half.
    pub x87_cw: u32,
    /// FS base; the caller fills it in.
    pub fs_base: u64,
    /// GS base; the caller fills it in.
    pub gs_base: u64,
    /// Signal mask; the caller fills it in.
    pub sigmask: u64,
}
const_assert_eq!(core::mem::offset_of!(Context, rsp), 48);
const_assert_eq!(core::mem::offset_of!(Context, rip), 56);
const_assert_eq!(core::mem::offset_of!(Context, mxcsr), 64);
const_assert_eq!(core::mem::offset_of!(Context, x87_cw), 68);
const_assert_eq!(core::mem::offset_of!(Context, sigmask), 88);

/// How [`enter`] came back.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entered {
    /// 0: the function returned, in the same process. Else: a restarted process, and the start of the memory
    /// that the restart stub still occupies.
    pub stub_start: usize,
    /// What the function returned; after a restart the length of that memory.
    pub value: usize,
}

/// Saves the caller's context and calls `f(context, arg)` on the stack that ends at `stack_top` (0: on this one).
///
/// It is setjmp turned inside out: whoever resumes `context` later makes this call return a second time, in the
/// restarted process. Since `f` is called from here, the caller's frame lives as long as `f` runs.
///
/// # Safety
/// `context` is writable; `stack_top` is 0 or the end of a writable region that nothing else uses; after a
/// restart the caller may use only what the image carried.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(
    context: *mut Context,
    f: unsafe extern "C" fn(*mut Context, *mut u8) -> usize,
    arg: *mut u8,
    stack_top: usize,
) -> Entered {
    naked_asm!(
        "mov [rdi], rbx",
        "mov [rdi + 8], rbp",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        "mov rax, [rsp]",
        "lea r8, [rsp + 8]",
        "mov [rdi + 48], r8",
        "mov [rdi + 56], rax",
        "stmxcsr [rdi + 64]",
        "fnstcw [rdi + 68]",
        "push rbp",
        "mov rbp, rsp",
        "test rcx, rcx",
        "cmovnz rsp, rcx",
        "and rsp, -16",
        "mov rax, rsi",
        "mov rsi, rdx",
        "call rax",
        "mov rdx, rax",
        "xor eax, eax",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

/// Goes on where `context` was saved: [`enter`] returns there with these two values.
///
/// The signal mask is set last, when the thread is on its own stack again: a pending signal finds it there.
///
/// # Safety
/// The memory that the context refers to is in place, FS and GS base are set.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(context: *const Context, stub_start: usize, value: usize) -> ! {
    naked_asm!(
        "ldmxcsr [rdi + 64]",
        "fldcw [rdi + 68]",
        "mov rbx, [rdi]",
        "mov rbp, [rdi + 8]",
        "mov r12, [rdi + 16]",
        "mov r13, [rdi + 24]",
        "mov r14, [rdi + 32]",
        "mov r15, [rdi + 40]",
        "mov rsp, [rdi + 48]",
        "push [rdi + 56]",
        "push rsi",
        "push rdx",
        "lea rsi, [rdi + 88]",
        "mov eax, 14",
        "mov edi, 2",
        "xor edx, edx",
        "mov r10d, 8",
        "syscall",
        "pop rdx",
        "pop rax",
        "ret",
    )
}

/// What a handler returns to: rt_sigreturn(2). The bytes are the ones by which debuggers know a signal frame.
///
/// # Safety
/// Only the kernel may have this called, from a signal frame.
#[unsafe(naked)]
pub unsafe extern "C" fn restore_rt() {
    naked_asm!("mov rax, 15", "syscall")
}

/// clone(2) with a new stack: the child calls `entry(arg)` and must not return.
///
/// # Safety
/// `stack_top` is the end of a writable region, 16-byte aligned, for this thread alone; `child_tid` is valid for
/// the flags given.
#[unsafe(naked)]
pub unsafe extern "C" fn clone_onto(
    flags: usize,
    stack_top: usize,
    parent_tid: *mut u32,
    child_tid: *mut u32,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> isize {
    naked_asm!(
        "sub rsi, 16",
        "mov [rsi], r8",
        "mov [rsi + 8], r9",
        "mov r10, rcx",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "pop rax",
        "pop rdi",
        "call rax",
        "ud2",
        "2:",
        "ret",
    )
}

/// clone(2) of a thread that ends before it runs anything: it shares this stack, and writes nothing to it.
///
/// # Safety
/// The flags make this thread wait for its end (`CLONE_VFORK`).
#[unsafe(naked)]
pub unsafe extern "C" fn clone_empty(flags: usize) -> isize {
    naked_asm!(
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor edi, edi",
        "mov eax, 60",
        "syscall",
        "ud2",
    )
}

/// clone3(2) with a new stack: the child calls `entry(arg)` and must not return.
///
/// # Safety
/// As [`clone_onto`]; the stack is the one that `args` names.
#[unsafe(naked)]
pub unsafe extern "C" fn clone3_onto(
    args: *const CloneArgs,
    len: usize,
    entry: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> isize {
    naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, 435",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2:",
        "ret",
    )
}

/// Calls `entry(arg)` on another stack and never comes back.
///
/// # Safety
/// `stack_top` is the end of a writable region.
#[unsafe(naked)]
pub unsafe extern "C" fn leave_to(entry: usize, arg: usize, stack_top: usize) -> ! {
    naked_asm!("mov rsp, rdx", "and rsp, -16", "xor ebp, ebp", "mov rax, rdi", "mov rdi, rsi", "call rax", "ud2")
}

/// Defines the entry point of a program without libc: calls `$main(sp)` with the kernel's initial stack pointer,
/// which points at argc, argv, envp and the auxiliary vector.
#[macro_export]
macro_rules! entry_point {
    ($main:path) => {
        /// Where the kernel starts the program.
        ///
        /// # Safety
        /// Only the kernel may come here.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "xor ebp, ebp",
                "mov rdi, rsp",
                "and rsp, -16",
                "call {main}",
                "ud2",
                main = sym $main,
            )
        }
    };
}

/// CPUID words in the order of the image's header, XCR0 and the size of the enabled XSAVE area.
#[must_use]
pub fn cpu_features() -> ([u32; 8], u64, u32) {
    use core::arch::x86_64::__cpuid_count as cpuid;
    let leaf1 = cpuid(1, 0);
    let max = cpuid(0, 0).eax;
    let zero = core::arch::x86_64::CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    let leaf7 = if max >= 7 { cpuid(7, 0) } else { zero };
    let leaf7_1 = if leaf7.eax >= 1 { cpuid(7, 1) } else { zero };
    let (mut xsave, mut xsave1, mut xcr0) = (zero, zero, 0);
    if leaf1.ecx & (1 << 27) != 0 {
        xsave = cpuid(0xd, 0);
        xsave1 = cpuid(0xd, 1);
        // SAFETY: OSXSAVE is set: the instruction exists and user space may use it.
        xcr0 = unsafe { xgetbv() };
    }
    let extended = cpuid(0x8000_0001, 0);
    // Bits that say something about this core or the kernel's state, not what programs may execute: APIC id
    // is not among these words; OSXSAVE and OSPKE are the same on every core.
    let words = [leaf1.ecx, leaf1.edx, leaf7.ebx, leaf7.ecx, leaf7.edx, leaf7_1.eax, xsave1.eax, extended.ecx];
    (words, xcr0, xsave.ebx)
}

/// What this thread may do with memory that has a protection key (PKRU); `None` where there are no keys.
#[must_use]
pub fn key_rights() -> Option<u32> {
    /// OSPKE: the kernel has them switched on.
    const ON: u32 = 1 << 4;
    if core::arch::x86_64::__cpuid_count(7, 0).ecx & ON == 0 {
        return None;
    }
    let rights: u32;
    // SAFETY: reads a register that is there.
    unsafe {
        core::arch::asm!("rdpkru", in("ecx") 0, out("eax") rights, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    Some(rights)
}

/// Sets what [`key_rights`] has told.
pub fn set_key_rights(rights: u32) {
    // SAFETY: they were told on this CPU, or on one that the restart has found to be alike; memory without a key, as all of
    // this program's own is, is not concerned.
    unsafe {
        core::arch::asm!("wrpkru", in("ecx") 0, in("eax") rights, in("edx") 0, options(nostack, preserves_flags))
    };
}

/// Bytes of an XSAVE area up to the last component that debuggers know: all but AMX, whose tiles lie at the end.
#[must_use]
pub fn xsave_core_size(xcr0: u64) -> usize {
    use core::arch::x86_64::__cpuid_count as cpuid;
    /// XTILECFG and XTILEDATA.
    const AMX: u64 = 0b11 << 17;
    let enabled = (2..63).filter(|i| xcr0 & !AMX & (1 << i) != 0);
    let ends = enabled.map(|i| {
        let component = cpuid(0xd, i);
        (component.ebx + component.eax) as usize
    });
    // Legacy area and header, which are always there.
    ends.max().unwrap_or(0).max(576)
}

/// Offset and bytes of a component from 2 on, which XCR0 has, in an XSAVE area of this CPU.
#[must_use]
pub fn xsave_component(number: u32) -> [u32; 2] {
    let component = core::arch::x86_64::__cpuid_count(0xd, number);
    [component.ebx, component.eax]
}

/// Reads XCR0.
///
/// # Safety
/// The CPU has OSXSAVE.
unsafe fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register; the caller vouches that it exists.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Tells the CPU that this is a spin loop.
pub fn pause() {
    core::hint::spin_loop();
}

/// `struct epoll_event` (packed on this machine alone): what is waited for, and the program's word.
#[must_use]
pub fn epoll_event(events: u32, data: u64) -> [u8; 12] {
    let mut event = [0; 12];
    let (head, tail) = event.split_at_mut(4);
    head.copy_from_slice(&events.to_le_bytes());
    tail.copy_from_slice(&data.to_le_bytes());
    event
}
