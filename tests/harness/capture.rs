//! What a process writes, collected as it comes: a wait for some text ends with the text, the end of the stream, or the deadline.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::wait::timeout;

/// Bytes that a thread collects from one stream.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    /// Collects all that `from` gives, in a thread of its own, until its end or an error (a closed terminal gives EIO).
    pub fn of(mut from: impl Read + Send + 'static) -> Self {
        let capture = Self::default();
        let shared = capture.clone();
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(got @ 1..) = from.read(&mut buffer) {
                shared.lock().bytes.extend_from_slice(&buffer[..got]);
                shared.0.changed.notify_all();
            }
            shared.lock().ended = true;
            shared.0.changed.notify_all();
        });
        capture
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// The same as it came.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits until `enough` holds for the text, or the stream ends; tells whether it held.
    pub fn wait(&self, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + timeout();
        let mut state = self.lock();
        loop {
            if enough(&String::from_utf8_lossy(&state.bytes)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the stream; tells whether it came.
    pub(crate) fn wait_end(&self) -> bool {
        let deadline = Instant::now() + timeout();
        let mut state = self.lock();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
