//! The report for people: a few lines about the whole, then a table for each kind of thing.

use std::fmt::{self, Write};

use super::files::{Descriptor, Lock};
use super::layout::{line, table};
use super::object::State;
use super::overview;
use super::report::{Limit, Process, Report};
use crate::text::{count, size};

/// The whole report as text.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let (image, saved) = (&report.image, &report.saved);
    writeln!(out, "{}: {}, {}", image.path, size(image.bytes), count(image.segments, "segment"))?;
    if let Some(method) = image.compression {
        line(out, "compressed", &format!("{method}, to {}", size(image.stored)))?;
    }
    line(out, "saved", &format!("{} by uid {}", saved.at, saved.uid))?;
    line(out, "kernel", &format!("{} on {}", saved.kernel, image.machine))?;
    let needs = if image.requires.is_empty() { "nothing".to_owned() } else { image.requires.join(", ") };
    line(out, "format", &format!("{}, requires {needs}", image.format))?;
    let cpu = &saved.cpu.requires;
    line(out, "CPU", &format!("needs {}", if cpu.is_empty() { "nothing special".to_owned() } else { cpu.join(" ") }))?;
    line(out, "restarts", &format!("{} before this save", image.generation))?;
    line(out, "id", &image.uuid)?;
    if let Some(job) = &report.job {
        line(out, "job", &format!("{}, in {} on {}", job.line, job.directory, job.host))?;
    }
    if report.processes.len() > 1 {
        writeln!(out, "\n{}", overview::render(&report.processes))?;
    }
    // From outside no thread of it has made the save.
    let by_itself = !image.requires.iter().any(|feature| feature == "full-frame");
    for process in &report.processes {
        process_table(out, process, by_itself)?;
    }
    Ok(())
}

fn process_table(out: &mut String, process: &Process, by_itself: bool) -> fmt::Result {
    writeln!(out, "\nProcess {}", process.pid)?;
    if let Some((group, session)) = process.group.zip(process.session) {
        let of = process.parent.map_or_else(|| "root of the tree".to_owned(), |parent| format!("child of {parent}"));
        line(out, "tree", &format!("{of}, group {group}, session {session}"))?;
    }
    if let Some(credentials) = &process.credentials {
        line(out, "user", &credentials.line())?;
    }
    line(out, "ids", &ids(process))?;
    line(out, "program", &process.executable)?;
    if !process.command.is_empty() {
        line(out, "command", &process.command)?;
    }
    line(out, "directory", &process.directory)?;
    line(out, "umask", &process.umask)?;
    if !process.settings.is_empty() {
        let settings = process.settings.iter().map(|s| format!("{} {}", s.name, s.value));
        line(out, "settings", &settings.collect::<Vec<_>>().join(", "))?;
    }
    for timer in &process.timers {
        let every = if timer.interval_us == 0 { String::new() } else { format!(", every {}", time(timer.interval_us)) };
        line(out, "timer", &format!("{}: in {}{every}", timer.kind, time(timer.remaining_us)))?;
    }
    for pending in &process.pending_signals {
        let to = pending.tid.map_or_else(String::new, |tid| format!(" for thread {tid}"));
        line(out, "pending", &format!("SIG{}{to}", pending.signal))?;
    }
    for frame in &process.signal_frames {
        let components = frame.components.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        line(
            out,
            "handler",
            &format!("running; XSAVE components {components} of what it interrupted at {}", frame.address),
        )?;
    }
    for set in &process.semaphores {
        line(out, "semaphore", &set.line())?;
    }
    let limits = process.limits.iter().filter(|limit| limit.soft.is_some());
    line(out, "limits", &limits.map(limit_text).collect::<Vec<_>>().join(", "))?;
    writeln!(out, "\n{}", table(&["THREAD", "NAME", "STOPPED IN", ""], &[0], thread_rows(process, by_itself)))?;
    writeln!(out, "\n{}", table(&["MEMORY", "MAPPINGS", "MAPPED", "SAVED"], &[1, 2, 3], memory_rows(process)))?;
    if process.descriptors.is_empty() {
        return writeln!(out, "\nno open files");
    }
    let head = ["FD", "KIND", "PATH", "ACCESS", "OFFSET", "SIZE", "NOTES"];
    writeln!(out, "\n{}", table(&head, &[0, 4, 5], process.descriptors.iter().map(|d| file_row(d, process)).collect()))
}

