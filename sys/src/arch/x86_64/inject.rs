//! Code that is put into a stopped process for a moment, to make system calls in it from outside.
//!
//! Whatever happens to the tracer, the code resumes the thread by itself. There are two ways: [`Boot`] restores registers and
//! mask one by one from words at its end, [`Run`] all at once by rt_sigreturn(2) from a frame, so that no signal can find
//! the thread in between; it needs memory for that frame, which the first one gets. Nothing here touches the stack, nor [`Boot`] flags.

use core::arch::global_asm;

use static_assertions::const_assert;

use crate::abi::ptrace::{WALL, WEXITED};

global_asm!(
    ".pushsection .rodata.ckpt_inject, \"a\"",
    ".balign 8",
    ".globl ckpt_boot_start",
    ".hidden ckpt_boot_start",
    "ckpt_boot_start:",
    "9:",
    // One call; number and arguments are in the registers. Then a signal to itself, as in `Run`: its number in R8, which is
    // left over by the calls that are made here, and the call's result in R9.
    "syscall",
    "mov r9, rax",
    "mov eax, 186",
    "syscall",
    "mov edi, eax",
    "mov esi, r8d",
    "mov eax, 200",
    "syscall",
    ".globl ckpt_boot_told",
    ".hidden ckpt_boot_told",
    "ckpt_boot_told:",
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
    // In the midst of `Run`'s clone(2), whose result this is: waits for the end of the middle process, too, and gives back the
    // memory that `Run` needs. Its address is in R9, with the signal's number in the lowest byte.
    ".globl ckpt_boot_last",
    ".hidden ckpt_boot_last",
    "ckpt_boot_last:",
    "mov rsi, rax",
    "mov eax, 247",
    "syscall",
    "movzx r8d, r9b",
    "mov rdi, r9",
    "mov dil, 0",
    "mov esi, {memory}",
    "mov eax, 11",
    "jmp 9b",
    ".balign 8",
    "6:",
    ".skip 80",
    "7:",
    ".skip 8",
    ".globl ckpt_boot_end",
    ".hidden ckpt_boot_end",
    "ckpt_boot_end:",
    ".balign 8",
    ".globl ckpt_run_start",
    ".hidden ckpt_run_start",
    "ckpt_run_start:",
    "syscall",
    "2:",
    "mov rsp, [rip + 6f]",
    "mov eax, 15",
    "syscall",
    // Many calls, from a table of eight words each: number, arguments, result.
    ".globl ckpt_run_table",
    ".hidden ckpt_run_table",
    "ckpt_run_table:",
    "5:",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "syscall",
    "mov [r12 + 56], rax",
    "add r12, 64",
    "dec r13",
    "jnz 5b",
    // And if it is wanted, a clone(2) with the flags in R14.
    "mov rcx, r14",
    "jrcxz 4f",
    "mov rdi, r14",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "jmp 8f",
    // A signal to itself that nobody but a tracer notices: it stops here, and without one goes back.
    "4:",
    "mov eax, 186",
    "syscall",
    "mov rdi, rax",
    "mov rsi, rbx",
    "mov eax, 200",
    "syscall",
    ".globl ckpt_run_told",
    ".hidden ckpt_run_told",
    "ckpt_run_told:",
    "jmp 2b",
    // clone(2), twice over: the middle process makes the copy and ends at once, the thread waits for that end.
    ".globl ckpt_run_fork",
    ".hidden ckpt_run_fork",
    "ckpt_run_fork:",
    "8:",
    "syscall",
    "mov rcx, rax",
    "jrcxz 3f",
    "mov r9, rax",
    "mov rsi, rax",
    "mov edi, 1",
    "xor edx, edx",
    "mov r10d, {wait}",
    "xor r8d, r8d",
    "mov eax, 247",
    "syscall",
    "jmp 4b",
    // The middle process: shares the program's memory, so it must leave no trace in it.
    "3:",
    "mov edi, {files}",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    // The copy stands still here; let go, it ends as the middle process does.
    "xor edi, edi",
    "mov eax, 231",
    "syscall",
    "ud2",
    ".balign 8",
    "6:",
    ".skip 8",
    ".globl ckpt_run_end",
    ".hidden ckpt_run_end",
    "ckpt_run_end:",
    ".popsection",
    wait = const WEXITED | WALL,
    memory = const MEMORY,
    files = const crate::abi::CLONE_FILES,
);

unsafe extern "C" {
    static ckpt_boot_start: u8;
    static ckpt_boot_told: u8;
    static ckpt_boot_last: u8;
    static ckpt_boot_end: u8;
    static ckpt_run_start: u8;
    static ckpt_run_table: u8;
    static ckpt_run_told: u8;
    static ckpt_run_fork: u8;
    static ckpt_run_end: u8;
}

/// Where a thread was, as far as calls change it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ResumeState {
    /// RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11.
    pub registers: [u64; 9],
    /// Where to go on.
    pub rip: u64,
    /// The signal mask.
    pub mask: u64,
}

