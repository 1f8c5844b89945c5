//! A process with all that descend from it: found, stopped from the root on, so that none can have a child that is not seen.
//!
//! Must never leave one stopped that is not saved.

use std::boxed::Box;
use std::time::{Duration, Instant};
use std::vec::Vec;

use state::process::Relation;
use state::{Error, Result};
use sys::fs::Owned;

use super::connections::Connections;
use super::family::Family;
use super::member::{self, Halted, Known, Seized};
use super::place::NO_ROOM;
use super::target::Pause;
use super::{Options, Tcp, kind};
use crate::origin::Origin;

/// Processes that stand still.
#[derive(Debug)]
pub struct Found {
    /// All of them as one target, the root first, each behind its parent.
    pub family: Family,
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
pub fn halt(root: Seized, origin: &Origin, how: (Pause, Instant), options: Options) -> Result<Option<Found>> {
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
        let children = parent.children()?;
        for child in children {
            match stop(child, own, origin)? {
                Child::Stands(stopped) => {
                    belongs(&stopped, halted.first())?;
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
    for place in 0..relations.len() {
        if let Some(left) = relations.get(place).map_or(Ok(None), |one| one.group_left(&relations))? {
            relations.push(left);
        }
    }
    let (mut members, mut known) = (Vec::new(), Vec::new());
    let alone = halted.len() == 1;
    for one in halted {
        let Some((member, all)) = one.look_into(how, (options.tcp == Tcp::Reset, options.with_files), alone)? else {
            return Ok(None);
        };
        members.push(member);
        known.push(all);
    }
    if let Some(root) = members.first_mut().filter(|_| options.kill && options.tcp == Tcp::Keep) {
        root.connections = Some(Connections::default());
    }
    Ok(Some(Found { family: Family::new(members, gone), known, relations }))
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
fn stop(child: i32, parent: u32, origin: &Origin) -> Result<Child> {
    const ATTEMPTS: u32 = 50;
    const MOMENT: Duration = Duration::from_millis(1);
    for _ in 0..ATTEMPTS {
        let Ok(proc) = member::directory(child) else { return Ok(Child::Gone) };
        if let Some(one) = zombie(&proc, parent)? {
            return Ok(Child::Ended(one));
        }
        if kind::is_restarting(proc.fd()) {
            // The root has its name again already; this one will in a moment, but may wait for the others.
            break;
        }
        let ends = kind::has_no_program(&proc);
        let seized = kind::check(child, &proc).and_then(|()| Seized::new(child, proc));
        let error = match seized.and_then(|seized| seized.halt(origin)) {
            Ok(Some(stopped)) => return Ok(Child::Stands(Box::new(stopped))),
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if let Some(e) = error.filter(|e| !ends && !e.is(NO_ROOM)) {
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

/// Refuses a child that a restart could not make as it is: one in other namespaces, or that shares with its
/// parent what only threads share.
fn belongs(child: &Halted, root: Option<&Halted>) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    let refuse = |why, remedy| Err(Error::refused(format_args!("child process {}", child.pid()), why, remedy));
    if child.namespaces() != root.namespaces() {
        return refuse("lives in other namespaces", "save it by itself");
    }
    if let Some(what) = child.shares(root.pid()) {
        return refuse(what, "let it call exec first");
    }
    Ok(())
}
