//! What a libc keeps of old ids in a restarted process, and the kernel does not know of: corrected by each thread for
//! itself, before anybody goes on.
//!
//! Must never write where the whole pattern does not stand: a word that happens to equal an old id is no id.

use core::sync::atomic::Ordering;

use sys::abi::signal::{SI_QUEUE, SI_TKILL, SI_USER, Siginfo, Ucontext};
use sys::text::{cut, hex, words};

/// Bytes of glibc's `pthread_mutex_t` on x86_64.
const MUTEX: usize = 40;

/// How far above the stack pointer the kernel puts a signal's siginfo (ucontext and alignment come first).
const FRAME: u64 = 1024;

/// A thread as it was when it was saved.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pid: i32,
    tid: i32,
}

impl Before {
    /// The calling thread now.
    #[must_use]
    pub fn now() -> Self {
        Self { pid: sys::process::pid(), tid: sys::thread::tid() }
    }

    /// In the restarted process, on the same thread: corrects what has the old ids.
    ///
    /// # Safety
    /// `interrupted` is null or the frame that the stop or save signal interrupted; all threads still wait.
    pub unsafe fn mend(self, interrupted: *const Ucontext) {
        if !interrupted.is_null() {
            // SAFETY: the kernel's frame, on this thread's stack.
            unsafe { self.mend_frame(&*interrupted) };
        }
        let new = sys::thread::tid();
        if new != self.tid {
            // Where /proc is missing nothing can be found, as nothing could be saved.
            let _ = self.mend_mutexes(new);
        }
    }

    /// A thread may have been stopped at the first instruction of another signal's handler: what the process sent to
    /// itself still comes from itself (glibc ignores its own signals when they come from another pid).
    ///
    /// # Safety
    /// The frame is the kernel's, and the thread's stack is in place.
    unsafe fn mend_frame(self, context: &Ucontext) {
        let c = &context.mcontext;
        let Ok(signal) = i32::try_from(c.rdi) else { return };
        let at_entry = (1..=64).contains(&signal)
            && sys::signal::action(signal).is_ok_and(|a| a.handler > 1 && a.handler as u64 == c.rip);
        let on_stack = c.rsi > c.rsp && c.rsi - c.rsp < FRAME && c.rsi.is_multiple_of(8);
        if !at_entry || !on_stack {
            return;
        }
        // SAFETY: at a handler's entry the second argument points to the siginfo in the frame just above.
        let info = unsafe { &mut *(c.rsi as *mut Siginfo) };
        if info.signo == signal && matches!(info.code, SI_USER | SI_QUEUE | SI_TKILL) && info.pid == self.pid {
            info.pid = sys::process::pid();
        }
    }

    /// glibc's recursive and error-checking mutexes name their owner by its id. The dynamic linker itself holds one
    /// while it loads a library; it lies in the writable data of a mapped file, and these are looked through.
    fn mend_mutexes(self, new: i32) -> sys::Result<()> {
        let mut buffer = [0; 512];
        let mut lines = sys::fs::Lines::open_at(sys::abi::AT_FDCWD, c"/proc/self/maps", &mut buffer)?.pass_long();
        while let Some(line) = lines.next_line()? {
            let mut fields = words(line);
            let range = fields.next().and_then(|f| cut(f, b'-'));
            let Some((Some(start), Some(end))) = range.map(|(a, b)| (hex(a), hex(b))) else { continue };
            if fields.next() == Some(b"rw-p") && fields.nth(3).is_some_and(|name| name.starts_with(b"/")) {
                // SAFETY: mapped and readable, and all threads that could unmap it wait.
                unsafe { self.mend_range(start as usize, end as usize, new) };
            }
        }
        Ok(())
    }

    /// # Safety
    /// The range is mapped readable and writable.
    unsafe fn mend_range(self, start: usize, end: usize, new: i32) {
        for at in (start..end.saturating_sub(MUTEX)).step_by(8) {
            let words = at as *mut i32;
            // SAFETY: inside the range, aligned.
            let [lock, count, owner, users, kind] = [0, 1, 2, 3, 4].map(|i| unsafe { words.add(i).read_volatile() });
            // Error-checking mutexes do not count.
            let held = matches!(lock, 1 | 2) && (0..1 << 16).contains(&count) && (1..1 << 16).contains(&users);
            // PTHREAD_MUTEX_RECURSIVE_NP 1, PTHREAD_MUTEX_ERRORCHECK_NP 2.
            if owner == self.tid && held && matches!(kind & 0x7f, 1 | 2) {
                // SAFETY: as above; the owner is this thread, which waits here.
                unsafe { words.add(2).write_volatile(new) };
            }
        }
        core::sync::atomic::fence(Ordering::Release);
    }
}
