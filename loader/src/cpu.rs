//! Whether this CPU has what the program may use: the libc has chosen its routines, JITs their instructions.

use image_format::record::header::Cpu;
use sys::text::{Hex, Text, decimal, words};

/// Instruction sets that programs choose by: bit and name, in turn, for each of [`Cpu::words`] up to a bar.
const FEATURES: &[u8] = b"0 SSE3 1 PCLMULQDQ 9 SSSE3 12 FMA 13 CMPXCHG16B 19 SSE4.1 20 SSE4.2 22 MOVBE 23 POPCNT 25 AES 26 XSAVE 28 AVX 29 F16C 30 RDRAND | | \
     0 FSGSBASE 3 BMI1 4 HLE 5 AVX2 8 BMI2 9 ERMS 11 RTM 16 AVX512F 17 AVX512DQ 18 RDSEED 19 ADX 21 AVX512_IFMA 23 CLFLUSHOPT 24 CLWB 28 AVX512CD 29 SHA 30 AVX512BW 31 AVX512VL | \
     1 AVX512_VBMI 3 PKU 6 AVX512_VBMI2 8 GFNI 9 VAES 10 VPCLMULQDQ 11 AVX512_VNNI 12 AVX512_BITALG 14 AVX512_VPOPCNTDQ 22 RDPID 27 MOVDIRI | \
     4 FSRM 23 AVX512_FP16 | \
     4 AVX_VNNI 5 AVX512_BF16 | \
     1 XSAVEC | \
     0 LAHF 5 LZCNT";

/// The bits of [`FEATURES`], for each of the words.
const MASKS: [u32; 8] = masks();

#[allow(clippy::indexing_slicing, reason = "by the compiler, which would say so")]
const fn masks() -> [u32; 8] {
    let (mut masks, mut word, mut number, mut at) = ([0; 8], 0, None, 0);
    while at < FEATURES.len() {
        match (FEATURES[at], number) {
            (b'|', _) => word += 1,
            (digit @ b'0'..=b'9', None) => number = Some(digit as u32 - b'0' as u32),
            (digit @ b'0'..=b'9', Some(tens)) => number = Some(tens * 10 + digit as u32 - b'0' as u32),
            (b' ', Some(bit)) => {
                masks[word] |= 1 << bit;
                number = None;
                // The name, which has digits, too.
                at += 1;
                while at < FEATURES.len() && FEATURES[at] != b' ' {
                    at += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    masks
}

/// Whether `saved` has what these words of CPUID, and XCR0, lack: [`lacking`] without the names, which the stub leaves to `ckpt`.
#[must_use]
pub fn lacks(saved: &Cpu, words_here: &[u32; 8], xcr0_here: u64) -> bool {
    let words = saved.words.iter().zip(words_here).zip(MASKS);
    words.into_iter().any(|((then, now), mask)| then.get() & !now & mask != 0) || saved.xcr0.get() & !xcr0_here != 0
}

/// The names of what `saved` has and these words of CPUID, and XCR0, lack; empty when nothing is lacking.
#[must_use]
pub fn lacking(saved: &Cpu, words_here: &[u32; 8], xcr0_here: u64) -> Text<320> {
    let mut names = Text::<320>::new();
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
        // Text cuts what does not fit.
        names.add(format_args!("XSAVE states 0x{}", Hex(states)));
    }
    names
}

fn separate(names: &mut Text<320>) {
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
        for (word, mask) in MASKS.iter().enumerate() {
            for bit in 0..32 {
                let mut saved = Cpu::new_zeroed();
                saved.words.iter_mut().skip(word).take(1).for_each(|word| *word = (1u32 << bit).into());
                let named = !lacking(&saved, &[0; 8], 0).as_bytes().is_empty();
                assert_eq!(named, mask & (1 << bit) != 0, "word {word}, bit {bit}");
                assert_eq!(named, lacks(&saved, &[0; 8], 0), "word {word}, bit {bit}");
                assert!(!lacks(&saved, &saved.words.map(u32::from), 0));
            }
        }
    }
}
