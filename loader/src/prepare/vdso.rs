//! The kernel's own code and data in the process (vdso, vvar). Where this kernel's are those of the image, they are moved to
//! their old place. Another kernel's stay as memory, with a detour at each entry, and this kernel's get a place of their own.
//!
//! Must never map the data of this kernel where old code would read it: only what belongs together is put together.

use image_format::record::memory::{Vma, VmaKind};
use image_format::{Checked, ExitCode, PAGE, seal};
use loader::vdso::{calls, entries};
use state::restart::{Error, Result};
use sys::arch::ENTRIES;

use super::Input;
use super::input::{self, memory};
use super::kernel::{Own, own_mappings};

/// Most mappings of the kernel that can be moved.
const SPECIALS: usize = 8;

/// The longest vdso that is looked into, bytes.
const LONGEST: u64 = 64 << 10;

/// A mapping of the kernel's (`[vvar]`, `[vdso]`) and where the program has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Special {
    /// Where it is now.
    pub now: u64,
    /// Bytes; 0 when there is none.
    pub len: u64,
    /// Where the program expects it; 0: nowhere.
    pub then: u64,
}

/// What is put at an old entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detour {
    /// Where; 0 when there is none.
    pub at: u64,
    /// Offset of the new entry from the place where this kernel's mappings wait; 0 when there is none.
    pub to: u64,
    /// The system call that does the same.
    pub number: u32,
}

/// What becomes of the kernel's mappings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vdso {
    /// The running kernel's.
    pub specials: [Special; SPECIALS],
    /// Those of the image are another kernel's, and become memory like any other.
    pub is_foreign: bool,
    /// What leads from there to here.
    pub detours: [Detour; ENTRIES],
}

/// Pairs the running kernel's mappings with those of the image.
///
/// # Errors
/// Another kernel's, in which no entry is found.
pub fn plan(image: &Checked<'_>, input: &Input) -> Result<Vdso> {
    let is_special = |v: &&Vma| matches!(VmaKind::from_number(v.kind.get()), Some(VmaKind::Vdso | VmaKind::Vvar));
    let then = image.table::<Vma>().iter().filter(is_special);
    let owns = own_mappings()?;
    let mut vdso = Vdso::default();
    // Who has unmapped the code (valgrind) has nothing that reads the data.
    let is_code = |v: &Vma| v.kind.get() == VmaKind::Vdso as u32;
    if !then.clone().any(is_code) || same(image, then.clone(), owns, &mut vdso.specials) {
        return Ok(vdso);
    }
    bridge(image, then, input, owns, &mut vdso).ok_or_else(|| {
        let release = &image.header().release;
        let release = release.split(|byte| *byte == 0).next().unwrap_or_default();
        let what =
            "vdso of kernel @: is not this kernel's, and has no entries to lead to it: restart it on the old kernel";
        Error::about(ExitCode::Kernel, what, 0u32, release, None)
    })?;
    Ok(vdso)
}

/// Whether those of the image are the running kernel's, at other addresses.
fn same<'v>(
    image: &Checked<'_>,
    then: impl Iterator<Item = &'v Vma> + Clone,
    owns: &[Own],
    pairs: &mut [Special; SPECIALS],
) -> bool {
    let now = owns.iter().filter(|m| m.special);
    if then.clone().count() != now.clone().count() {
        return false;
    }
    let mut distance = None;
    // More than fit are not the same.
    let mut pairs = pairs.iter_mut();
    for (vma, own) in then.zip(now) {
        let (start, len) = (vma.start.get(), own.end - own.start);
        // Every one as far from its old place as the first.
        let same_place = *distance.get_or_insert(start.wrapping_sub(own.start)) == start.wrapping_sub(own.start);
        let is_code = vma.kind.get() == VmaKind::Vdso as u32;
        let other = is_code && seal::sum(bytes(own.start, len)) != image.header().vdso_sum.get();
        let Some(pair) = pairs.next().filter(|_| vma.end.get() - start == len && same_place && !other) else {
            return false;
        };
        *pair = Special { now: own.start, len, then: start };
    }
    true
}

/// Patches the entries of the image's to jump to the running kernel's; `None`: not possible.
fn bridge<'v>(
    image: &Checked<'_>,
    mut then: impl Iterator<Item = &'v Vma>,
    input: &Input,
    owns: &[Own],
    vdso: &mut Vdso,
) -> Option<()> {
    vdso.is_foreign = true;
    // The running kernel's keep their distances when they are put side by side.
    let (mut len, mut behind) = (0, 0);
    let mut slots = vdso.specials.iter_mut();
    for own in owns.iter().filter(|m| m.special) {
        let size = own.end - own.start;
        if len != 0 && own.start != behind {
            return None;
        }
        // The code is the one of them that is an ELF file; data begins with a counter.
        let code = bytes(own.start, if own.code { size } else { 0 });
        for (detour, entry) in vdso.detours.iter_mut().zip(&entries(code)) {
            if *entry != 0 {
                detour.to = len + u64::from(*entry);
            }
        }
        *slots.next()? = Special { now: own.start, len: size, then: 0 };
        (len, behind) = (len + size, own.end);
    }
    let code = then.find(|vma| vma.kind.get() == VmaKind::Vdso as u32)?;
    let (start, size) = (code.start.get(), code.end.get() - code.start.get());
    let segment = image.segments().find(|segment| segment.addr == start && segment.len == size && size <= LONGEST)?;
    let old = memory(segment.len).ok()?;
    input::pread(input.file, old, segment.place(input.base)).ok()?;
    let old = entries(old);
    // Without any, the program's calls would end nowhere.
    old.iter().find(|entry| **entry != 0)?;
    let mut calls = calls();
    for (detour, at) in vdso.detours.iter_mut().zip(&old) {
        detour.at = if *at == 0 { 0 } else { start + u64::from(*at) };
        detour.number = calls.next()?;
    }
    Some(())
}

/// The bytes of one of this process's own mappings of the kernel's code.
fn bytes<'m>(start: u64, len: u64) -> &'m [u8] {
    debug_assert!(start.is_multiple_of(PAGE));
    // SAFETY: the kernel's code, readable, mapped for as long as this process does not move it.
    unsafe { core::slice::from_raw_parts(start as usize as *const u8, len as usize) }
}
