//! The last instructions of a restart of threads that were saved from outside: they run where nothing else of it is left.
//!
//! Must never touch the program's stack, nor, in [`way`], any register or flag: these are the program's already.

use core::arch::naked_asm;

/// What [`leave`] is to do: two ranges to unmap, one to make executable and no longer writable, the frame to go on with.
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
}

/// Bytes of [`leave`], which is to be copied to where it survives what it unmaps.
pub const LEAVE_LEN: usize = 120;

/// Where its second part begins, which takes the address of a call (or null) and the frame: it makes that call and those behind it of
/// the same thread, and goes on as the frame says. One that fails ends the program, which must not go on with fewer restrictions. A
/// call is five words, the first two are halves: number, first and second argument, thread; the third argument.
pub const CONFINE: usize = 64;

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
        "mov rdi, [rbx + 32]",
        "mov rsi, [rbx + 40]",
        "mov edx, 5",
        "mov eax, 10",
        "syscall",
        "mov rdi, [rbx + 56]",
        "mov rsi, [rbx + 48]",
        ".org 2b + {confine}, 0x90",
        "mov rbx, rdi",
        "mov rsp, rsi",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "test rbx, rbx",
        "jz 4f",
        "3:",
        "mov eax, [rbx]",
        "mov edi, [rbx + 4]",
        "mov esi, [rbx + 8]",
        "mov ebp, [rbx + 12]",
        "mov rdx, [rbx + 16]",
        "syscall",
        "test eax, eax",
        "jnz 5f",
        "add rbx, 40",
        "cmp ebp, [rbx + 12]",
        "je 3b",
        "4:",
        "mov eax, 15",
        "syscall",
        "5:",
        "ud2",
        // As long as it says; longer would not assemble.
        ".org 2b + {len}, 0xcc",
        confine = const CONFINE,
        len = const LEAVE_LEN,
    )
}

/// Code for address `at`: sets the byte at `mark` to 1 and jumps to where the word at `goal` says. All three lie within
/// 2 GiB of each other.
#[must_use]
pub fn way(at: u64, mark: u64, goal: u64) -> [u8; 16] {
    let [a, b, c, d] = (mark.wrapping_sub(at + 7) as u32).to_le_bytes();
    let [e, f, g, h] = (goal.wrapping_sub(at + 13) as u32).to_le_bytes();
    // mov byte ptr [rip + mark], 1; jmp qword ptr [rip + goal]; int3.
    [0xc6, 0x05, a, b, c, d, 1, 0xff, 0x25, e, f, g, h, 0xcc, 0xcc, 0xcc]
}
