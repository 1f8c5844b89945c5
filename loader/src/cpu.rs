//! Whether this CPU has what the program may use: the libc has chosen its routines, JITs their instructions.

use core::fmt::Write;

use image_format::record::header::Cpu;
use sys::text::Text;

/// Instruction sets that programs choose by: index of the CPUID word in [`Cpu::words`], bit, name.
const FEATURES: [(usize, u32, &str); 50] = [
    (0, 0, "SSE3"),
    (0, 1, "PCLMULQDQ"),
    (0, 9, "SSSE3"),
    (0, 12, "FMA"),
    (0, 13, "CMPXCHG16B"),
    (0, 19, "SSE4.1"),
    (0, 20, "SSE4.2"),
    (0, 22, "MOVBE"),
    (0, 23, "POPCNT"),
    (0, 25, "AES"),
    (0, 26, "XSAVE"),
    (0, 28, "AVX"),
    (0, 29, "F16C"),
    (0, 30, "RDRAND"),
    (2, 0, "FSGSBASE"),
    (2, 3, "BMI1"),
    (2, 4, "HLE"),
    (2, 5, "AVX2"),
    (2, 8, "BMI2"),
    (2, 9, "ERMS"),
    (2, 11, "RTM"),
    (2, 16, "AVX512F"),
    (2, 17, "AVX512DQ"),
    (2, 18, "RDSEED"),
    (2, 19, "ADX"),
    (2, 21, "AVX512_IFMA"),
    (2, 23, "CLFLUSHOPT"),
    (2, 24, "CLWB"),
    (2, 28, "AVX512CD"),
    (2, 29, "SHA"),
    (2, 30, "AVX512BW"),
    (2, 31, "AVX512VL"),
    (3, 1, "AVX512_VBMI"),
    (3, 3, "PKU"),
    (3, 6, "AVX512_VBMI2"),
    (3, 8, "GFNI"),
    (3, 9, "VAES"),
    (3, 10, "VPCLMULQDQ"),
    (3, 11, "AVX512_VNNI"),
    (3, 12, "AVX512_BITALG"),
    (3, 14, "AVX512_VPOPCNTDQ"),
    (3, 22, "RDPID"),
    (3, 27, "MOVDIRI"),
    (4, 4, "FSRM"),
    (4, 23, "AVX512_FP16"),
    (5, 4, "AVX_VNNI"),
    (5, 5, "AVX512_BF16"),
    (6, 1, "XSAVEC"),
    (7, 0, "LAHF"),
    (7, 5, "LZCNT"),
];

/// The names of what `saved` has and `here` lacks; `None` when nothing is lacking.
#[must_use]
pub fn lacking(saved: &Cpu, here: &Cpu) -> Option<Text<320>> {
    let mut names = Text::<320>::new();
    for (word, bit, name) in FEATURES {
        let (Some(then), Some(now)) = (saved.words.get(word), here.words.get(word)) else { continue };
        if then.get() & !now.get() & (1 << bit) != 0 {
            // Text cuts what does not fit.
            let _ = write!(names, "{}{name}", if names.as_bytes().is_empty() { "" } else { ", " });
        }
    }
    let states = saved.xcr0.get() & !here.xcr0.get();
    if states != 0 {
        let _ = write!(names, "{}XSAVE states {states:#x}", if names.as_bytes().is_empty() { "" } else { ", " });
    }
    (!names.as_bytes().is_empty()).then_some(names)
}
