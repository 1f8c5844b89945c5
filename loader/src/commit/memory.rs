//! The address space: the old mappings go, the program's come, their contents are read.
//!
//! Legal here: the region (this code, its stack, the plan); nothing else of the stub exists once [`clear`] has run,
//! and what is mapped from then on is the program's.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use image_format::record::deadline::Deadline;
use image_format::record::frame::SignalFrame;
use image_format::record::guard::Guard;
use image_format::record::memory::{NO_BACKING, Vma, VmaFlags, VmaKind};
use image_format::seal;
use image_format::{Checked, Segment, USER_END};
use sys::Errno;
use sys::abi::mm::{MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use sys::abi::{CLOCK_MONOTONIC, Timespec};
use sys::arch::DETOUR;
use sys::fs::Fd;

use super::{Stage, die};
use crate::prepare::deadline::is_movable;
use crate::prepare::{Plan, Special, WORKER_STACK, WORKERS_MAX, inherited};

/// Bytes below which one thread is faster than several.
const ALONE: u64 = 8 << 20;

/// Parks the kernel's mappings in the region and unmaps all else but what is filled already.
pub fn clear(plan: &Plan, image: &Checked<'_>) {
    let mut at = plan.parking;
    for Special { now, len, .. } in plan.vdso.specials.iter().filter(|s| s.len != 0) {
        // SAFETY: nothing runs in the vdso here; the parking place is part of the region and unused.
        if let Err(e) = unsafe { sys::memory::move_to(*now as usize, *len as usize, at as usize) } {
            die(Stage::MovingVdsoAside, e);
        }
        at += len;
    }
    if vmas(image).iter().any(is_ring) {
        // The kernel maps these wherever there is a hole: there is one for each.
        each_gap(plan, image, true);
        map(plan, image, true);
    }
    each_gap(plan, image, false);
}

/// Unmaps all that lies between the region and what is filled, or a part of an io_uring instance, already; or, for those, maps something there.
fn each_gap(plan: &Plan, image: &Checked<'_>, occupy: bool) {
    let mut from = 0;
    let mut up_to = |to: u64, next: u64| {
        if occupy {
            // Nor does it look for holes below.
            from = from.max(1 << 32);
        }
        let (at, len) = (from as usize, to.saturating_sub(from) as usize);
        let how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        // SAFETY: all that is used from here on lies in the region, or is the program's.
        let done = unsafe {
            match occupy {
                _ if len == 0 => Ok(()),
                true => sys::memory::map(at, len, 0, how, -1, 0).map(drop),
                false => sys::memory::unmap(at, len),
            }
        };
        if let Err(e) = done {
            die(Stage::UnmappingStub, e);
        }
        from = next;
    };
    let region = (plan.start, plan.start + plan.len);
    let mut before = true;
    let stays = |vma: &&Vma| plan.tree.filled_by(vma).is_some() || !occupy && is_ring(vma);
    for vma in vmas(image).iter().filter(stays) {
        if before && vma.start.get() > region.0 {
            up_to(region.0, region.1);
            before = false;
        }
        up_to(vma.start.get(), vma.end.get());
    }
    if before {
        up_to(region.0, region.1);
    }
    up_to(USER_END, 0);
}

fn is_ring(vma: &Vma) -> bool {
    vma.flags.get() & VmaFlags::RING.bits() != 0
}

fn vmas<'i>(image: &Checked<'i>) -> &'i [Vma] {
    image.table()
}

/// Whether a mapping comes from the kernel, and not from the image.
fn is_kernels(plan: &Plan, vma: &Vma) -> bool {
    !plan.vdso.is_foreign && matches!(VmaKind::from_number(vma.kind.get()), Some(VmaKind::Vdso | VmaKind::Vvar))
}

/// The open original of a mapping's file, when it is used.
fn original(plan: &Plan, vma: &Vma) -> Option<Fd> {
    if vma.backing.get() == NO_BACKING {
        return None;
    }
    plan.backings.get(vma.backing.get() as usize).copied().filter(|fd| *fd >= 0 || *fd < -1)
}

