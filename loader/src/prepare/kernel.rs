//! What this kernel, this CPU and this user's limits must allow.

use crate::heap;
use image_format::record::frame::Frame;
use image_format::record::memory::{Vma, VmaKind};
use image_format::{Checked, ExitCode};
use loader::options::Options;
use state::{Error, Result};
use sys::abi::{AT_FDCWD, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_SIGPENDING, RLIMIT_STACK};
use sys::text::{Decimal, Hex, cut, decimal, hex, words};

/// Mappings that the kernel may make or keep besides the program's while both exist.
const SPARE_MAPPINGS: u64 = 16;

/// Most mappings of the kernel that can be moved.
pub const SPECIALS: usize = 8;

/// A mapping of the kernel's (`[vvar]`, `[vdso]`) and where the program has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Special {
    /// Where it is now.
    pub now: u64,
    /// Bytes; 0 when there is none.
    pub len: u64,
    /// Where the program expects it.
    pub then: u64,
}

/// A mapping of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether it is the kernel's.
    pub special: bool,
}

/// Mappings that this process may have: it has about a dozen.
const OWN_MAX: usize = 64;

/// CPU, number of mappings.
///
/// # Errors
/// What is lacking.
pub fn check(image: &Checked<'_>, options: &Options<'_>) -> Result<()> {
    let (features, xcr0, _) = sys::arch::cpu_features();
    if !options.any_cpu && loader::cpu::lacks(&image.header().cpu, &features, xcr0) {
        let why = "lacks what the program may use, which `ckpt restart` names";
        return Err(Error::refused(format_args!("CPU"), why, "--cpu ignore to try").code(ExitCode::Cpu));
    }
    let mut buffer = [0; 32];
    let limit = sys::fs::read_file_at(AT_FDCWD, c"/proc/sys/vm/max_map_count", &mut buffer).unwrap_or_default();
    let mappings = image.table::<Vma>().len() as u64;
    if let Some(limit) = words(limit).next().and_then(decimal)
        && mappings + SPARE_MAPPINGS > limit
    {
        let object = format_args!("{} mappings", Decimal(mappings));
        let why = "are more than vm.max_map_count allows here";
        return Err(Error::refused(object, why, "sysctl -w vm.max_map_count=…").code(ExitCode::Kernel));
    }
    Ok(())
}

/// Which components of the extended state full frames can be given back, and how many bytes of their areas these take:
/// all, where this CPU lays them out as the saving one did.
///
/// # Errors
/// A thread used components that this CPU keeps elsewhere in the area.
pub fn xstate(image: &Checked<'_>, options: &Options<'_>) -> Result<(u64, u32)> {
    /// x87, SSE and AVX, whose places are architecture, and bytes to their end.
    const FIXED: (u64, u32) = (0b111, 832);
    /// Protection keys, which memory in an image does not have; AMX, which no image has.
    const UNUSED: u64 = 0b111 << 17 | 1 << 9;
    let (_, xcr0, _) = sys::arch::cpu_features();
    let saved = image.header().cpu.xcr0.get();
    let here = sys::arch::xsave_core_size(saved);
    let mut used = 0;
    let mut same = saved & !xcr0 & !UNUSED == 0;
    for frame in image.each::<Frame>() {
        let present = image.xstate(frame).get(512..).and_then(|header| header.first_chunk());
        used |= present.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        same &= [0, here].contains(&(frame.xstate_len.get() as usize));
    }
    if same {
        return Ok((xcr0 & !(0b11 << 17), u32::MAX));
    }
    if used & !FIXED.0 & !UNUSED == 0 || options.any_cpu {
        return Ok(FIXED);
    }
    let object = format_args!("XSAVE area of components 0x{}", Hex(used));
    let why = "is laid out differently by this CPU";
    Err(Error::refused(object, why, "restart it on the same kind of CPU").code(ExitCode::Cpu))
}

/// Mappings of this process.
///
/// # Errors
/// `/proc` is not there.
#[inline(never)] // For its buffer.
pub fn own_mappings() -> Result<&'static [Own]> {
    let failed = |e| {
        Error::failed(format_args!("/proc/self/maps"), "cannot be read", e).code(ExitCode::Kernel).remedy("mount /proc")
    };
    let mut buffer = [0; OWN_MAX * 128];
    let text = sys::fs::read_file_at(AT_FDCWD, c"/proc/self/maps", &mut buffer).map_err(failed)?;
    if text.len() == OWN_MAX * 128 {
        return Err(failed(sys::Errno::E2BIG));
    }
    let list = heap::list(OWN_MAX, Own::default())?;
    let mut places = list.iter_mut();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = words(line);
        let Some((start, end)) = fields.next().and_then(|f| cut(f, b'-')) else { continue };
        let (Some(start), Some(end)) = (hex(start), hex(end)) else { continue };
        let name = fields.nth(4).unwrap_or_default();
        if end <= image_format::USER_END {
            *places.next().ok_or(sys::Errno::E2BIG).map_err(failed)? =
                Own { start, end, special: name.starts_with(b"[vvar") || name == b"[vdso]" };
        }
    }
    let unused = places.len();
    Ok(list.get(..OWN_MAX - unused).unwrap_or_default())
}

/// Pairs the kernel's mappings of here with those of the image: they must be of the same shape.
///
/// # Errors
/// Another kernel's vdso.
#[inline(never)]
pub fn match_vdso(image: &Checked<'_>) -> Result<[Special; SPECIALS]> {
    let is_special = |v: &&Vma| matches!(VmaKind::from_number(v.kind.get()), Some(VmaKind::Vdso | VmaKind::Vvar));
    let then = image.table::<Vma>().iter().filter(is_special);
    let owns = own_mappings()?;
    let now = owns.iter().filter(|m| m.special);
    let mut pairs = [Special::default(); SPECIALS];
    let count = then.clone().count();
    if count == 0 {
        return Ok(pairs);
    }
    let header = image.header();
    let differs = || {
        let end = header.release.iter().position(|b| *b == 0).unwrap_or(header.release.len());
        let release = header.release.get(..end).unwrap_or_default();
        let why = "is not that of this kernel, which cannot be bridged yet";
        let remedy = "restart it on the kernel that it was saved on";
        Err(Error::refused(format_args!("vdso of kernel {}", sys::text::Shown(release)), why, remedy)
            .code(ExitCode::Kernel))
    };
    if count != now.clone().count() || count > SPECIALS {
        return differs();
    }
    let mut distance = None;
    for ((vma, own), pair) in then.zip(now).zip(&mut pairs) {
        let (start, len) = (vma.start.get(), own.end - own.start);
        // Every one as far from its old place as the first.
        let same_place = *distance.get_or_insert(start.wrapping_sub(own.start)) == start.wrapping_sub(own.start);
        if vma.end.get() - start != len || !same_place {
            return differs();
        }
        if vma.kind.get() == VmaKind::Vdso as u32 {
            // SAFETY: the kernel's code, readable, mapped for as long as this process does not move it.
            let bytes = unsafe { core::slice::from_raw_parts(own.start as *const u8, len as usize) };
            if image_format::seal::sum(bytes) != header.vdso_sum.get() {
                return differs();
            }
        }
        *pair = Special { now: own.start, len, then: start };
    }
    Ok(pairs)
}

/// Raises the soft limits that the restart itself could meet before the program's own are set: it is built under the
/// hard ones.
pub fn raise_limits() {
    for resource in [RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING] {
        if let Ok(mut limit) = sys::process::rlimit(resource) {
            limit.soft = limit.hard;
            let _ = sys::process::set_rlimit(resource, &limit);
        }
    }
}
