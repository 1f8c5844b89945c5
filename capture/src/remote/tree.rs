//! A process with all that descend from it: found, stopped from the root on, so that none can have a child that is not seen.
//!
//! Must never leave one stopped that is not saved.

use std::boxed::Box;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::vec::Vec;

use image_format::record::process::PROCESSES_MAX;
use state::process::Relation;
use state::process::restarting::Part;
use state::{Error, ErrorKind, Result};
use sys::fs::{Fd, Owned};

use super::connections::Connections;
use super::filters::Surroundings;
use super::member::{self, Halted, Known, Seized};
use super::stopped_tree::StoppedTree;
use super::target::{Pause, Remote};
use super::{Ending, Options, Tcp, kind};
use crate::origin::Origin;

/// How long somebody may take who sends a signal to all of them, one after the other.
const ROUND: Duration = Duration::from_millis(10);

/// Processes that stand still.
#[derive(Debug)]
pub struct Found {
    /// All of them as one target, the root first, each behind its parent.
    pub stopped: StoppedTree,
    /// What is known of each.
    pub known: Vec<Known>,
    /// How they stand to each other; behind them those that have ended.
    pub relations: Vec<Relation>,
}

/// Stops a process and all that descend from it; its children are seized when it stands still, as it could make others until then.
/// `None`: one called exec, or made a thread, at the wrong moment; try again.
///
/// # Errors
/// One does not stop, may not be traced, or holds something that cannot be carried.
pub fn halt(root: Seized, origin: &Origin, how: (Pause, Instant), options: Options<'_>) -> Result<Option<Found>> {
    let Some(root) = root.halt(origin)? else { return Ok(None) };
    let mut relations = Vec::new();
    if !root.children()?.is_empty() {
        relations.push(root.relation(0)?);
    }
    let mut halted = std::vec![root];
    let (mut ended, mut gone) = (Vec::new(), Vec::new());
    let mut place = 0;
    while let (Some(parent), Some(own)) = (halted.get(place), relations.get(place)) {
        let own = own.record.pid.get();
        let (children, surroundings) = (parent.children()?, parent.surroundings());
        for child in children {
            match stop(child, (&surroundings, own), origin, options.ending.map(|ending| ending.signal))? {
                Child::Stands(stopped) => {
                    let root = halted.first().map(|root| (root.pid(), root.proc()));
                    root.map_or(Ok(()), |root| member::belongs((child, stopped.proc()), root))?;
                    relations.push(stopped.relation(own)?);
                    halted.push(*stopped);
                }
                Child::Ended(relation) => {
                    gone.push((child, relation.record.pid.get() as i32));
                    ended.push(relation);
                }
                Child::Gone => {}
                Child::Unsettled => return Ok(None),
            }
        }
        place += 1;
    }
    relations.extend(ended);
    add_groups(&mut relations)?;
    too_many(relations.len())?;
    if options.ending.is_some() {
        // Whoever ends everybody takes a moment for it.
        std::thread::sleep(ROUND);
    }
    let (mut members, mut known) = (Vec::new(), Vec::new());
    let alone = halted.len() == 1;
    let ids: Vec<i32> = halted.iter().map(Halted::pid).collect();
    for one in halted {
        let Some((member, all)) = one.look_into(how, (options.tcp == Tcp::Reset, options.with_files), alone)? else {
            return Ok(None);
        };
        members.push(member);
        known.push(all);
    }
    if let Some(ending) = options.ending.filter(|_| members.iter().any(Remote::has_withheld)) {
        all_there(ending, &ids, &relations)?;
    }
    if let Some(root) = members.first_mut().filter(|_| options.kill && options.tcp == Tcp::Keep) {
        root.connections = Some(Connections::default());
    }
    Ok(Some(Found { stopped: StoppedTree::new(members, gone), known, relations }))
}

/// Adds what is left of process groups whose leaders are gone.
fn add_groups(relations: &mut Vec<Relation>) -> Result<()> {
    let mut places: HashMap<u32, usize> = (0..).zip(&*relations).map(|(at, one)| (one.record.pid.get(), at)).collect();
    for place in 0..relations.len() {
        let (Some(one), Some(root)) = (relations.get(place), relations.first()) else { break };
        let parent = places.get(&one.record.parent.get()).and_then(|at| relations.get(*at));
        if let Some(left) = one.group_left(root, parent, |group| places.contains_key(&group))? {
            places.insert(left.record.pid.get(), relations.len());
            relations.push(left);
        }
    }
    Ok(())
}

