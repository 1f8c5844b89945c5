//! Threads that were made before their time, as long as somebody else may still be given their ids: they wait, first in the stub's own memory, then in
//! the region, until the program's memory is there.
//!
//! Must never use thread-local storage, nor anything of the stub's own memory once a thread has moved.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use image_format::PAGE;
use sys::{Result, signal, thread};

use crate::prepare::memory;

/// Where a thread waits; lies at the low end of its first stack.
struct Standby {
    /// 0: waits; 1: goes to `entry`; 2: ends.
    order: AtomicU32,
    entry: AtomicUsize,
    argument: AtomicUsize,
    stack: AtomicUsize,
    /// Which thread of its process it is, and another one that waits: for its maker alone.
    place: Cell<u32>,
    next: Cell<Option<Waiting>>,
}

/// A thread that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting(&'static Standby);

impl core::fmt::Debug for Standby {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Standby")
    }
}

/// Threads that have moved; counted in the copy of this program that they have moved to.
static MOVED: AtomicU32 = AtomicU32::new(0);
/// 1 when they may begin; in the copy.
static BEGIN: AtomicU32 = AtomicU32::new(0);

/// What a thread begins with once it may: lies at the low end of its stack in the region.
#[repr(C)]
#[derive(Debug)]
pub struct Begin(AtomicUsize);

impl Begin {
    /// With this function, which takes the address of this value.
    pub fn at(entry: unsafe extern "C" fn(*mut u8) -> !) -> Self {
        Self(AtomicUsize::new(entry as usize))
    }
}

impl Waiting {
    /// Makes a thread that waits, with this id or else the one that comes next; returns it and its id. It blocks all signals.
    ///
    /// # Errors
    /// No memory; clone(2)'s; EEXIST: the id is taken.
    pub fn make(id: Option<u32>) -> Result<(Self, i32)> {
        let stack = memory(PAGE)?;
        let at = stack.as_mut_ptr();
        let top = at as usize + stack.len();
        const { assert!(align_of::<Standby>() <= PAGE as usize) };
        // SAFETY: a page of its own, zeroed, which is a valid standby; it is never given back.
        let standby = unsafe { &*at.cast::<Standby>() };
        let mask = signal::set_mask(signal::ALL)?;
        // SAFETY: the stack lives for as long as the thread, which uses no thread-local storage.
        let made = unsafe {
            match id {
                Some(id) => thread::spawn_as(id, top, stack.len(), wait, at),
                None => thread::spawn(top, core::ptr::null_mut(), wait, at),
            }
        };
        signal::set_mask(mask)?;
        made.map(|tid| (Self(standby), tid))
    }

    /// Says which thread of its process it is, and puts it before others.
    pub fn put_before(self, next: Option<Self>, place: u32) -> Self {
        self.0.next.set(next);
        self.0.place.set(place);
        self
    }

    /// The next one behind it.
    pub fn next(&self) -> Option<Self> {
        self.0.next.get()
    }

    /// Which thread of its process it is.
    pub fn place(self) -> u32 {
        self.0.place.get()
    }

    fn tell(self, order: u32) {
        self.0.order.store(order, Ordering::Release);
        thread::wake(&self.0.order);
    }

    /// It ends.
    pub fn end(self) {
        self.tell(2);
    }

    /// It moves: to a stack in the region that ends at `stack`, and the code in the copy of this program that lies `delta` further on.
    /// There it waits until [`begin_all`], and begins with what is written at `argument`.
    pub fn move_to(self, delta: usize, argument: usize, stack: usize) {
        let hold: unsafe extern "C" fn(*mut u8) -> ! = hold;
        self.0.entry.store((hold as usize).wrapping_add(delta), Ordering::Relaxed);
        self.0.argument.store(argument, Ordering::Relaxed);
        self.0.stack.store(stack, Ordering::Relaxed);
        self.tell(1);
    }
}

/// Waits until so many threads have moved to the copy that lies `delta` further on.
pub fn wait_until_moved(threads: u32, delta: usize) {
    let at = (&raw const MOVED as usize).wrapping_add(delta) as *const AtomicU32;
    // SAFETY: the copy's own static, which stays as long as the region.
    let moved = unsafe { &*at };
    loop {
        let now = moved.load(Ordering::Acquire);
        if now == threads {
            return;
        }
        let _ = thread::wait(moved, now, None);
    }
}

/// In the copy: all that wait begin.
pub fn begin_all() {
    BEGIN.store(1, Ordering::Release);
    thread::wake(&BEGIN);
}

unsafe extern "C" fn wait(at: *mut u8) -> ! {
    // SAFETY: this thread's own standby, of whose cells it knows nothing.
    let standby = unsafe { &*at.cast::<Standby>() };
    thread::wait_while(&standby.order, 0);
    if standby.order.load(Ordering::Acquire) == 2 {
        thread::exit();
    }
    let [entry, argument, stack] =
        [&standby.entry, &standby.argument, &standby.stack].map(|word| word.load(Ordering::Acquire));
    // SAFETY: a function of the copy, which is complete, on a stack of this thread's own.
    unsafe { sys::arch::leave_to(entry, argument, stack) }
}

unsafe extern "C" fn hold(at: *mut u8) -> ! {
    MOVED.fetch_add(1, Ordering::AcqRel);
    thread::wake(&MOVED);
    thread::wait_while(&BEGIN, 0);
    // SAFETY: written before `BEGIN`, in memory of this thread's own.
    let entry = unsafe { (*at.cast::<Begin>()).0.load(Ordering::Acquire) };
    // SAFETY: the function takes this very address, and never returns.
    let entry = unsafe { core::mem::transmute::<usize, unsafe extern "C" fn(*mut u8) -> !>(entry) };
    // SAFETY: as above.
    unsafe { entry(at) }
}
