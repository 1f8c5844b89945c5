//! The last instructions of a restart of threads that were saved from outside: they run where nothing else of it is left.
//!
//! Must never touch the program's stack, nor, in [`way`], any register or flag: these are the program's already.

use core::arch::naked_asm;

/// What [`leave`] is to do: two ranges to unmap, whether to stop, one range to make executable and no longer writable, the frame to go on with.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Orders {
    /// First address and length.
    pub before: [u64; 2],
    /// The same.
    pub behind: [u64; 2],
    /// The same: where this code and its frame lie.
    pub gate: [u64; 2],
    /// What `rsp` is to be at rt_sigreturn(2).
    pub frame: u64,
    /// The first of the calls that restrict the thread before that; 0: none.
    pub restrictions: u64,
    /// This process's id when it is to stop itself (SIGSTOP), as the program was stopped; 0: it goes on.
    pub stops: u64,
    /// What is copied when it goes on again: from, to, so many words.
    pub goals: [u64; 3],
    /// A word for which the other threads wait; 0: they do not.
    pub word: u64,
    /// A byte for each thread, which is 2 when it needs nothing but its frame any more; and how many.
    pub arrivals: [u64; 2],
}

/// Bytes of [`leave`], which is to be copied to where it survives what it unmaps.
pub const LEAVE_LEN: usize = 336;

/// Where its second part begins, which takes the address of a call (or null), the frame, and two more: it makes that call and those behind
/// it of the same thread, and goes on as the frame says. One that fails ends the program, which must not go on with fewer restrictions. A
/// call is five words, the first two are halves: number, first and second argument, thread; the third argument.
///
/// The third is a word for which threads wait here before that, or null. The fourth is a byte that such a thread sets to 1 before it waits,
/// and to 2 after its last call. Null is for the one that lets them go, in front of its first call of which the second argument is even,
/// and waits until all bytes, which the fifth and sixth tell, are 2.
pub const CONFINE: usize = 128;

/// Unmaps all else and goes on as a frame says. A range of no length is left alone by the kernel.
///
/// # Safety
/// Runs in a copy in the gate; nothing outside of that is needed any more.
#[unsafe(naked)]
pub unsafe extern "C" fn leave(orders: *const Orders) -> ! {
    naked_asm!(
        "2:",
        "mov rbx, rdi",
        "mov rdi, [rbx]",
        "mov rsi, [rbx + 8]",
        "mov eax, 11",
        "syscall",
        "mov rdi, [rbx + 16]",
        "mov rsi, [rbx + 24]",
        "mov eax, 11",
        "syscall",
        // kill(2) with SIGSTOP: it stands here until somebody lets it go on.
        "mov rdi, [rbx + 64]",
        "test edi, edi",
        "jz 6f",
        "mov esi, 19",
        "mov eax, 62",
        "syscall",
        "mov rsi, [rbx + 72]",
        "mov rdi, [rbx + 80]",
        "mov rcx, [rbx + 88]",
        "rep movsq",
        "6:",
        "mov rdi, [rbx + 32]",
        "mov rsi, [rbx + 40]",
        "mov edx, 5",
        "mov eax, 10",
        "syscall",
        "mov rdi, [rbx + 56]",
        "mov rsi, [rbx + 48]",
        "mov rdx, [rbx + 96]",
        "xor ecx, ecx",
        "mov r8, [rbx + 104]",
        "mov r9, [rbx + 112]",
        ".org 2b + {confine}, 0x90",
        "mov rbx, rdi",
        "mov rsp, rsi",
        "mov r12, rdx",
        "mov r13, r8",
        "mov r14, rcx",
        "test r12, r12",
        "jz 4f",
        "test r14, r14",
        "jz 4f",
        "mov byte ptr [r14], 1",
        "3:",
        "pause",
        "cmp dword ptr [r12], 0",
        "je 3b",
        "xor r12d, r12d",
        "4:",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "test rbx, rbx",
        "jz 7f",
        "5:",
        "mov eax, [rbx]",
        "mov edi, [rbx + 4]",
        "mov esi, [rbx + 8]",
        "mov ebp, [rbx + 12]",
        "mov rdx, [rbx + 16]",
        "test r12, r12",
        "jz 6f",
        "lea r15, [rip + 5b]",
        "test esi, 1",
        "jz 22f",
        "6:",
        "syscall",
        "test eax, eax",
        "jnz 9f",
        "add rbx, 40",
        "cmp ebp, [rbx + 12]",
        "je 5b",
        "7:",
        "lea r15, [rip + 8f]",
        "test r12, r12",
        "jnz 22f",
        "8:",
        "test r14, r14",
        "jz 24f",
        "mov byte ptr [r14], 2",
        "24:",
        "mov eax, 15",
        "syscall",
        "9:",
        "ud2",
        // The others go on, and this one when they have all that restricts them.
        "22:",
        "mov dword ptr [r12], 1",
        "xor r12d, r12d",
        "xor ecx, ecx",
        "23:",
        "pause",
        "cmp byte ptr [r13 + rcx], 2",
        "jne 23b",
        "inc rcx",
        "cmp rcx, r9",
        "jb 23b",
        "jmp r15",
        // As long as it says; longer would not assemble.
        ".org 2b + {len}, 0xcc",
        confine = const CONFINE,
        len = const LEAVE_LEN,
    )
}

/// Where the jump of [`way`] begins: it leads to itself as long as the word at the goal says this address.
pub const JUMP: u64 = 7;

/// Code for address `at`: sets the byte at `mark` to 1 and jumps to where the word at `goal` says. All three lie within
/// 2 GiB of each other.
#[must_use]
pub fn way(at: u64, mark: u64, goal: u64) -> [u8; 16] {
    let [a, b, c, d] = (mark.wrapping_sub(at + 7) as u32).to_le_bytes();
    let [e, f, g, h] = (goal.wrapping_sub(at + 13) as u32).to_le_bytes();
    // mov byte ptr [rip + mark], 1; jmp qword ptr [rip + goal]; int3.
    [0xc6, 0x05, a, b, c, d, 1, 0xff, 0x25, e, f, g, h, 0xcc, 0xcc, 0xcc]
}
