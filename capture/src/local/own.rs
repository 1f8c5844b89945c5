//! The program's own actions for signals that are the library's for a moment, or for good: what is not ours goes on to them.
//!
//! Must never change what a program sees of its action once the moment is over.

use sys::abi::signal::{SA_SIGINFO, SIG_DFL, SIG_IGN, Sigaction, Siginfo, Ucontext};

use super::shared::Shared;

/// The program's own action for a signal.
#[derive(Debug)]
pub struct Own(Shared<4>);

impl Own {
    /// The default one.
    pub const fn new() -> Self {
        Self(Shared::new())
    }

    /// What was kept.
    pub fn get(&self) -> Sigaction {
        let [handler, flags, restorer, mask] = self.0.get();
        Sigaction { handler, flags: flags as u64, restorer, mask: mask as u64 }
    }

    /// Keeps this one.
    pub fn set(&self, action: &Sigaction) {
        self.0.set([action.handler, action.flags as usize, action.restorer, action.mask as usize]);
    }

    /// Sets `ours` for a signal and keeps what it replaces, unless that is left over from a save that failed. Returns the
    /// program's own.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// The handler is async-signal-safe and passes on what is not ours.
    pub unsafe fn replace(&self, signal: i32, ours: &Sigaction) -> sys::Result<Sigaction> {
        // SAFETY: the caller's promise.
        let old = unsafe { sys::signal::set_action(signal, ours) }?;
        if old.handler != ours.handler {
            self.set(&old);
        }
        Ok(self.get())
    }
}

/// Does what the program's own action says with a signal that is not ours.
pub fn pass_on(own: &Sigaction, signal: i32, info: *const Siginfo, context: *const Ucontext) {
    match own.handler {
        SIG_IGN => {}
        SIG_DFL => {
            // As if the handler had never been: the default action, once this handler returns.
            // SAFETY: the default action is no code.
            let _ = unsafe { sys::signal::set_action(signal, &Sigaction::default()) };
            let _ = sys::process::kill(sys::process::pid(), signal);
        }
        // SAFETY: the program's own handler of this signal.
        _ => unsafe { call_handler(own, signal, info, context) },
    }
}

/// Calls a handler of the program's own, as the kernel would.
///
/// # Safety
/// The action's handler is the program's function for this signal, neither default nor ignore.
pub unsafe fn call_handler(own: &Sigaction, signal: i32, info: *const Siginfo, context: *const Ucontext) {
    // SAFETY: the caller's promise.
    unsafe {
        if own.flags & SA_SIGINFO != 0 {
            let f: extern "C" fn(i32, *const Siginfo, *const Ucontext) = core::mem::transmute(own.handler);
            f(signal, info, context);
        } else {
            let f: extern "C" fn(i32) = core::mem::transmute(own.handler);
            f(signal);
        }
    }
}
