//! The planning heap: a fixed arena in .bss, for lists whose length the image decides. Nothing is given back: it goes
//! with the old mappings. Nothing may allocate once the commit has begun.

use core::cell::UnsafeCell;

use linked_list_allocator::Heap;

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

#[global_allocator]
static HEAP: Allocator = Allocator(UnsafeCell::new(Heap::empty()));

/// Makes allocation possible.
///
/// # Safety
/// Called once, first.
pub unsafe fn init() {
    // SAFETY: the arena is used by nobody else.
    unsafe { (*HEAP.0.get()).init(ARENA.0.get().cast(), SIZE) };
}

// SAFETY: `linked_list_allocator` does the work; a full arena gives null, as it must.
unsafe impl core::alloc::GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: core::alloc::Layout) -> *mut u8 {
        // SAFETY: one thread, see the type.
        unsafe { (*self.0.get()).allocate_first_fit(layout).map_or(core::ptr::null_mut(), core::ptr::NonNull::as_ptr) }
    }

    /// Nothing: the whole arena goes at once, and soon.
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}