/// Maps everything at its place, empty or from its file, with its advice; `rings`: all that is io_uring's, or all else.
#[inline(never)] // So that it exists once.
pub fn map(plan: &Plan, image: &Checked<'_>, rings: bool) {
    for vma in vmas(image).iter().filter(|v| !is_kernels(plan, v) && is_ring(v) == rings) {
        if let Some(by) = plan.tree.filled_by(vma) {
            if by != image.header().pid.get() {
                let seal = (plan.seal, image.image().seal_span().0);
                inherited::load(image, vma, (plan.input, plan.base), seal, true);
            }
            continue;
        }
        let file = original(plan, vma);
        // SAFETY: the range is the program's.
        let made = unsafe {
            match file.filter(|fd| *fd < -1) {
                Some(slot) => state::sysv::restore(vma, slot),
                None => state::memory::restore(vma, file),
            }
        };
        if let Err(e) = made {
            die(Stage::MappingMemory, e);
        }
    }
}

/// Walks segments together with their mappings; both ascend.
fn each_loaded(plan: &Plan, image: &Checked<'_>, f: &mut dyn FnMut(usize, Segment, &Vma)) {
    let mut rest = vmas(image).iter().peekable();
    for (index, segment) in image.segments().enumerate() {
        while rest.next_if(|v| v.end.get() <= segment.addr).is_some() {}
        let Some(vma) = rest.peek() else { return };
        let in_place = segment.file_bytes && original(plan, vma).is_some();
        if !in_place && !is_kernels(plan, vma) && plan.tree.filled_by(vma).is_none() {
            f(index, segment, vma);
        }
    }
}

/// What the loading threads share.
struct Job<'a> {
    plan: &'a Plan,
    image: &'a Checked<'a>,
    /// The next segment to be looked at.
    next: AtomicUsize,
    sums: &'a [zerocopy::little_endian::U64],
}

/// Reads the contents of all segments that are not the mapped file's own, with as many threads as there are cores.
pub fn load(plan: &Plan, image: &Checked<'_>) {
    let Ok((_, sums)) = seal::read(plan.seal, image.image().seal_span().0) else {
        die(Stage::ReadingSeal, Errno::EINVAL)
    };
    let mut total = 0;
    let mut opened = 0;
    each_loaded(plan, image, &mut |_, segment, vma| {
        total += segment.len;
        if vma.prot.get() & PROT_WRITE == 0 {
            let (start, end) = (vma.start.get(), vma.end.get());
            // The whole mapping at once, so that it stays one; a reservation that is larger than the kernel lets be
            // writable, piece by piece.
            if start != opened && !open_for_loading(start, end - start) {
                if !open_for_loading(segment.addr, segment.len) {
                    die(Stage::OpeningMemory, Errno::ENOMEM);
                }
                return;
            }
            opened = start;
        }
    });
    let job = Job { plan, image, next: AtomicUsize::new(0), sums };
    let helpers = if total < ALONE { 0 } else { (sys::thread::cpus() as u64 - 1).min(WORKERS_MAX) };
    let alive: [AtomicU32; WORKERS_MAX as usize] = [const { AtomicU32::new(0) }; WORKERS_MAX as usize];
    for (i, word) in alive.iter().enumerate().take(helpers as usize) {
        word.store(1, Ordering::Release);
        let top = plan.worker_stacks + (i as u64 + 1) * WORKER_STACK;
        let arg = (&raw const job).cast_mut().cast();
        // SAFETY: the stack is this worker's own; `job` and `alive` outlive it, see the loop below.
        if unsafe { sys::thread::spawn(top as usize, word.as_ptr(), work, arg) }.is_err() {
            // One thread fewer: the others do its part.
            word.store(0, Ordering::Release);
        }
    }
    load_some(&job);
    for word in &alive {
        sys::thread::wait_while(word, 1);
    }
}

fn open_for_loading(start: u64, len: u64) -> bool {
    // SAFETY: the program's memory, not in use yet.
    unsafe { sys::memory::protect(start as usize, len as usize, PROT_READ | PROT_WRITE) }.is_ok()
}