/// Refuses a tree that is larger than an image can tell.
///
/// # Errors
/// It is.
pub fn too_many(processes: usize) -> Result<()> {
    if processes <= PROCESSES_MAX {
        return Ok(());
    }
    Err(Error::refused(
        format_args!("a tree of {processes} processes (those that have ended and were not waited for among them)"),
        "is larger than the 2048 that an image can hold",
        "save parts of it by themselves",
    ))
}

/// Refuses a tree of which one has been ended by the signal that was sent to all: the others would go on without it.
fn all_there(ending: Ending<'_>, ids: &[i32], relations: &[Relation]) -> Result<()> {
    /// Bits of a status that tell the signal.
    const SIGNAL: u32 = 0x7f;
    let of_it =
        |one: &&Relation| one.record.ended.get() == 1 && one.record.status.get() & SIGNAL == ending.signal as u32;
    let ended = relations.iter().find(of_it).map(|one| one.record.pid.get() as i32);
    match ended.or_else(|| ending.processes.iter().copied().find(|pid| !ids.contains(pid))) {
        None => Ok(()),
        Some(pid) => Err(Error::refused(
            format_args!("process {pid}"),
            "has ended, by the signal that was sent to all of them",
            "send it to `ckpt run` alone",
        )),
    }
}

/// What became of a child whose parent stands still.
enum Child {
    Stands(Box<Halted>),
    /// It waits for its parent.
    Ended(Relation),
    /// Its parent wants to hear of none (`SIGCHLD` ignored).
    Gone,
    /// It does not settle: try again, with all of them.
    Unsettled,
}

/// Stops a child. One that calls exec or makes a thread settles, as does one at its end: nobody who stands still has to run for that.
fn stop(
    child: i32,
    ((surroundings, maker), parent): (&(Surroundings, (i32, Fd)), u32),
    origin: &Origin,
    withhold: Option<i32>,
) -> Result<Child> {
    const ATTEMPTS: u32 = 50;
    const MOMENT: Duration = Duration::from_millis(1);
    for _ in 0..ATTEMPTS {
        let Ok(proc) = member::directory(child) else { return Ok(Child::Gone) };
        if let Some(one) = zombie(&proc, parent)? {
            return Ok(Child::Ended(one));
        }
        if Part::of(proc.fd()) == Part::Restarting {
            // The root has its name again already; this one will in a moment, but may wait for the others.
            break;
        }
        let ends = kind::has_no_program(&proc);
        let seized = kind::check(child, &proc)
            .and_then(|()| surroundings.of_child((child, proc.fd()), *maker))
            .and_then(|own| Seized::new(child, proc, withhold, own));
        let error = match seized.and_then(|seized| seized.halt(origin)) {
            Ok(Some(stopped)) => return Ok(Child::Stands(Box::new(stopped))),
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if let Some(e) = error.filter(|e| !ends && !e.is(ErrorKind::NoRoomInside)) {
            // Perhaps it has ended just now.
            let Ok(proc) = member::directory(child) else { return Ok(Child::Gone) };
            match zombie(&proc, parent)? {
                Some(one) => return Ok(Child::Ended(one)),
                None if kind::has_no_program(&proc) => {}
                None => return Err(e),
            }
        }
        std::thread::sleep(MOMENT);
    }
    std::thread::sleep(MOMENT);
    Ok(Child::Unsettled)
}

/// A process that has ended and waits for its parent.
fn zombie(proc: &Owned, parent: u32) -> Result<Option<Relation>> {
    let mut buffer = [0; 64];
    let state = state::target::status_value(proc.fd(), c"status", b"State", &mut buffer).ok().flatten();
    if !matches!(state, Some([b'Z' | b'X', ..])) {
        return Ok(None);
    }
    let relation = Relation::read(proc.fd(), parent)?;
    Ok(Some(relation).filter(Relation::has_ended))
}
