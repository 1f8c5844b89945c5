//! What a libc keeps of old ids in a restarted process, and the kernel does not know of: corrected by each thread for
//! itself, before anybody goes on.
//!
//! Must never write where the whole pattern does not stand: a word that happens to equal an old id is no id.

use core::sync::atomic::Ordering;

use image_format::PAGE;
use sys::abi::signal::{SI_QUEUE, SI_TKILL, SI_USER, Siginfo, Ucontext};
use sys::fs::Fd;
use sys::text::{cut, hex, words};

use crate::locks::{self, Mutex, Owner, TID_MASK};

/// Most threads that may wait for a lock.
const THREADS_MAX: u32 = 1 << 16;

/// Most bytes of .bss that are looked through.
const BSS_MAX: u64 = 16 << 20;

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
            let _ = self.mend_locks(new);
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

    /// glibc's recursive and error-checking mutexes and its read-write locks name their owner by its id. The libc and
    /// the dynamic linker hold such locks themselves; they lie in the writable data of mapped files and in the .bss
    /// behind it, and these are looked through.
    fn mend_locks(self, new: i32) -> sys::Result<()> {
        let mut buffer = [0; 512];
        let mut lines = sys::fs::Lines::open_at(sys::abi::AT_FDCWD, c"/proc/self/maps", &mut buffer)?.pass_long();
        let mem = sys::fs::open(c"/proc/self/mem", sys::abi::O_RDONLY, 0)?;
        let mut data_end = 0;
        while let Some(line) = lines.next_line()? {
            let mut fields = words(line);
            let range = fields.next().and_then(|f| cut(f, b'-'));
            let Some((Some(start), Some(end))) = range.map(|(a, b)| (hex(a), hex(b))) else { continue };
            let writable = fields.next() == Some(b"rw-p");
            let name = fields.nth(3);
            let of_file = name.is_some_and(|name| name.starts_with(b"/"));
            let bss = name.is_none() && start == data_end && end - start <= BSS_MAX;
            if writable && (of_file || bss) {
                let mut at = start;
                while at < end {
                    // A touch behind the end of a file, or of a guard region, would be a fault.
                    let readable = |page: &u64| sys::fs::pread(mem.fd(), &mut [0], *page) == Ok(1);
                    let pages = || (at..end).step_by(PAGE as usize);
                    let stop = pages().find(|page| !readable(page)).unwrap_or(end);
                    // SAFETY: mapped and readable, and all threads that could unmap it wait.
                    unsafe { self.mend_range(at as usize, stop as usize, new, mem.fd()) };
                    at = (stop..end).step_by(PAGE as usize).find(readable).unwrap_or(end);
                }
                data_end = end;
            }
        }
        Ok(())
    }

    /// # Safety
    /// The range is mapped readable and writable.
    unsafe fn mend_range(self, start: usize, end: usize, new: i32, mem: Fd) {
        let old = self.tid as u32;
        for at in (start..=end.saturating_sub(size_of::<Mutex>())).step_by(8) {
            let word = at as *mut u32;
            // SAFETY: inside the range, aligned; behind its end it is zero.
            let read = |i| if at + 4 * i < end { unsafe { word.add(i).read_volatile() } } else { 0 };
            let places = match (read(2) == old, read(6) == old) {
                (true, _) => match locks::mutex_owner(old, &core::array::from_fn(read), THREADS_MAX) {
                    Some(Owner::Field) => [2, 2],
                    Some(Owner::FieldAndLock) => [2, 0],
                    None => continue,
                },
                (_, true) if locks::is_written(old, &core::array::from_fn(read), THREADS_MAX) => [6, 6],
                _ => continue,
            };
            let readable = |from: u64, to: &mut [u8]| sys::fs::pread_exact(mem, to, from).is_ok();
            if locks::is_running_number((at + 4 * places[0]) as u64, old, readable) {
                continue;
            }
            for place in places {
                // SAFETY: as above; the owner is this thread, which waits here.
                unsafe { word.add(place).write_volatile(read(place) & !TID_MASK | new as u32) };
            }
        }
        core::sync::atomic::fence(Ordering::Release);
    }
}
