//! Programs of filters, run as the kernel runs them.

use image_format::record::seccomp::Instruction;

/// Runs a program (classic BPF, as seccomp allows it). `None`: it is none.
pub(super) fn run(program: &[Instruction], data: &[u32; 16]) -> Option<u32> {
    let (mut a, mut x, mut words, mut pc) = (0u32, 0u32, [0u32; 16], 0usize);
    // Jumps lead forward only.
    while let Some(one) = program.get(pc) {
        let (code, k) = (one.code.get(), one.k.get());
        let word = k as usize;
        let operand = if code & 8 == 0 { k } else { x };
        let mut skip = 0;
        match code {
            0x00 => a = k,
            0x01 => x = k,
            0x20 => a = *data.get(word / 4)?,
            0x80 => a = 64,
            0x81 => x = 64,
            0x60 => a = *words.get(word)?,
            0x61 => x = *words.get(word)?,
            0x02 => *words.get_mut(word)? = a,
            0x03 => *words.get_mut(word)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x84 => a = a.wrapping_neg(),
            0x05 => skip = word,
            _ if code & 7 == 4 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    // Which ends the program, with 0.
                    0x30 => match a.checked_div(operand) {
                        Some(quotient) => quotient,
                        None => return Some(0),
                    },
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.wrapping_shl(operand),
                    0x70 => a.wrapping_shr(operand),
                    0xa0 => a ^ operand,
                    _ => return None,
                }
            }
            _ if code & 7 == 5 => {
                let holds = match code & 0xf0 {
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    _ => return None,
                };
                skip = usize::from(if holds { one.jt } else { one.jf });
            }
            _ => return None,
        }
        pc += 1 + skip;
    }
    None
}
