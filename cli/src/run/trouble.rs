//! Saves that fail one after the other: what of it is said, and when it is over.
//!
//! Must never say the same again and again, nor fall silent for good.

use std::time::{Duration, Instant};

use crate::text;

/// After so long the same reason is said again.
const AGAIN: Duration = Duration::from_secs(3600);

/// A row of saves that have failed; none at first.
#[derive(Debug, Default)]
pub struct Trouble {
    began: Option<Instant>,
    count: usize,
    /// What was said last, and when.
    told: Option<(String, Instant)>,
}

impl Trouble {
    /// One more has failed; whether its reason is to be said.
    pub fn failed(&mut self, why: &str, now: Instant) -> bool {
        self.began.get_or_insert(now);
        self.count += 1;
        let known = self.told.as_ref().is_some_and(|(told, when)| told == why && now.duration_since(*when) < AGAIN);
        if !known {
            self.told = Some((why.to_owned(), now));
        }
        !known
    }

    /// One has succeeded: what there is to be said of those before.
    pub fn ended(&mut self, now: Instant) -> Option<String> {
        let Self { began, count, .. } = std::mem::take(self);
        let time = text::age(now.duration_since(began?));
        Some(format!("saved again, after {} in {time}", text::count(count, "failed save")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_and_again_after_an_hour() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(trouble.ended(start), None);
        let said: Vec<bool> = [("a", 0), ("a", 10), ("b", 20), ("b", 79), ("b", 80), ("a", 81)]
            .map(|(why, when)| trouble.failed(why, at(when)))
            .into();
        assert_eq!(said, [true, false, true, false, true, true]);
        assert_eq!(trouble.ended(at(90)), Some("saved again, after 6 failed saves in 90 min".to_owned()));
        assert_eq!(trouble.ended(at(91)), None);
    }
}
