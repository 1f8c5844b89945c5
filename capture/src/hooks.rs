//! What runs in a restarted process before the program goes on, and what the preload library must mend there.

use core::sync::atomic::{AtomicUsize, Ordering};

/// Most hooks.
const MAX: usize = 32;

/// A hook: a C function and its argument.
pub type Hook = extern "C" fn(*mut u8);

static HOOKS: [(AtomicUsize, AtomicUsize); MAX] = [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MAX];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The preload library's own hook for a new pid.
static ON_OWNER: AtomicUsize = AtomicUsize::new(0);

/// Registers a hook; they run in the order in which they came. `false`: the table is full.
pub fn add(hook: Hook, argument: *mut u8) -> bool {
    let index = COUNT.fetch_add(1, Ordering::AcqRel);
    let Some((function, arg)) = HOOKS.get(index) else {
        COUNT.store(MAX, Ordering::Release);
        return false;
    };
    arg.store(argument as usize, Ordering::Release);
    function.store(hook as usize, Ordering::Release);
    true
}

/// Runs them, on the thread that saved, all others still waiting.
pub fn run() {
    for (function, argument) in HOOKS.iter().take(COUNT.load(Ordering::Acquire)) {
        let function = function.load(Ordering::Acquire);
        if function != 0 {
            // SAFETY: stored by `add` from a function pointer of this type.
            let hook: Hook = unsafe { core::mem::transmute(function) };
            hook(argument.load(Ordering::Acquire) as *mut u8);
        }
    }
}

/// Sets what runs when the process has got another pid.
pub fn on_owner_changed(f: fn()) {
    ON_OWNER.store(f as usize, Ordering::Release);
}

/// Runs that.
pub fn owner_changed() {
    let f = ON_OWNER.load(Ordering::Acquire);
    if f != 0 {
        // SAFETY: stored by `on_owner_changed` from a function pointer of this type.
        let f: fn() = unsafe { core::mem::transmute(f) };
        f();
    }
}
