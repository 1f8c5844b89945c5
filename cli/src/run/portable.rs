//! `ckpt run --portable`: a program keeps to what a lesser CPU has, too, as far as it can be told by its environment.
//!
//! Libraries look at the CPU once, at their start, and choose routines by what they find; most can be told not to. Must only
//! name what every version of a library takes without a word. docs/limits.md says what cannot be told.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// What is beyond x86-64-v3 in glibc's names; XSAVEC is, too, and not everywhere.
const GLIBC: &str = "glibc.cpu.hwcaps=-XSAVEC,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-AVX512ER,-AVX512PF,\
                     -AVX512_VBMI,-RTM,-HLE";

/// For each variable what is added to it, behind what separates it from what it holds already.
const ADDED: [(&str, &str, &str); 2] = [("GLIBC_TUNABLES", ":", GLIBC), ("GODEBUG", ",", "cpu.all=off")];

/// For each variable its value, unless it has one: whoever sets it knows better.
const SET: [(&str, &str); 4] = [
    // Words of CPUID, ECX above EBX of leaf 7: AVX-512 of all kinds, ADX, SHA, GFNI, VAES, VPCLMULQDQ.
    ("OPENSSL_ia32cap", ":~0x00005f42fc2b0000"),
    ("NPY_DISABLE_CPU_FEATURES", "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"),
    ("OPENBLAS_CORETYPE", "Haswell"),
    ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
];

/// Adds all of it, and the mark by which a save knows.
pub fn prepare(command: &mut Command) {
    for (name, between, value) in ADDED {
        let held = std::env::var_os(name).filter(|held| !held.is_empty());
        command.env(name, joined(held.as_deref(), between, value));
    }
    for (name, value) in SET {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    if let Some((name, value)) = ckpt::cpu::MARK.split_once('=') {
        command.env(name, value);
    }
}

fn joined(held: Option<&OsStr>, between: &str, value: &str) -> OsString {
    let mut all = held.map_or_else(OsString::new, |held| {
        let mut held = held.to_owned();
        held.push(between);
        held
    });
    all.push(value);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        assert_eq!(joined(None, ":", "b"), "b");
        assert_eq!(joined(Some(OsStr::new("a")), ":", "b"), "a:b");
    }
}
