//! The region that outlives the old mappings: found in a hole, filled with all that the commit needs.
//!
//! ```text
//! ┌──────────────────┬───────────────┬──────┬──────────────┬──────────┬──────┬──────────┬────────┬──────┬───────────┐
//! │ copy of the stub │ control stack │ Plan │ descriptors  │ workers' │ gate │ threads' │ prefix │ seal │ vdso      │
//! │ text…bss         │               │      │ and backings │ stacks   │      │ stacks   │        │      │ meanwhile │
//! └──────────────────┴───────────────┴──────┴──────────────┴──────────┴──────┴──────────┴────────┴──────┴───────────┘
//! ```

use image_format::record::memory::Vma;
use image_format::record::thread::Thread;
use image_format::{Checked, ExitCode, PAGE, USER_END, align_up};
use state::restart::{Error, Result};
use sys::abi::CLOCK_MONOTONIC;
use sys::abi::mm::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE};
use sys::fs::Fd;

use super::Input;
use super::files::Files;
use super::kernel::{Components, own_mappings};
use super::tree::{MEETING_LEN, Tree};
use super::vdso::Vdso;
use crate::commit::{gate, relocate};
use crate::launch::Launched;

/// Bytes of the stack on which the commit runs.
const STACK: u64 = 64 << 10;
/// Bytes of each thread's stack until it is on its own, without its frame.
const THREAD_STACK: u64 = 8 << 10;
/// Threads that load memory.
pub const WORKERS_MAX: u64 = 4;
/// Bytes of each of their stacks.
pub const WORKER_STACK: u64 = 32 << 10;

/// All that the commit needs; lies in the region itself, as everything that it points to.
#[derive(Debug)]
pub struct Plan {
    /// The region's first address.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// How far the stub's copy is from the original.
    pub delta: usize,
    /// End of the control stack.
    pub stack_top: u64,
    /// The image, in the region.
    pub prefix: &'static [u8],
    /// The seal, in the region.
    pub seal: &'static [u8],
    /// Length of the image.
    pub file_len: u64,
    /// Where it begins in the file.
    pub base: u64,
    /// This process's place in its tree.
    pub tree: Tree,
    /// The image file.
    pub input: Fd,
    /// A copy of standard error.
    pub error_fd: Fd,
    /// Who awaits the program: a higher number than that, or -1.
    pub ready: Fd,
    /// The executable, or -1.
    pub exe: Fd,
    /// For each backing its descriptor or -1.
    pub backings: &'static [Fd],
    /// For each of the program's descriptors what takes its place.
    pub descriptors: &'static [Fd],
    /// The files of contents that have no name.
    pub contents: &'static [Fd],
    /// Rights that this process has, and the program is not to have.
    pub drops_rights: bool,
    /// Start of the worker threads' stacks.
    pub worker_stacks: u64,
    /// Start of the program's threads' stacks.
    pub thread_stacks: u64,
    /// Bytes of each of them, with room for a full frame where there are frames.
    pub thread_stack: u64,
    /// What stays of the region when threads have full frames (`commit/gate.rs`).
    pub gate: u64,
    /// Its length: 0 without full frames.
    pub gate_len: u64,
    /// What becomes of the threads' extended states.
    pub xstate: Components,
    /// Whether clocks have begun anew since the save.
    pub is_another_boot: bool,
    /// The kernel's mappings.
    pub vdso: Vdso,
    /// Where they wait meanwhile; those that the program knows nothing of stay there.
    pub parking: u64,
}

struct Cursor(u64);

impl Cursor {
    fn take(&mut self, len: u64) -> u64 {
        let at = self.0;
        self.0 = at + align_up(len, PAGE);
        at
    }
}

