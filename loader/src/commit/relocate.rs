//! The stub moves itself: a copy of text, data and bss elsewhere, with the addresses in it corrected.
//!
//! Legal here: everything; the old mappings are in place. The code is position-independent; what is not are words in
//! the data that hold addresses of the window. The window's base is such that no other word looks like one
//! (`linker.ld`), and `cargo xtask build-stub` checks that all absolute relocations lie there, aligned.

use sys::abi::mm::{PROT_EXEC, PROT_READ};

unsafe extern "C" {
    static __stub_start: u8;
    static __text_end: u8;
    static __relocatable_start: u8;
    static __relocatable_end: u8;
    static __stub_end: u8;
    static __window_end: u8;
}

macro_rules! address_of {
    ($symbol:ident) => {
        // Only the linker's address is taken, nothing is read.
        (&raw const $symbol) as u64
    };
}

/// The part of the stub that moves: first address and length.
#[must_use]
pub fn window() -> (u64, u64) {
    let start = address_of!(__stub_start);
    (start, address_of!(__stub_end) - start)
}

/// Copies the stub to `to`, corrects its addresses, makes its text executable; returns the distance.
///
/// # Safety
/// `to` is page-aligned, mapped writable, and as long as the window.
pub unsafe fn copy_to(to: u64) -> usize {
    let (start, len) = window();
    let end = address_of!(__window_end);
    let delta = to.wrapping_sub(start);
    // SAFETY: the caller vouches for the target; the source is this program, all of it mapped.
    unsafe { core::ptr::copy_nonoverlapping(start as usize as *const u8, to as usize as *mut u8, len as usize) };
    let mut word = address_of!(__relocatable_start);
    while word < address_of!(__relocatable_end) {
        let place = word.wrapping_add(delta) as usize as *mut u64;
        // SAFETY: an aligned word inside the copy.
        unsafe {
            let value = *place;
            if (start..end).contains(&value) {
                *place = value.wrapping_add(delta);
            }
        }
        word += 8;
    }
    let text = address_of!(__text_end) - start;
    // A kernel that forbids executable anonymous memory ends the restart at the first instruction there.
    // SAFETY: the copy is complete and is not used before this.
    let _ = unsafe { sys::memory::protect(to as usize, text as usize, PROT_READ | PROT_EXEC) };
    delta as usize
}
