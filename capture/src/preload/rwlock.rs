//! glibc's read-write locks: a writer is known by its thread id, which is another one after a restart.
//!
//! `pthread_rwlock_unlock` tells a writer from a reader by that id (nptl/pthread_rwlock_unlock.c). While a lock has a
//! writer nobody else holds it, so that whoever unlocks it then is the writer: before the libc looks, the field gets
//! the caller's id of now. Must never change anything before the first restart.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use sys::Errno;

/// glibc's `struct __pthread_rwlock_arch_t` of x86_64, as far as it matters: `__cur_writer` lies at byte 24.
#[repr(C)]
pub struct Rwlock {
    before: [u32; 6],
    writer: AtomicI32,
}

type Unlock = unsafe extern "C" fn(*mut Rwlock) -> c_int;

/// The libc's own function; 0 before it was looked up.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// `RTLD_NEXT`.
const NEXT_IN_ORDER: *mut c_void = usize::MAX as *mut c_void;

/// The libc's own function.
fn next() -> Option<Unlock> {
    let mut address = NEXT.load(Ordering::Acquire);
    if address == 0 {
        address = sys::arch::glibc_rwlock_unlock();
        let dlsym = sys::arch::dlsym_address();
        if address == 0 && dlsym != 0 {
            type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
            // SAFETY: the address of a function of this type.
            let dlsym: Dlsym = unsafe { core::mem::transmute(dlsym) };
            // SAFETY: as dlsym(3) asks.
            address = unsafe { dlsym(NEXT_IN_ORDER, c"pthread_rwlock_unlock".as_ptr()) } as usize;
        }
        NEXT.store(address, Ordering::Release);
    }
    // SAFETY: null, or the address of a function of this type.
    unsafe { core::mem::transmute::<usize, Option<Unlock>>(address) }
}

/// pthread_rwlock_unlock(3).
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_unlock(lock: *mut Rwlock) -> c_int {
    let (restarted, glibc) = (crate::local::save::generation() != 0, sys::arch::glibc_rwlock_unlock() != 0);
    if restarted && glibc {
        // SAFETY: the program's lock; the field is only changed by whoever holds the lock for writing.
        let writer = unsafe { &(*lock).writer };
        if writer.load(Ordering::Relaxed) != 0 {
            writer.store(sys::thread::tid(), Ordering::Relaxed);
        }
    }
    match next() {
        // SAFETY: the caller's lock.
        Some(unlock) => unsafe { unlock(lock) },
        None => Errno::ENOSYS.into_raw(),
    }
}