/// What the save has found, and what a restart by default makes of it.
fn ids(process: &Process) -> String {
    match (process.ids.traces, &process.ids.at) {
        ("none", _) => "no trace of them in its memory: a restart may give it new ones".to_owned(),
        (_, Some(at)) => format!("its memory may hold one (at {at}): a restart keeps them"),
        _ => "its memory was not searched for them: a restart keeps them".to_owned(),
    }
}

fn time(microseconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_micros(microseconds)).to_string()
}

/// Soft limit, and the hard one where it differs; what is unlimited is left out.
fn limit_text(limit: &Limit) -> String {
    let value = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    if limit.soft == limit.hard {
        return format!("{} {}", limit.resource, value(limit.soft));
    }
    format!("{} {} (of {})", limit.resource, value(limit.soft), value(limit.hard))
}

fn thread_rows(process: &Process, by_itself: bool) -> Vec<Vec<String>> {
    let row = |thread: &super::thread::Thread| {
        let mut notes = Vec::new();
        notes.extend((thread.current && by_itself).then(|| "made the save".to_owned()));
        notes.extend(thread.scheduling.as_ref().map(|s| match s.priority {
            0 => format!("{}, nice {}", s.policy, s.nice),
            priority => format!("{} {priority}", s.policy),
        }));
        notes.extend((!thread.seccomp.is_empty()).then(|| count(thread.seccomp.len(), "seccomp restriction")));
        notes.extend((!thread.cpus.is_empty()).then(|| format!("on CPUs {}", thread.cpus)));
        vec![thread.tid.to_string(), thread.name.clone(), thread.stopped_in.clone(), notes.join("; ")]
    };
    process.threads.iter().map(row).collect()
}

fn memory_rows(process: &Process) -> Vec<Vec<String>> {
    let memory = &process.memory;
    let row = |title: &str, mappings: usize, mapped, saved| {
        vec![title.to_owned(), mappings.to_string(), size(mapped), size(saved)]
    };
    let mut rows: Vec<_> =
        memory.kinds.iter().map(|sum| row(sum.kind.title(), sum.mappings, sum.mapped, sum.saved)).collect();
    if !memory.contents.is_empty() {
        let (bytes, saved) = memory.contents.iter().fold((0, 0), |(b, s), c| (b + c.bytes, s + c.saved));
        rows.push(row("contents without a name", memory.contents.len(), bytes, saved));
    }
    if !memory.shared_files.is_empty() {
        let bytes = memory.shared_files.iter().map(|file| file.bytes).sum();
        rows.push(row("in shared files, compared", memory.shared_files.len(), bytes, 0));
    }
    rows.push(row("all", memory.mappings.len(), memory.mapped, memory.saved));
    rows
}

fn file_row(descriptor: &Descriptor, process: &Process) -> Vec<String> {
    let mut notes: Vec<String> = descriptor.flags.iter().map(|&flag| flag.to_owned()).collect();
    if descriptor.cloexec {
        notes.push("cloexec".to_owned());
    }
    // Each sharing is shown once, at the later number.
    let first = process.descriptors.iter().find(|other| other.file == descriptor.file);
    if let Some(first) = first.filter(|first| first.fd < descriptor.fd) {
        notes.push(format!("shares {}", first.fd));
    }
    notes.extend(descriptor.locks.iter().map(lock_text));
    notes.extend(descriptor.state.iter().flat_map(State::words));
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        descriptor.fd.to_string(),
        descriptor.kind.to_owned(),
        descriptor.path.clone(),
        descriptor.access.to_owned(),
        number(descriptor.offset),
        number(descriptor.size),
        notes.join(", "),
    ]
}

fn lock_text(lock: &Lock) -> String {
    let mode = if lock.write { "write" } else { "read" };
    match (lock.start, lock.bytes) {
        (0, None) => format!("{mode} lock ({})", lock.kind),
        (start, None) => format!("{mode} lock from {start} ({})", lock.kind),
        (start, Some(bytes)) => format!("{mode} lock {start}+{bytes} ({})", lock.kind),
    }
}
