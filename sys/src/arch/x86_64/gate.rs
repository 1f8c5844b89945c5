//! The last instructions of a restart of threads that were saved from outside: they run where nothing else of it is left.
//!
//! Must never touch the program's stack, nor, in [`way`], any register or flag: these are the program's already.

use core::arch::naked_asm;

use static_assertions::const_assert_eq;

/// rt_sigreturn(2): goes on as a signal frame says.
///
/// # Safety
/// `frame` is what `rsp` is to be: eight bytes into a whole frame, whose memory stays for as long as the kernel reads it.
#[unsafe(naked)]
pub unsafe extern "C" fn sigreturn(frame: usize) -> ! {
    naked_asm!("mov rsp, rdi", "mov eax, 15", "syscall", "ud2")
}

/// What [`leave`] is to do: two ranges to unmap, one to make executable and no longer writable, and the frame to go on with.
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
    /// Where [`confine`] lies that comes before that; 0: nowhere.
    pub confine: u64,
}

/// Bytes of [`leave`], which is to be copied to where it survives what it unmaps.
pub const LEAVE_LEN: usize = 80;

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
        "mov rsp, [rbx + 48]",
        "mov rcx, [rbx + 56]",
        "jrcxz 3f",
        "jmp rcx",
        "3:",
        "mov eax, 15",
        "syscall",
        // As long as it says; longer would not assemble.
        ".org 2b + {len}, 0xcc",
        len = const LEAVE_LEN,
    )
}

/// A call that [`confine`] makes, with the program that it names. The last one is rt_sigreturn(2).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Restriction {
    /// Its number.
    pub number: u32,
    /// Its arguments.
    pub first: u32,
    /// The second.
    pub second: u32,
    /// Zero.
    pub reserved: u32,
    /// The third: the address of what follows, or 0.
    pub third: u64,
    /// `struct sock_fprog`: length and address.
    pub program: [u64; 2],
}
const_assert_eq!(size_of::<Restriction>(), 40);

/// Bytes of [`confine`], behind which lie its calls.
pub const CONFINE_LEN: usize = 40;

/// Makes the calls that lie behind it, up to the one that leads away. One that fails ends the program: it must not go on with fewer
/// restrictions.
///
/// # Safety
/// Runs in a copy in the gate, with `rsp` as rt_sigreturn(2) wants it.
#[unsafe(naked)]
pub unsafe extern "C" fn confine() -> ! {
    naked_asm!(
        "2:",
        "lea rbx, [rip + 3f]",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "4:",
        "mov eax, [rbx]",
        "mov edi, [rbx + 4]",
        "mov esi, [rbx + 8]",
        "mov rdx, [rbx + 16]",
        "add rbx, {call}",
        "syscall",
        "test eax, eax",
        "jz 4b",
        "ud2",
        ".org 2b + {len}, 0xcc",
        "3:",
        call = const size_of::<Restriction>(),
        len = const CONFINE_LEN,
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
