//! Progress of long work, on a terminal: bytes, rate and the time that is left.
//!
//! A thread of its own looks at what the work counts, and draws nothing within the first half second. Must never be waited for by the work, nor
//! draw where standard error is no terminal, or another job has it.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use ckpt::output::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::getpgrp;
use rustix::termios::{isatty, tcgetpgrp};
use sys::signal::{ALL, set_mask};

/// Work that takes no longer shows nothing.
const AFTER: Duration = Duration::from_millis(500);

/// How often it is drawn.
const EACH: Duration = Duration::from_millis(100);

/// Whether standard error is a terminal, and this command in its foreground.
static DRAWS: OnceLock<bool> = OnceLock::new();

/// Asks that, before this process leaves the terminal's session.
pub fn draws() -> bool {
    *DRAWS.get_or_init(|| {
        let terminal = std::io::stderr();
        isatty(&terminal) && tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
    })
}

/// A bar, while the value lives.
pub struct Bar {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    /// Shows how far `progress` is, behind a word for the work; without one where nothing is to be drawn.
    pub fn new(what: &'static str, progress: &'static Progress) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let ended = Arc::clone(&over);
        // Where no thread may be made there is no bar.
        let thread = draws().then(|| Builder::new().spawn(move || draw(what, progress, &ended)).ok()).flatten();
        Self { over, thread }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until the work is over.
fn draw(what: &'static str, progress: &Progress, (over, changed): &(Mutex<bool>, Condvar)) {
    // Signals are for the thread that works; and a terminal that has changed hands does not stop this one.
    let _ = set_mask(ALL);
    let is_over = |time| {
        let over = over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(over, time, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    };
    if is_over(AFTER) {
        return;
    }
    let (done, all) = progress.get();
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let bar = ProgressBar::with_draw_target((all > 0).then_some(all), target).with_style(style(all)).with_message(what);
    bar.set_position(done);
    // The rate is that of what follows.
    bar.reset_eta();
    loop {
        let (done, now) = progress.get();
        if bar.length().unwrap_or(0) != now {
            bar.set_style(style(now));
            bar.set_length(now);
        }
        bar.set_position(done);
        bar.tick();
        if is_over(EACH) {
            bar.finish_and_clear();
            return;
        }
    }
}

/// How it looks, whether or not it is known how much there is.
fn style(all: u64) -> ProgressStyle {
    let template = if all == 0 {
        "{msg}: {binary_bytes}, {binary_bytes_per_sec}"
    } else {
        "{msg}: {binary_bytes} of {binary_total_bytes} [{bar:20}] {binary_bytes_per_sec}, {eta} left"
    };
    // A template that is wrong would be found by the tests.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("#> ")
}
