//! The program's clocks go on from their saved values, in a time namespace that it is born into.
//!
//! After a reboot, or on another machine, `CLOCK_MONOTONIC` stands lower, and what a runtime keeps of it in its own memory (timers of Go,
//! Java, Node, Python's asyncio) would wait for as long as the old machine had been up. Must never take rights away from a process that
//! has some: a user namespace is for one that has none.

use std::time::Duration;

use clap::ValueEnum;
use image_format::ExitCode;
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use super::namespace::{enter, set};
use crate::failure::Failure;
use crate::probe::trial::in_child;
use crate::text;

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// CLOCK_MONOTONIC.
    pub monotonic: u64,
    /// CLOCK_BOOTTIME.
    pub boottime: u64,
}

/// Whose clocks the program gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// The saved ones where this machine's stand lower, else this machine's (the default)
    #[default]
    Auto,
    /// The saved ones, which go on
    Keep,
    /// This machine's
    New,
}

impl Clock {
    /// Whether these clocks are to go on, and can. Where they should and cannot, standard error says so.
    ///
    /// # Errors
    /// They must, and cannot.
    pub fn goes_on(self, clocks: Clocks) -> Result<bool, Failure> {
        let ahead = clocks.ahead();
        if self == Self::New || (self == Self::Auto && ahead == Duration::ZERO) {
            return Ok(false);
        }
        // In a child first: a user namespace that has no ids yet, and is to have none, is no place for a program.
        let trial = || clocks.go_on().map(drop).map_err(|failure| failure.into_parts().1);
        let Err(why) = allowed().and_then(|()| in_child(trial)) else { return Ok(true) };
        if self == Self::Keep {
            return Err(Failure::new(ExitCode::Kernel, format_args!("clocks: cannot go on: {why}")));
        }
        let ahead = humantime::format_duration(Duration::from_secs(ahead.as_secs()));
        text::note(format_args!(
            "clocks: this machine's stand {ahead} below the program's, for which timers of its runtime (Go, Java, Node, asyncio) may wait \
             longer: {why}"
        ));
        Ok(false)
    }
}

impl Clocks {
    /// How far this machine's stand below them.
    fn ahead(self) -> Duration {
        let ahead = |clock, saved: u64| saved.saturating_sub(sys::time::nanoseconds(clock) as u64);
        Duration::from_nanos(ahead(1, self.monotonic).max(ahead(7, self.boottime)))
    }

    /// What is born from now on has these clocks, going on; tells whether that took a user namespace.
    ///
    /// # Errors
    /// The kernel's word.
    pub fn go_on(self) -> Result<bool, Failure> {
        let user = enter(UnshareFlags::NEWTIME)?;
        self.set().map(|()| user)
    }

    /// Makes the clocks of a time namespace in which nobody is yet go on from these values.
    pub fn set(self) -> Result<(), Failure> {
        set("/proc/self/timens_offsets", &self.offsets())
    }

    fn offsets(self) -> String {
        let line = |name: &str, clock: usize, saved: u64| {
            let distance = i128::from(saved) - i128::from(sys::time::nanoseconds(clock));
            format!("{name} {} {}\n", distance.div_euclid(1_000_000_000), distance.rem_euclid(1_000_000_000))
        };
        line("monotonic", 1, self.monotonic) + &line("boottime", 7, self.boottime)
    }
}

/// Whether a namespace costs this process no rights.
fn allowed() -> Result<(), String> {
    let rights = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    if rights.is_empty() || rights.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(());
    }
    Err("a time namespace takes the capability SYS_ADMIN, and who has others would lose them in a user namespace"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_nanoseconds_that_are_not_negative() {
        let text = Clocks { monotonic: 1_500_000_000, boottime: 0 }.offsets();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words.len(), 3, "{text}");
            let nanoseconds: i64 = words[2].parse().unwrap_or(-1);
            assert!((0..1_000_000_000).contains(&nanoseconds), "{text}");
        }
        assert!(text.starts_with("monotonic -") && text.contains("\nboottime -"), "{text}");
    }

    #[test]
    fn clocks_go_on_where_they_would_go_back() -> Result<(), Failure> {
        let past = Clocks { monotonic: 1, boottime: 1 };
        let future = Clocks { monotonic: u64::MAX / 4, boottime: 1 };
        assert!(past.ahead() == Duration::ZERO && future.ahead() > Duration::from_secs(1 << 30));
        assert!(!Clock::Auto.goes_on(past)? && !Clock::New.goes_on(future)?);
        Ok(())
    }
}
