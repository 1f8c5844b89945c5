//! Memory protection keys: those that are allocated. Which memory has them is told by `memory`; what each thread may do with
//! that memory (PKRU) is a part of its extended state.

use image_format::record::header::Features;
use image_format::record::memory::{Vma, VmaKind};
use image_format::record::pkey::{KEY_MAX, Pkey};
use image_format::{Checked, ExitCode, PAGE};
use sys::abi::mm::PROT_EXEC;
use sys::{Errno, Sysno};
use zerocopy::little_endian::{U32, U64};

use crate::inside::{Arg, Question};
use crate::{Result, Save, Target, restart};

/// Asks for each key whether it is allocated: the kernel looks at that first, and only then for the memory: there is none at the end of
/// the kernel's half.
pub const QUESTIONS: [Question; KEY_MAX as usize] = {
    const fn question(key: usize) -> Question {
        let (nowhere, len, zero) = (Arg::Value(usize::MAX << 13), Arg::Value(PAGE as usize), Arg::Value(0));
        // SAFETY: there is no memory at that address.
        unsafe { Question::of(Sysno::pkey_mprotect, [nowhere, len, zero, Arg::Value(key), zero, zero], 0) }
    }
    let mut questions = [question(1); KEY_MAX as usize];
    let mut key = 0;
    let mut rest: &mut [Question] = &mut questions;
    while let [one, others @ ..] = rest {
        key += 1;
        *one = question(key);
        rest = others;
    }
    questions
};

/// Which keys are allocated.
pub fn find(target: &mut impl Target) -> Pkey {
    let mut keys = 0;
    for (key, question) in (1..).zip(&QUESTIONS) {
        if question.ask::<0>(target) == Err(Errno::ENOMEM) {
            keys |= 1 << key;
        }
    }
    Pkey { keys: keys.into(), ..ANY }
}

/// As if all were.
pub const ANY: Pkey = Pkey { keys: U32::from_bytes([0xff; 4]), execute_only: U32::ZERO, reserved: U64::ZERO };

/// Notes the key of a mapping; or says why it cannot be carried.
pub(crate) fn note(keys: &mut Pkey, vma: &mut Vma, key: u32) -> Result<(), &'static str> {
    let kernels = matches!(VmaKind::from_number(vma.kind.get()), Some(VmaKind::Vdso | VmaKind::Vvar));
    if keys.keys.get() >> (key & 31) & 1 != 0 && !kernels {
        vma.key = key.into();
    } else if vma.prot.get() == PROT_EXEC && !kernels {
        keys.execute_only = key.into();
    } else {
        return Err("memory whose protection key is not allocated, or the kernel's");
    }
    Ok(())
}

/// Writes which keys are allocated, if there are any.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, keys: &Pkey) -> Result<Features> {
    if keys.keys.get() == 0 && keys.execute_only.get() <= 1 {
        return Ok(Features::empty());
    }
    save.notes.table(&[*keys])?;
    Ok(Features::PROTECTION_KEYS)
}

/// Allocates the image's keys. This thread may use all of them from now on, and so may those that it makes. Those below the one
/// for memory for execution alone stay taken up to [`finish`].
///
/// # Errors
/// The CPU or the kernel has not as many.
pub fn check(image: &Checked<'_>) -> restart::Result<()> {
    let Some(wanted) = image.each::<Pkey>().next() else { return Ok(()) };
    let mut missing = wanted.keys.get();
    let error = loop {
        match sys::memory::new_key() {
            Ok(key) => missing &= !(1 << (key & 31)),
            Err(e) => break e,
        }
    };
    free_others(wanted, wanted.execute_only.get().max(1));
    if missing == 0 {
        return Ok(());
    }
    let what = "protection keys: are not there (!): use a CPU and kernel that have them";
    Err(restart::Error::about(ExitCode::Cpu, what, 0u32, b"", error))
}

/// Frees the keys from this one on that the process has not allocated. The kernel's own is not concerned.
fn free_others(wanted: &Pkey, first: u32) {
    for key in first..=KEY_MAX {
        if wanted.keys.get() >> key & 1 == 0 {
            sys::memory::free_key(key);
        }
    }
}

/// All memory has its keys: the process has those that it had.
pub fn finish(image: &Checked<'_>) {
    if let Some(wanted) = image.each().next() {
        free_others(wanted, 1);
    }
}
