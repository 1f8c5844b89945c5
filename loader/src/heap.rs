//! The planning heap: a fixed arena in .bss, for lists whose length the image decides. Nothing is given back: it goes
//! with the old mappings. Nothing may allocate once the commit has begun.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use image_format::ExitCode;
use linked_list_allocator::Heap;
use state::restart::{Error, Result};
use sys::fs::Fd;

/// Bytes of the arena. Untouched pages of it cost nothing.
const SIZE: usize = 4 << 20;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: handed to the allocator once, before anything allocates; there is one thread.
unsafe impl Sync for Arena {}

#[unsafe(link_section = ".heap")]
static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));

struct Allocator(UnsafeCell<Heap>);

// SAFETY: the stub has one thread as long as it allocates.
unsafe impl Sync for Allocator {}

static HEAP: Allocator = Allocator(UnsafeCell::new(Heap::empty()));

/// Makes allocation possible.
///
/// # Safety
/// Called once, first.
pub unsafe fn init() {
    let start = core::hint::black_box(ARENA.0.get().cast::<u8>());
    // SAFETY: the arena is used by nobody else. It begins a page: said here, or the allocator would ask and could panic.
    unsafe {
        core::hint::assert_unchecked(start.addr().is_multiple_of(align_of::<Arena>()));
        (*HEAP.0.get()).init(start, SIZE);
    }
}

/// A list of descriptors, all -1.
///
/// # Errors
/// Too many for the arena.
pub fn descriptors(len: usize) -> Result<&'static mut [Fd]> {
    list(len, -1)
}

/// A list of as many equal values.
///
/// # Errors
/// Too many for the arena.
pub fn list<T: Copy>(len: usize, value: T) -> Result<&'static mut [T]> {
    let place = room(len.saturating_mul(size_of::<T>()))?.cast::<T>();
    const { assert!(align_of::<T>() <= ALIGN) };
    // SAFETY: as long as asked for, aligned, this list's alone, and never given back.
    unsafe {
        for index in 0..len {
            place.add(index).write(value);
        }
        Ok(core::slice::from_raw_parts_mut(place, len))
    }
}

/// Bytes, all zero; none when there is no room for them.
pub fn bytes(len: usize) -> &'static mut [u8] {
    list(len, 0).unwrap_or_default()
}

/// Alignment of all that is handed out.
const ALIGN: usize = 8;

#[inline(never)] // So that it exists once.
fn room(len: usize) -> Result<*mut u8> {
    // SAFETY: one thread, see the type; no reference to the heap outlives the call.
    let heap = unsafe { &mut *HEAP.0.get() };
    let found = Layout::from_size_align(len.max(1), ALIGN).ok().and_then(|layout| heap.allocate_first_fit(layout).ok());
    found.map(NonNull::as_ptr).ok_or_else(|| {
        Error::about(
            ExitCode::NoRoom,
            "descriptors and mapped files: are more than the restart's memory holds",
            0u32,
            b"",
            None,
        )
    })
}
