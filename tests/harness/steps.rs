//! What a job of the examples' tests computes: a number that depends on each step before, so that a step lost or made twice shows.

use std::fs;

use anyhow::Result;

use crate::Place;

/// The steps of [`JOB`].
pub const STEPS: u64 = 30;

/// A job in Python. Its input has the number to begin with, and perhaps the path of `pass`, see [`allow`], if that is not in its working directory.
pub const JOB: &str = "#!/usr/bin/python3
import os, sys, time
sum, name = (open(sys.argv[1]).read().split() + ['pass'])[:2]
sum = int(sum)
for step in range(1, 31):
    while step > os.stat(name).st_size: time.sleep(0.02)
    sum = (sum * 31 + step) % 1000003
    print('step', step, sum, flush=True)
";

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

/// Lets a job make its steps up to this one: as many bytes has the file `pass` then. A job asks for its size and never opens it: a file that a save
/// finds open, and that is replaced after it, is rightly refused at the restart.
///
/// # Errors
/// The disk is full.
pub fn allow(place: &Place, step: u64) -> Result<()> {
    let new = place.write("pass.new", vec![b'x'; usize::try_from(step)?])?;
    Ok(fs::rename(new, place.file("pass"))?)
}
