//! Settings and scheduling of an image's process: only what is not the default.

use image_format::record::sched::{Affinity, Sched};
use image_format::record::setting::{self, Which};
use image_format::{Fault, Image};
use serde::Serialize;

/// Policies by number (sched(7)).
const POLICIES: [&str; 8] = ["other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"];

/// A setting of the process.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// As in docs/image-format.md.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
}

impl Setting {
    /// All of them.
    pub fn all(image: &Image<'_>) -> Result<Vec<Self>, Fault> {
        let settings = image.table::<setting::Setting>()?.iter();
        Ok(settings.map(|s| Self { name: Which::name(s.which.get()), value: s.value.get().cast_signed() }).collect())
    }
}

/// How a thread is scheduled.
#[derive(Debug, Serialize)]
pub struct Scheduling {
    /// `other`, `batch`, `fifo` …
    pub policy: &'static str,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority; 0 for none.
    pub priority: u32,
    /// Class and level of ioprio_set(2) in one number; 0 when it has set none.
    pub io_priority: u32,
}

impl Scheduling {
    /// That of a thread; `None` for the default one.
    pub fn of(image: &Image<'_>, tid: u32) -> Result<Option<Self>, Fault> {
        let found = image.table::<Sched>()?.iter().find(|s| s.tid.get() == tid);
        Ok(found.map(|s| Self {
            policy: POLICIES.get(s.policy.get() as usize).copied().unwrap_or("unknown"),
            nice: s.nice.get(),
            priority: s.priority.get(),
            io_priority: s.io_priority.get(),
        }))
    }
}

/// The CPUs that a thread keeps to, as in `taskset --cpu-list`; empty when its parent's are its own.
pub fn cpus(image: &Image<'_>, tid: u32) -> Result<String, Fault> {
    let words = image.table::<Affinity>()?.iter().filter(|a| a.tid.get() == tid);
    let all = words.flat_map(|a| (0..64).filter(|n| a.cpus.get() >> n & 1 != 0).map(|n| a.first.get() + n));
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in all {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    Ok(ranges.iter().map(text).collect::<Vec<_>>().join(","))
}
