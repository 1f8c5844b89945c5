//! Waiting for what nothing announces: a short nap between looks, and a deadline.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take on a busy machine before a test gives up; `CKPT_TEST_TIMEOUT` says other seconds.
#[must_use]
pub fn timeout() -> Duration {
    static SECONDS: OnceLock<u64> = OnceLock::new();
    let read = || std::env::var("CKPT_TEST_TIMEOUT").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    Duration::from_secs(*SECONDS.get_or_init(read))
}

/// Looks every millisecond until `look` yields something.
///
/// # Errors
/// `look` failed, or nothing came in time: then `otherwise` says what was awaited and what is there instead.
pub fn until<T>(mut look: impl FnMut() -> Result<Option<T>>, otherwise: impl FnOnce() -> String) -> Result<T> {
    let deadline = Instant::now() + timeout();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("nothing in {:?}: {}", timeout(), otherwise());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
