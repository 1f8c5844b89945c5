//! What another process has, which may be on its way out: waited for within a bound, and said once.
//!
//! Must never wait for what nobody asked to have waited for.

use sys::message::say;

/// How much longer.
#[derive(Debug)]
pub struct Wait {
    /// Hundredths of a second.
    left: u32,
    said: bool,
}

impl Wait {
    /// Not longer than that.
    #[must_use]
    pub fn of_seconds(seconds: u32) -> Self {
        Self { left: seconds.saturating_mul(100), said: false }
    }

    /// Waits a moment for `what`; whether it is worth another try.
    #[inline(never)]
    pub fn again(&mut self, what: &[u8]) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        if !self.said {
            say("restart-stub: @: is in use: waits for # s at most\n", (self.left / 100).into(), what, 0);
        }
        (self.left, self.said) = (left, true);
        sys::time::nap();
        true
    }
}
