//! Mappings made again: each at its place, then with what it has besides contents.

use image_format::record::header::Features;
use image_format::record::memory::{Vma, VmaFlags, VmaKind};
use image_format::{Checked, ExitCode};
use sys::abi::mm::{
    MADV_DONTDUMP, MADV_DONTFORK, MADV_HUGEPAGE, MADV_MERGEABLE, MADV_NOHUGEPAGE, MADV_RANDOM, MADV_SEQUENTIAL,
    MADV_WIPEONFORK, MAP_ABOVE4G, MAP_ANONYMOUS, MAP_DROPPABLE, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE,
    MAP_PRIVATE, MAP_SHARED,
};

use crate::restart;

/// Maps one mapping at its place, from `file` when there is one, as empty anonymous memory else, with its advice: contents that come
/// later must find it, as huge pages have no holes. Advice that the kernel no longer offers is a matter of speed and left out silently.
///
/// # Errors
/// The kernel's; EEXIST when something is in the way.
///
/// # Safety
/// Nothing that Rust uses lies there (the kernel refuses to replace, but the range becomes the program's).
pub unsafe fn restore(vma: &Vma, file: Option<i32>) -> sys::Result<()> {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let along = file.is_some() && flags.contains(VmaFlags::READ_ALONG);
    let shared = along || vma.kind.get() == VmaKind::FileShared as u32;
    let mut how = MAP_FIXED_NOREPLACE | if shared { MAP_SHARED } else { MAP_PRIVATE };
    if flags.contains(VmaFlags::NO_RESERVE) {
        how |= MAP_NORESERVE;
    }
    let (fd, offset) = match file {
        Some(fd) => (fd, vma.offset.get()),
        None => {
            how |= MAP_ANONYMOUS;
            (-1, 0)
        }
    };
    if flags.contains(VmaFlags::GROWS_DOWN) && file.is_none() {
        how |= MAP_GROWSDOWN;
    }
    let start = vma.start.get() as usize;
    let len = (vma.end.get() - vma.start.get()) as usize;
    let (mut first, mut hint, mut second) = (how, start, how);
    if flags.contains(VmaFlags::DROPPABLE) && file.is_none() {
        // A kernel before Linux 6.11 gives memory that it does not drop.
        first = how & !MAP_PRIVATE | MAP_DROPPABLE;
    }
    if flags.contains(VmaFlags::RING) {
        // SAFETY: the caller vouches for the range, in which nothing is of use.
        unsafe { sys::memory::unmap(start, len) }?;
        // Since Linux 6.4 the kernel takes no address for such memory; since Linux 6.6 it can be told to leave holes below 4 GiB.
        (hint, second) = (0, MAP_SHARED | MAP_ABOVE4G);
    }
    // SAFETY: the caller vouches for the range.
    let map = |at, how| unsafe { sys::memory::map(at, len, vma.prot.get(), how, fd, offset) };
    let at = map(start, first).or_else(|_| map(hint, second))?;
    // Kernels before 4.17 do not know MAP_FIXED_NOREPLACE and take the address for a hint.
    if at != start {
        return Err(sys::Errno::EEXIST);
    }
    advise(vma);
    Ok(())
}

/// Gives a mapping its advice.
#[inline(always)] // The smaller stub has one caller.
pub fn advise(vma: &Vma) {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let (start, len) = (vma.start.get() as usize, (vma.end.get() - vma.start.get()) as usize);
    for (flag, advice) in &ADVICE {
        if flags.contains(*flag) {
            // SAFETY: this advice keeps all contents.
            let _ = unsafe { sys::memory::advise(start, len, usize::from(*advice)) };
        }
    }
}

/// Advice by the flag that tells of it.
const ADVICE: [(VmaFlags, u8); 8] = [
    (VmaFlags::DONT_FORK, MADV_DONTFORK as u8),
    (VmaFlags::DONT_DUMP, MADV_DONTDUMP as u8),
    (VmaFlags::WIPE_ON_FORK, MADV_WIPEONFORK as u8),
    (VmaFlags::HUGE_PAGE, MADV_HUGEPAGE as u8),
    (VmaFlags::NO_HUGE_PAGE, MADV_NOHUGEPAGE as u8),
    (VmaFlags::SEQUENTIAL, MADV_SEQUENTIAL as u8),
    (VmaFlags::RANDOM, MADV_RANDOM as u8),
    (VmaFlags::MERGEABLE, MADV_MERGEABLE as u8),
];

/// Gives a mapping its protection key, locks one that was locked, and seals one that was sealed, when its contents are in place.
///
/// # Errors
/// pkey_mprotect(2)'s, mlock2(2)'s, mseal(2)'s.
pub fn finish(vma: &Vma) -> sys::Result<()> {
    let flags = VmaFlags::from_bits_truncate(vma.flags.get());
    let start = vma.start.get() as usize;
    let len = (vma.end.get() - vma.start.get()) as usize;
    if vma.key.get() != 0 {
        // SAFETY: the program's memory, not in use yet.
        unsafe { sys::memory::protect_by_key(start, len, vma.prot.get(), vma.key.get()) }?;
    }
    if flags.contains(VmaFlags::LOCKED) {
        sys::memory::lock_on_fault(start, len)?;
        if !flags.contains(VmaFlags::ON_FAULT) {
            // Pages that cannot be had (guards, PROT_NONE, behind the end of a file) do not keep the others from being locked.
            // A limit does, and was told by the call that asks for none of them.
            let _ = sys::memory::lock(start, len);
        }
    }
    if flags.contains(VmaFlags::SEALED) { sys::memory::seal(start, len) } else { Ok(()) }
}

/// Whether this kernel can seal memory, if the image has some that is sealed.
///
/// # Errors
/// It is older than Linux 6.10.
pub fn check(image: &Checked<'_>) -> restart::Result<()> {
    if image.header().required.get() & Features::SEALED.bits() == 0 {
        return Ok(());
    }
    sys::memory::seal(0, 0).map_err(|e| {
        let what = "sealed memory: is not known to this kernel (!): use Linux 6.10 or newer";
        restart::Error::about(ExitCode::Kernel, what, 0u32, b"", e)
    })
}
