//! Several measurements of one thing, and how they are told: the least and the middle one.

use std::time::Duration;

/// Durations, ascending.
#[derive(Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Measures `runs` times, after one run that warms up and is not counted.
    ///
    /// # Errors
    /// That of the measurement.
    pub fn take(runs: usize, mut measure: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Self> {
        measure()?;
        let mut all = Vec::with_capacity(runs);
        for _ in 0..runs {
            all.push(measure()?);
        }
        all.sort();
        Ok(Self(all))
    }

    /// The least.
    pub fn min(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    /// The middle one (the lower of two).
    pub fn median(&self) -> Duration {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }

    /// How many times as long as `other` this takes, by the medians.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

/// Milliseconds for people.
pub fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_is_not_counted() -> anyhow::Result<()> {
        let mut next = [100, 5, 1, 3].into_iter().map(Duration::from_millis);
        let samples = Samples::take(3, || Ok(next.next().unwrap_or_default()))?;
        assert_eq!(samples.min(), Duration::from_millis(1));
        assert_eq!(samples.median(), Duration::from_millis(3));
        Ok(())
    }
}
