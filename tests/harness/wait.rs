//! Waiting for what nothing announces: a short nap between looks, and a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks every millisecond until `look` yields something.
///
/// # Errors
/// `look` failed, or nothing came in time: then `otherwise` says what was awaited and what is there instead.
pub fn until<T>(mut look: impl FnMut() -> Result<Option<T>>, otherwise: impl FnOnce() -> String) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("nothing in {PATIENCE:?}: {}", otherwise());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
