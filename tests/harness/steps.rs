//! What a job of the examples' tests computes: a number that depends on each step before, so that a step lost or made twice shows.

/// What an undisturbed run writes up to a step, which begins with the number 4711.
#[must_use]
pub fn expected(step: u64) -> String {
    let mut sum = 4711;
    let line = |step| {
        sum = (sum * 31 + step) % 1_000_003;
        format!("step {step} {sum}\n")
    };
    (1..=step).map(line).collect()
}