/// Finds the hole, maps the region, fills it.
///
/// # Errors
/// No hole, no memory, too many descriptors.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn build(
    input: &Input,
    image: &Checked<'_>,
    files: Files,
    vdso: Vdso,
    xstate: Components,
    (launched, base): (&Launched, Fd),
    tree: Tree,
) -> Result<&'static mut Plan> {
    let threads = image.table::<Thread>().len() as u64;
    let stub = relocate::window();
    let numbers =
        (files.backings.len() + files.descriptors.len() + files.contents.len()) as u64 * size_of::<Fd>() as u64;
    let parked: u64 = vdso.specials.iter().map(|s| s.len).sum();
    let (gate_len, thread_stack) = (gate::len(image, xstate.len), THREAD_STACK + gate::room(image, xstate.len));
    // All places, counted from the region's start.
    let mut at = Cursor(0);
    let copy = at.take(stub.1);
    let stack_top = at.take(STACK) + STACK;
    let plan = at.take(PAGE);
    let numbers_at = at.take(numbers);
    let worker_stacks = at.take(WORKERS_MAX * WORKER_STACK);
    let gate = at.take(gate_len);
    let thread_stacks = at.take(threads * thread_stack);
    let prefix_at = at.take(input.prefix.len() as u64);
    let seal_at = at.take(input.seal.len() as u64);
    let parking = at.take(parked);
    let meeting = at.take(if tree.meeting() == 0 { 0 } else { MEETING_LEN });
    let len = at.0;

    let mine = own_mappings()?;
    let theirs = image.each::<Vma>().map(|v| (v.start.get(), v.end.get()));
    // A page on either side stays free: the kernel would make one mapping of the copy and executable memory of the program's beside it, and
    // whoever asks whether this process is being restarted looks where mappings begin (state::process::restarting).
    let mine = mine.iter().map(|m| (m.start, m.end));
    let hole = loader::hole::find(mine, theirs, len + 2 * PAGE, USER_END).map(|start| start + PAGE);
    let no_room =
        |e| Error::about(ExitCode::NoRoom, "# bytes of address space: free in both maps are needed (!)", len, b"", e);
    let start = hole.ok_or_else(|| no_room(sys::Errno::ENOMEM))?;
    let how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // SAFETY: a free place, and the kernel refuses to replace anything.
    unsafe { sys::memory::map(start as usize, len as usize, PROT_READ | PROT_WRITE, how, -1, 0) }.map_err(no_room)?;

    let tree = tree.moved_to(start + meeting).map_err(no_room)?;
    let gate = start + gate;
    // SAFETY: all in the region, apart from each other, and as long as was counted above.
    let (backings, descriptor_table, contents, prefix, seal) = unsafe {
        let second = start + numbers_at + size_of_val(files.backings) as u64;
        (
            place(files.backings, start + numbers_at),
            place(files.descriptors, second),
            place(files.contents, second + size_of_val(files.descriptors) as u64),
            place(input.prefix, start + prefix_at),
            place(input.seal, start + seal_at),
        )
    };
    // SAFETY: the region's first part is as long as the window.
    let delta = unsafe { relocate::copy_to(start + copy) };

    let forbidden = |e| {
        Error::about(
            ExitCode::Kernel,
            "this kernel: lets no memory be written and run (!): relax its policy for restart-stub",
            0u32,
            b"",
            e,
        )
    };
    // SAFETY: a part of the region, not in use yet.
    unsafe {
        sys::memory::protect(
            gate as usize,
            gate::code_len(image, gate_len) as usize,
            PROT_READ | PROT_WRITE | PROT_EXEC,
        )
    }
    .map_err(forbidden)?;
    let failed = |e| {
        Error::about(ExitCode::Descriptor, "descriptors: cannot be kept out of the program's way (!)", 0u32, b"", e)
    };
    let above = |fd: Fd| if fd < 0 { Ok(-1) } else { sys::fs::dup_above(fd, base).map_err(failed) };
    let place = (start + plan) as usize as *mut Plan;
    const { assert!(size_of::<Plan>() <= PAGE as usize) };
    let plan = Plan {
        start,
        len,
        delta,
        stack_top: start + stack_top,
        prefix,
        seal,
        file_len: input.len,
        base: input.base,
        tree,
        input: above(input.file)?,
        // A process without standard error has nobody to tell.
        error_fd: sys::fs::dup_above(2, base).unwrap_or(-1),
        ready: -1,
        // Or the namespace in which it was saved had other clocks.
        is_another_boot: image.header().boot_id != sys::process::boot_id()
            || (sys::time::nanoseconds(CLOCK_MONOTONIC) as u64) < image.header().monotonic_nsec.get(),
        exe: files.exe,
        backings,
        descriptors: descriptor_table,
        contents,
        drops_rights: launched.drops_rights,
        worker_stacks: start + worker_stacks,
        thread_stacks: start + thread_stacks,
        thread_stack,
        gate,
        gate_len,
        xstate,
        vdso,
        parking: start + parking,
    };
    // SAFETY: a page of the region that nothing else uses; it stays until the program frees the region.
    unsafe {
        place.write(plan);
        Ok(&mut *place)
    }
}

/// Copies values to an address in the region.
///
/// # Safety
/// The place is mapped, free, aligned and long enough; it stays until the program has taken over.
unsafe fn place<T: Copy>(values: &[T], at: u64) -> &'static [T] {
    let to = at as usize as *mut T;
    // SAFETY: the caller vouches.
    unsafe {
        core::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        core::slice::from_raw_parts(to, values.len())
    }
}
