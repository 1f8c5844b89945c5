//! Code that is put into a stopped process for a moment, to make system calls in it from outside.
//!
//! Whatever happens to the tracer, the code leads back by itself: behind each call it restores mask and registers from
//! the words at its end and jumps to where the thread was. Nothing in it touches flags or the stack.

use core::arch::global_asm;

use static_assertions::const_assert_eq;

global_asm!(
    ".pushsection .rodata.ckpt_inject, \"a\"",
    ".balign 8",
    ".globl ckpt_inject_start",
    ".hidden ckpt_inject_start",
    "ckpt_inject_start:",
    // One call; number and arguments are in the registers.
    "syscall",
    // The way back.
    "2:",
    "mov eax, 14",
    "mov edi, 2",
    "lea rsi, [rip + 7f]",
    "mov edx, 0",
    "mov r10d, 8",
    "syscall",
    "mov rax, [rip + 6f]",
    "mov rcx, [rip + 6f + 8]",
    "mov rdx, [rip + 6f + 16]",
    "mov rsi, [rip + 6f + 24]",
    "mov rdi, [rip + 6f + 32]",
    "mov r8, [rip + 6f + 40]",
    "mov r9, [rip + 6f + 48]",
    "mov r10, [rip + 6f + 56]",
    "mov r11, [rip + 6f + 64]",
    "jmp qword ptr [rip + 6f + 72]",
    // clone(2), twice over: the middle process makes the copy and ends at once, the thread waits for that end.
    ".globl ckpt_inject_fork",
    ".hidden ckpt_inject_fork",
    "ckpt_inject_fork:",
    "syscall",
    "mov rcx, rax",
    "jrcxz 3f",
    "mov rsi, rax",
    "mov edi, 1",
    "mov edx, 0",
    "mov r10d, {wait}",
    "mov r8d, 0",
    "mov eax, 247",
    "syscall",
    "jmp 2b",
    // The middle process: shares the program's memory, so it must leave no trace in it.
    "3:",
    "mov edi, {files}",
    "mov esi, 0",
    "mov edx, 0",
    "mov r10d, 0",
    "mov r8d, 0",
    "mov eax, 56",
    "syscall",
    // The copy stands still here; let go, it ends as the middle process does.
    "mov edi, 0",
    "mov eax, 231",
    "syscall",
    "ud2",
    ".balign 8",
    "6:",
    ".skip 80",
    "7:",
    ".skip 8",
    ".globl ckpt_inject_end",
    ".hidden ckpt_inject_end",
    "ckpt_inject_end:",
    ".popsection",
    wait = const crate::abi::ptrace::WEXITED | crate::abi::ptrace::WALL,
    files = const crate::abi::CLONE_FILES,
);

unsafe extern "C" {
    static ckpt_inject_start: u8;
    static ckpt_inject_fork: u8;
    static ckpt_inject_end: u8;
}

/// The words at the end of the code: what a thread had.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct WayBack {
    /// RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11.
    pub registers: [u64; 9],
    /// Where to go on.
    pub rip: u64,
    /// The signal mask.
    pub mask: u64,
}
const_assert_eq!(size_of::<WayBack>(), 88);

/// Bytes of the code with its words.
pub const INJECTED_MAX: usize = 352;

/// The code with these words; returns it, its length, and where within it the double clone begins.
#[must_use]
pub fn injected(back: &WayBack) -> ([u8; INJECTED_MAX], usize, usize) {
    let start = &raw const ckpt_inject_start;
    let len = (&raw const ckpt_inject_end as usize - start as usize).min(INJECTED_MAX);
    let mut code = [0; INJECTED_MAX];
    let words = len - size_of::<WayBack>();
    // SAFETY: both ends of the constant are the linker's, `len` fits the array, and the words are plain numbers.
    unsafe {
        core::ptr::copy_nonoverlapping(start, code.as_mut_ptr(), words);
        code.as_mut_ptr().add(words).cast::<WayBack>().write_unaligned(*back);
    }
    (code, len, &raw const ckpt_inject_fork as usize - start as usize)
}
