//! Whether this CPU has what the program may use: the libc has chosen its routines, JITs their instructions.

use image_format::record::header::Cpu;
use sys::text::{Line, decimal, words};

/// Instruction sets that programs choose by: bit and name, in turn, for each of [`Cpu::words`] up to a bar.
const FEATURES: &[u8] = b"0 SSE3 1 PCLMULQDQ 9 SSSE3 12 FMA 13 CMPXCHG16B 19 SSE4.1 20 SSE4.2 22 MOVBE 23 POPCNT 25 AES 26 XSAVE 28 AVX 29 F16C 30 RDRAND | | \
     0 FSGSBASE 3 BMI1 4 HLE 5 AVX2 8 BMI2 9 ERMS 11 RTM 16 AVX512F 17 AVX512DQ 18 RDSEED 19 ADX 21 AVX512_IFMA 23 CLFLUSHOPT 24 CLWB 28 AVX512CD 29 SHA 30 AVX512BW 31 AVX512VL | \
     1 AVX512_VBMI 3 PKU 6 AVX512_VBMI2 8 GFNI 9 VAES 10 VPCLMULQDQ 11 AVX512_VNNI 12 AVX512_BITALG 14 AVX512_VPOPCNTDQ 22 RDPID 27 MOVDIRI | \
     4 FSRM 23 AVX512_FP16 | \
     4 AVX_VNNI 5 AVX512_BF16 | \
     1 XSAVEC | \
     0 LAHF 5 LZCNT";

/// The names of what `saved` has and these words of CPUID, and XCR0, lack; empty when nothing is lacking.
#[must_use]
pub fn lacking(saved: &Cpu, words_here: &[u32; 8], xcr0_here: u64) -> Line {
    let mut names = Line::new();
    let mut pairs = saved.words.iter().zip(words_here).map(|(then, now)| then.get() & !now);
    let mut missing = pairs.next().unwrap_or(0);
    let mut fields = words(FEATURES);
    while let Some(field) = fields.next() {
        let Some(bit) = decimal(field) else {
            missing = pairs.next().unwrap_or(0);
            continue;
        };
        if let Some(name) = fields.next().filter(|_| missing & (1 << bit) != 0) {
            separate(&mut names);
            names.push(name);
        }
    }
    let states = saved.xcr0.get() & !xcr0_here;
    if states != 0 {
        separate(&mut names);
        names.fill("XSAVE states 0x*", states, b"", 0);
    }
    names
}

/// A comma behind what is in a list already.
pub(crate) fn separate(names: &mut Line) {
    if !names.as_bytes().is_empty() {
        names.push(b", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn what_has_a_name_is_looked_at() {
        let known: u32 = (0..8).map(|word| (0..32).filter(|bit| named(word, *bit)).count() as u32).sum();
        assert_eq!(
            known,
            FEATURES.split(|byte| matches!(byte, b' ' | b'|')).filter(|w| decimal(w).is_some()).count() as u32
        );
    }

    fn named(word: usize, bit: u32) -> bool {
        let mut saved = Cpu::new_zeroed();
        saved.words.iter_mut().skip(word).take(1).for_each(|word| *word = (1u32 << bit).into());
        let here = saved.words.map(u32::from);
        assert!(lacking(&saved, &here, 0).as_bytes().is_empty());
        !lacking(&saved, &[0; 8], 0).as_bytes().is_empty()
    }
}