/// One of the two pieces of code, with the words at its end.
pub trait Code {
    /// Room for it, bytes.
    const ROOM: usize;
    /// What its last bytes hold.
    type Words: Copy + Default;

    /// First and last byte of the template.
    fn span() -> (*const u8, usize);

    /// Its bytes with these words.
    fn with(words: &Self::Words, to: &mut [u8]) -> usize {
        let (start, len) = Self::span();
        let len = len.min(to.len());
        let code = len.saturating_sub(size_of::<Self::Words>());
        // SAFETY: the template is `len` bytes long, `to` too, and the words are plain numbers.
        unsafe {
            core::ptr::copy_nonoverlapping(start, to.as_mut_ptr(), code);
            to.as_mut_ptr().add(code).cast::<Self::Words>().write_unaligned(*words);
        }
        len
    }

    /// Whether these bytes begin with the code, with whatever words.
    fn is_in(bytes: &[u8]) -> bool {
        let (start, len) = Self::span();
        let code = len.saturating_sub(size_of::<Self::Words>());
        // SAFETY: the template is longer than that.
        let template = unsafe { core::slice::from_raw_parts(start, code) };
        bytes.starts_with(template)
    }
}

/// Room for all three pieces: [`Boot`], and [`Run`] for two threads.
pub const BLOCK: usize = 672;

/// Bytes of the memory that [`Run`] needs, and [`Boot`] maps and unmaps.
pub const MEMORY: usize = 5 << 12;

/// Restores registers word by word.
#[derive(Clone, Copy, Debug)]
pub struct Boot;

impl Boot {
    /// Where the thread stands when the signal has reached it that tells of the end of a call: its number is in R8 (0: none), the
    /// call's result then in R9.
    #[must_use]
    pub fn end() -> u64 {
        (&raw const ckpt_boot_told as usize - &raw const ckpt_boot_start as usize) as u64
    }

    /// Where a thread goes on that stands in the clone(2) of [`Run::fork`], when that is the last that is wanted of it: waitid(2)'s
    /// arguments but the id are in the registers, in R9 the address of [`MEMORY`] plus the signal's number.
    #[must_use]
    pub fn last() -> u64 {
        (&raw const ckpt_boot_last as usize - &raw const ckpt_boot_start as usize) as u64
    }
}

impl Code for Boot {
    const ROOM: usize = 256;
    type Words = ResumeState;

    fn span() -> (*const u8, usize) {
        let start = &raw const ckpt_boot_start;
        (start, &raw const ckpt_boot_end as usize - start as usize)
    }
}

/// Resumes by a signal frame, whose stack pointer is its word.
#[derive(Clone, Copy, Debug)]
pub struct Run;

impl Run {
    /// Where its way back begins.
    pub const BACK: u64 = 2;

    /// Where the double clone begins. It ends with the signal, too, and with what the first clone returned in R9.
    #[must_use]
    pub fn fork() -> u64 {
        (&raw const ckpt_run_fork as usize - &raw const ckpt_run_start as usize) as u64
    }

    /// Where the calls of a table begin: its address in R12, how many in R13; the signal that tells of their end in RBX (0: none).
    #[must_use]
    pub fn table() -> u64 {
        (&raw const ckpt_run_table as usize - &raw const ckpt_run_start as usize) as u64
    }

    /// Where the thread stands when that signal has reached it.
    #[must_use]
    pub fn end() -> u64 {
        (&raw const ckpt_run_told as usize - &raw const ckpt_run_start as usize) as u64
    }
}

impl Code for Run {
    const ROOM: usize = 208;
    type Words = u64;

    fn span() -> (*const u8, usize) {
        let start = &raw const ckpt_run_start;
        (start, &raw const ckpt_run_end as usize - start as usize)
    }
}

const_assert!(Boot::ROOM + 2 * Run::ROOM <= BLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_fit_and_are_known_again() {
        let mut room = [0; 256];
        let boot = Boot::with(&ResumeState { rip: 7, ..ResumeState::default() }, &mut room);
        assert!(boot <= Boot::ROOM && Boot::is_in(&room) && !Run::is_in(&room), "{boot}");
        let run = Run::with(&0x1234, &mut room);
        assert!(run <= Run::ROOM && Run::is_in(&room) && !Boot::is_in(&room), "{run}");
        assert_eq!(room[run - 8..run], 0x1234u64.to_le_bytes());
        assert_eq!(room[..2], [0x0f, 0x05]);
        assert_eq!(room[Run::fork() as usize..][..2], [0x0f, 0x05]);
        assert_eq!(room[Run::end() as usize - 2..][..2], [0x0f, 0x05]);
        Boot::with(&ResumeState::default(), &mut room);
        assert_eq!(room[Boot::end() as usize - 2..][..2], [0x0f, 0x05]);
    }
}
