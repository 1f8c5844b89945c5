//! What `/proc` says about a process: read, never guessed.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

use state::process::restarting::Part;

use crate::wait;

/// The fields of `/proc/PID/stat` behind the name: state first (field 3 of proc(5)).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The state's letter (`R`, `S`, `T`, `Z` …), or none when there is no such process.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Name, as `ps` shows it in COMMAND.
///
/// # Errors
/// No such process.
pub fn comm(pid: u32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end().to_owned())
}

/// Arguments.
///
/// # Errors
/// No such process.
pub fn cmdline(pid: u32) -> Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|b| *b == 0);
    Ok(words.map(|w| String::from_utf8_lossy(w).into_owned()).collect())
}

/// Whether a set of `/proc/PID/status` has this signal; false of a process that has ended.
fn has_signal(pid: u32, set: &str, signal: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let mask = text.lines().find_map(|line| line.strip_prefix(set));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Whether the process has a handler for this signal.
#[must_use]
pub fn catches(pid: u32, signal: i32) -> bool {
    has_signal(pid, "SigCgt:", signal)
}

/// Whether the process blocks this signal.
#[must_use]
pub fn blocks(pid: u32, signal: i32) -> bool {
    has_signal(pid, "SigBlk:", signal)
}

/// Waits until the process blocks this signal, as `ckpt run` does, which reads its signals: then it takes effect.
///
/// # Errors
/// Not in time.
pub fn wait_blocks(pid: u32, signal: i32) -> Result<()> {
    let look = || Ok(blocks(pid, signal).then_some(()));
    wait::until(look, || format!("process {pid} (state {:?}) does not block signal {signal}", state(pid)))
}

/// Waits until the process has a handler for this signal: then a save may be asked for.
///
/// # Errors
/// Not in time.
pub fn wait_catches(pid: u32, signal: i32) -> Result<()> {
    let look = || {
        ensure!(!matches!(state(pid), None | Some('Z' | 'X')), "process {pid} has ended");
        Ok(catches(pid, signal).then_some(()))
    };
    wait::until(look, || format!("process {pid} (state {:?}) has no handler for signal {signal}", state(pid)))
}

/// Waits until the process is in one of these states.
///
/// # Errors
/// Not in time.
pub fn wait_state(pid: u32, wanted: &str) -> Result<()> {
    let look = || Ok(state(pid).filter(|s| wanted.contains(*s)).map(drop));
    wait::until(look, || format!("process {pid} is in state {:?}, not one of {wanted}", state(pid)))
}

/// Waits until the process has ended; one that nobody has waited for yet has.
///
/// # Errors
/// It runs on.
pub fn wait_gone(pid: u32) -> Result<()> {
    let look = || Ok(matches!(state(pid), None | Some('Z' | 'X')).then_some(()));
    wait::until(look, || format!("process {pid} runs on, in state {:?}", state(pid)))
}

/// All processes of a session: pid and arguments. Zombies too, but those of PID 1.
///
/// # Errors
/// `/proc` cannot be read.
pub fn session(sid: u32) -> Result<BTreeMap<u32, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Some(fields) = stat(pid) else { continue };
        // What has ended and belongs to PID 1 is over: only its reaper takes its time (a container's may take for ever).
        let over =
            fields.first().is_some_and(|state| state == "Z") && fields.get(1).is_some_and(|parent| parent == "1");
        if fields.get(3) == Some(&sid.to_string()) && !over {
            found.insert(pid, cmdline(pid).unwrap_or_default().join(" "));
        }
    }
    Ok(found)
}

/// The program that a process supervises, or that process itself; one that is being restarted is waited for.
#[must_use]
pub fn program(pid: u32) -> u32 {
    let part = || match sys::fs::open_path(format!("/proc/{pid}").as_bytes(), sys::abi::O_DIRECTORY, 0) {
        Ok(proc) => match Part::of(proc.fd()) {
            Part::Restarting => Ok(None),
            part => Ok(Some(part)),
        },
        Err(_) => Ok(Some(Part::Program)),
    };
    match wait::until(part, || "it is being restarted still".to_owned()) {
        Ok(Part::Supervisor(of)) => program(of.cast_unsigned()),
        _ => pid,
    }
}

/// Children of a process, by pid.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Waits until the process has this many threads and all of them sleep.
///
/// # Errors
/// Not in time.
pub fn wait_threads_sleep(pid: u32, threads: usize) -> Result<()> {
    let states = || -> Result<Vec<char>> {
        let mut states = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
            states.extend(text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
        }
        Ok(states)
    };
    let look = || {
        let now = states()?;
        Ok((now.len() == threads && now.iter().all(|s| *s == 'S')).then_some(()))
    };
    wait::until(look, || format!("threads of process {pid}: {:?}", states()))
}

/// Waits until the process's group is the foreground one of its terminal (`tpgid` of `/proc/PID/stat`).
///
/// # Errors
/// It does not become so.
pub fn wait_foreground(pid: u32) -> Result<()> {
    let look = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = behind.split_whitespace().skip(2);
        let group = fields.next();
        Ok((group.is_some() && fields.nth(2) == group).then_some(()))
    };
    wait::until(look, || format!("process {pid} is not in the foreground"))
}