unsafe extern "C" fn work(job: *mut u8) -> ! {
    // SAFETY: `load` passes its own job and waits for this thread's end.
    load_some(unsafe { &*job.cast::<Job<'_>>() });
    sys::thread::exit()
}

fn load_some(job: &Job<'_>) {
    let mut wanted = job.next.fetch_add(1, Ordering::Relaxed);
    each_loaded(job.plan, job.image, &mut |index, segment, _| {
        if index < wanted {
            return;
        }
        // Segments that are not loaded are no one's: whoever comes past takes the next that is.
        while wanted < index {
            wanted = job.next.fetch_add(1, Ordering::Relaxed);
        }
        if index == wanted {
            inherited::read((job.plan.input, job.plan.base), &segment, job.sums.get(index));
            wanted = job.next.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Signal handlers that are running return by frames that this CPU's kernel takes.
pub fn mend_frames(plan: &Plan, image: &Checked<'_>) {
    for one in image.each::<SignalFrame>() {
        // SAFETY: checked to lie in the program's own writable memory, which is complete and not in use yet.
        let area =
            unsafe { core::slice::from_raw_parts_mut(one.at.get() as usize as *mut u8, one.len.get() as usize + 4) };
        let _ = state::frame::convert(area, one.present.get(), &plan.xstate.as_xstate());
    }
}

/// Moves the moments that threads wait for, where the clocks have begun anew.
pub fn mend_deadlines(plan: &Plan, image: &Checked<'_>) {
    let header = image.header();
    for one in image.each::<Deadline>().filter(|one| plan.is_another_boot && is_movable(image, one)) {
        let clock = one.clock.get() as usize;
        let then = if clock == CLOCK_MONOTONIC { header.monotonic_nsec } else { header.boottime_nsec }.get() as i64;
        let time = one.at.get() as usize as *mut Timespec;
        // SAFETY: aligned, in the program's own writable memory, which is complete and not in use yet.
        unsafe { *time = (*time).later((sys::time::nanoseconds(clock) as i64).wrapping_sub(then)) };
    }
}

/// Gives all mappings their final protection and locks, and the kernel's their places.
pub fn seal_off(plan: &Plan, image: &Checked<'_>) {
    for detour in plan.vdso.detours.iter().filter(|d| d.at != 0) {
        let to = (detour.to != 0).then(|| plan.parking + detour.to);
        let code = sys::arch::detour(to, detour.number);
        // SAFETY: inside the old vdso, which was just filled and is writable still.
        unsafe { (detour.at as usize as *mut [u8; DETOUR]).write_unaligned(code) };
    }
    let mut last = 0;
    each_loaded(plan, image, &mut |_, _, vma| {
        let (start, end) = (vma.start.get(), vma.end.get());
        if vma.prot.get() & PROT_WRITE == 0 && start != last {
            last = start;
            // SAFETY: the program's memory, not in use yet.
            if let Err(e) = unsafe { sys::memory::protect(start as usize, (end - start) as usize, vma.prot.get()) } {
                die(Stage::ProtectingMemory, e);
            }
        }
    });
    // Before memory is locked, which the kernel wants without.
    for guard in image.each::<Guard>() {
        if let Err(e) = state::guard::restore(guard) {
            die(Stage::InstallingGuardRegions, e);
        }
    }
    for vma in vmas(image).iter().filter(|v| !is_kernels(plan, v)) {
        if let Err(e) = state::memory::finish(vma) {
            die(Stage::ProtectingOrLockingMemory, e);
        }
    }
    state::pkey::finish(image);
    let mut at = plan.parking;
    for Special { len, then, .. } in plan.vdso.specials.iter().filter(|s| s.len != 0) {
        // SAFETY: the place is free: the program had the same mapping there.
        let moved = || unsafe { sys::memory::move_to(at as usize, *len as usize, *then as usize) };
        if *then != 0
            && let Err(e) = moved()
        {
            die(Stage::MovingVdso, e);
        }
        at += len;
    }
}
