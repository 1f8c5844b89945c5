//! Where the entries of a vdso are: the least that finds names in an ELF file's dynamic symbols.
//!
//! One of the two that it reads comes from an image: whatever the bytes are, it finds entries or none, and never panics.

use sys::arch::{DETOUR, ENTRIES, ENTRY_NAMES};
use sys::text::{after, choice, decimal, words};

/// Offset of each entry from the first byte, in the order of [`ENTRY_NAMES`]; 0 where there is none.
pub type Entries = [u32; ENTRIES];

/// Most symbols that are looked at: a vdso has about a dozen.
const SYMBOLS: u64 = 64;

/// Bytes of a symbol, a program header, an entry of the dynamic section.
const SYMBOL: u64 = 24;
const HEADER: u64 = 56;
const DYNAMIC: u64 = 16;

/// A little-endian number of up to eight bytes; 0 behind the end. Places are counted modulo 2^64, as what they lead to is checked.
#[inline(never)] // So that it exists once.
fn number(elf: &[u8], at: u64, len: usize) -> u64 {
    let bytes = usize::try_from(at).ok().and_then(|at| elf.get(at..)).unwrap_or_default();
    bytes.iter().take(len).rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// The entries of a vdso, each of them long enough for a detour.
#[must_use]
pub fn entries(elf: &[u8]) -> Entries {
    let mut found = Entries::default();
    let headers = number(elf, 32, 8);
    let (mut base, mut dynamic) = (0u64, 0);
    for i in 0..number(elf, 56, 2) {
        let at = headers.wrapping_add(HEADER * i);
        let (offset, address) = (number(elf, at.wrapping_add(8), 8), number(elf, at.wrapping_add(16), 8));
        match number(elf, at, 4) {
            // PT_LOAD, PT_DYNAMIC.
            1 => base = address.wrapping_sub(offset),
            2 => dynamic = offset,
            _ => {}
        }
    }
    let (mut strings, mut symbols) = (0u64, 0u64);
    for i in 0..SYMBOLS {
        let at = dynamic.wrapping_add(DYNAMIC * i);
        let value = number(elf, at.wrapping_add(8), 8).wrapping_sub(base);
        match number(elf, at, 8) {
            // DT_NULL, DT_STRTAB, DT_SYMTAB.
            0 => break,
            5 => strings = value,
            6 => symbols = value,
            _ => {}
        }
    }
    for i in 1..SYMBOLS {
        let at = symbols.wrapping_add(SYMBOL * i);
        // The names lie behind the symbols, whose number no field tells.
        if at >= strings {
            break;
        }
        let name = strings.wrapping_add(number(elf, at, 4));
        let name = usize::try_from(name).ok().and_then(|at| elf.get(at..)).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().and_then(|name| after(name, b"__vdso_"));
        let start = number(elf, at.wrapping_add(8), 8).wrapping_sub(base);
        let fits = number(elf, at.wrapping_add(16), 8) >= DETOUR as u64
            && start.checked_add(DETOUR as u64).is_some_and(|end| end <= elf.len() as u64);
        // Every second word is a name.
        let place = name.and_then(|name| choice(name, ENTRY_NAMES)).filter(|place| fits && place % 2 == 0);
        if let Some(entry) = place.and_then(|place| found.get_mut(place / 2)) {
            *entry = start as u32;
        }
    }
    found
}

/// The numbers of the system calls that do what the entries do.
pub fn calls() -> impl Iterator<Item = u32> {
    words(ENTRY_NAMES).filter_map(decimal).map(|number| number as u32)
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// This process's own, read from its memory.
    fn own() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap_or_default();
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap_or_default();
        let hex = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        let mut bytes = vec![0; (hex(end) - hex(start)) as usize];
        let memory = std::fs::File::open("/proc/self/mem").expect("/proc");
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, hex(start)).expect("the vdso is readable");
        bytes
    }

    #[test]
    fn the_entries_of_here_are_found() {
        let found = entries(&own());
        assert!(found[..5].iter().all(|entry| *entry != 0), "{found:x?}");
        assert_eq!(calls().collect::<Vec<_>>(), [228, 96, 201, 309, 229, 318]);
    }

    #[test]
    fn whatever_the_bytes_are_it_comes_back() {
        let (sound, mut state) = (own(), 1u64);
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = sound.clone();
            for _ in 0..4 {
                let at = random() % 0x600;
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % sound.len());
            let len = bytes.len() as u32;
            assert!(entries(&bytes).iter().all(|entry| *entry == 0 || entry + DETOUR as u32 <= len));
        }
    }
}
