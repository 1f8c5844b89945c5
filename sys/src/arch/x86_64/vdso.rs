//! The kernel's code in every process (vdso): its entries, and the way from an old one to a new one.

/// Entries.
pub const ENTRIES: usize = 6;

/// The names of the entries behind `__vdso_`, each with the number of the system call that does the same.
pub const ENTRY_NAMES: &[u8] = b"clock_gettime 228 gettimeofday 96 time 201 getcpu 309 clock_getres 229 getrandom 318";

/// Bytes of a detour.
pub const DETOUR: usize = 16;

/// Code for the place of an old entry: a jump to `to`; without one the system call `number`, by which all of them can be
/// replaced, as they take its arguments.
#[must_use]
pub fn detour(to: Option<u64>, number: u32) -> [u8; DETOUR] {
    let [n0, n1, n2, n3] = number.to_le_bytes();
    match to.map(u64::to_le_bytes) {
        // jmp qword ptr [rip], and the word that it reads.
        Some([a, b, c, d, e, f, g, h]) => [0xff, 0x25, 0, 0, 0, 0, a, b, c, d, e, f, g, h, 0xcc, 0xcc],
        // mov eax, number; syscall; ret.
        None => [0xb8, n0, n1, n2, n3, 0x0f, 0x05, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc],
    }
}
