//! The walk over a tree of processes, all of which stand still: what descriptors and shared memory lead to once for all, then
//! each process by itself, then one image that holds the others.
//!
//! Must never let one of them go on before the last has been read: they see each other.

use std::vec::Vec;

use image_format::record::header::{Features, Header};
use image_format::writer::Full;
use image_format::{Notes, PAGE, align_up};
use state::content::Contents;
use state::credentials::Found;
use state::process::Relation;
use state::{Result, Save, Scratch, Target};

use super::{Along, Facts, Memory, Threads, inherit};
use crate::output::Output;
use crate::pages::{self, Run, Runs};

/// One process of the tree.
#[derive(Debug)]
pub struct Member<'m, H> {
    /// Its threads.
    pub threads: &'m H,
    /// What is known of it.
    pub facts: Facts<'m>,
}

/// One process's image under construction.
struct Draft<'b> {
    notes: Notes<'b>,
    scratch: Scratch<'b>,
    header: Header,
    along: Option<Along>,
    vmas_room: &'b mut [u8],
    runs: Runs<'b>,
}

/// Saves a tree into `output`; returns the image's length in bytes. `members`, with `memory` for each and some for what they have
/// in common, are the target's processes in order; `relations` all, also those that have ended.
///
/// # Errors
/// As [`super::save`].
pub fn save<T: Target, H: Threads>(
    target: &mut T,
    members: &[Member<'_, H>],
    relations: &[Relation],
    memory: (Vec<Memory<'_>>, Memory<'_>),
    output: &mut Output,
) -> Result<u64> {
    let pid_of = |place| relations.get(place).map(|r: &Relation| r.record.pid.get());
    walk(target, members, relations, memory, output).map_err(|error| error.with_processes(pid_of))
}

fn walk<T: Target, H: Threads>(
    target: &mut T,
    members: &[Member<'_, H>],
    relations: &[Relation],
    (memory, common): (Vec<Memory<'_>>, Memory<'_>),
    output: &mut Output,
) -> Result<u64> {
    let ids: Vec<u32> = relations.iter().map(|r| r.record.pid.get()).collect();
    for place in 0..members.len() {
        target.enter(place);
        state::process::check(target)?;
    }
    let mut credentials = Vec::new();
    for (place, Member { threads, .. }) in members.iter().enumerate() {
        target.enter(place);
        let tids = (0..threads.count()).map(|i| threads.get(i).record.tid.get() as i32);
        credentials.push(Found::of(target, tids)?);
    }
    // A tree of one user has that of whoever restarts it, unless that is root; else each has its own.
    let several = credentials.iter().any(|found| credentials.first() != Some(found));
    let known = state::credentials::are_known(target)?;
    target.enter(0);
    let notes = Notes::new(common.prefix, common.strings);
    let mut save = Save { target, notes, scratch: Scratch::new(common.scratch) };
    let (files, queues) = state::descriptor::collect(&mut save)?;
    let (sets, features) = (super::shared_objects(&mut save, files, &queues)?, state::descriptor::features(files));
    let contents = Contents::collect(&mut save, files)?;
    let mut rooms = Vec::new();
    for Memory { prefix, strings, vmas, runs, scratch } in memory {
        rooms.push((prefix, strings, vmas, Runs::new(Scratch::new(runs).rest::<Run>()?), scratch));
    }
    let contents = match rooms.first_mut() {
        Some((.., runs, _)) => super::keep_contents(&mut save, contents, runs)?,
        None => contents,
    };
    let Save { target, notes: shared, .. } = save;

    let mut drafts = Vec::new();
    for (place, (member, (prefix, strings, vmas_room, runs, scratch))) in members.iter().zip(rooms).enumerate() {
        target.enter(place);
        let mut save =
            Save { target: &mut *target, notes: Notes::new(prefix, strings), scratch: Scratch::new(scratch) };
        let (notes, strings) = shared.parts();
        save.notes.adopt(strings)?;
        let mut line = [0; 80];
        let line = super::command_line(save.target, &mut line);
        let mut header = super::begin(&mut save, member.threads, &member.facts, (files, features, line))?;
        header.required = (header.required.get() | Features::TREE.bits()).into();
        save.notes.bytes(notes)?;
        super::own_objects(&mut save, member.threads, &member.facts)?;
        state::content::save(&mut save, files, &contents, runs.as_slice().iter().filter_map(Run::content))?;
        if let Some(found) = credentials.get(place).filter(|_| several || known) {
            header.uid = found.user().into();
            state::credentials::save(&mut save, found)?;
            let required = if several { Features::CREDENTIALS } else { Features::empty() };
            header.required = (header.required.get() | required.bits()).into();
        }
        if place == 0 {
            state::process::save(&mut save, relations, files)?;
        }
        // The root's image has those of all: it alone compares them.
        let shared = if place == 0 { state::shared_file::save(&mut save, files)? } else { Features::empty() };
        let along = Along {
            keys: state::pkey::find(save.target),
            shared: sets | shared | state::sysv::save(&mut save, &contents)?,
            locks_future: state::setting::locks_future(save.target),
        };
        let Save { notes, scratch, .. } = save;
        drafts.push(Draft { notes, scratch, header, along: Some(along), vmas_room, runs });
    }
    target.enter(0);
    target.thaw()?;
    let mut ready = Vec::new();
    for (place, (member, draft)) in members.iter().zip(drafts).enumerate() {
        target.enter(place);
        ready.push(described(target, member, draft, &contents)?);
    }
    let parents: Vec<_> = relations
        .iter()
        .take(members.len())
        .map(|one| ids.iter().take(members.len()).position(|id| *id == one.record.parent.get()))
        .collect();
    inherit_pages(target, &mut ready, &parents)?;
    write(target, members, (ready, &parents), &contents, &ids, output)
}

/// Finds the pages that processes share with their parents. Where there is no room for the pieces they are saved once more.
fn inherit_pages<T: Target>(target: &mut T, drafts: &mut [Draft<'_>], parents: &[Option<usize>]) -> Result<()> {
    for (place, parent) in parents.iter().enumerate() {
        // The root's parent is no process of the tree, and no process comes before its parent.
        let Some(parent) = parent.filter(|parent| *parent < place) else { continue };
        let runs = |place: usize| drafts.get(place).map(|draft| draft.runs.as_slice()).unwrap_or_default();
        let found = inherit::find(target, (parent, runs(parent)), (place, runs(place)))?;
        let old = pages::of_memory(runs(place)).len();
        let shares = found.iter().any(Run::is_inherited);
        if shares && drafts.get_mut(place).is_some_and(|draft| draft.runs.replace_first(old, &found)) {
            for place in [parent, place] {
                let Draft { notes, header, .. } = drafts.get_mut(place).ok_or(Full)?;
                header.required = (header.required.get() | Features::INHERITED.bits()).into();
                notes.replace_first(header)?;
            }
        }
    }
    Ok(())
}

fn described<'b, T: Target, H: Threads>(
    target: &mut T,
    member: &Member<'_, H>,
    draft: Draft<'b>,
    contents: &Contents<'_>,
) -> Result<Draft<'b>> {
    let Draft { notes, scratch, mut header, along, vmas_room, mut runs, .. } = draft;
    let mut save = Save { target, notes, scratch };
    let who = (member.threads, &member.facts);
    let along = along.ok_or(Full)?;
    super::describe(&mut save, who, (&mut header, along), contents, vmas_room, &mut runs)?;
    let Save { notes, scratch, .. } = save;
    Ok(Draft { notes, scratch, header, along: None, vmas_room: &mut [], runs })
}

/// The root's image, with all others in it.
fn write<T: Target, H: Threads>(
    target: &mut T,
    members: &[Member<'_, H>],
    (drafts, parents): (Vec<Draft<'_>>, &[Option<usize>]),
    contents: &Contents<'_>,
    ids: &[u32],
    output: &mut Output,
) -> Result<u64> {
    let (mut parts, mut images) = (Vec::new(), Vec::new());
    // The root's headers tell the others' lengths.
    for (draft, pid) in drafts.into_iter().zip(ids).rev() {
        let Draft { notes, scratch, runs, .. } = draft;
        let within = if parts.len() + 1 == members.len() { &*images } else { &[] };
        let (layout, prefix) = super::lay_out(notes, runs.as_slice(), within)?;
        images.insert(0, (u64::from(*pid), layout.file_len()));
        parts.push((layout, prefix, scratch, runs));
    }
    parts.reverse();
    let (mut at, mut bases, mut places) = (0, Vec::new(), Vec::new());
    for (place, (layout, prefix, _, runs)) in parts.iter_mut().enumerate() {
        let runs = runs.as_slice();
        let theirs = parents.get(place).copied().flatten().and_then(|parent| places.get(parent));
        let own = inherit::locate(layout, prefix, runs, at, theirs)?;
        places.push(own);
        bases.push(at);
        at = match place {
            0 => layout.segments + runs.iter().map(Run::stored).sum::<u64>(),
            _ => align_up(at + layout.file_len(), PAGE),
        };
    }
    let mut sums = Vec::new();
    let mut root = None;
    for (place, ((layout, prefix, mut scratch, runs), base)) in parts.into_iter().zip(bases).enumerate() {
        target.enter(place);
        let threads = members.get(place).ok_or(Full)?.threads;
        let rseq_pages = super::rseq_pages(&mut scratch, threads)?;
        // A tree keeps its ids: nobody asks for traces of them.
        let marks = (rseq_pages, None);
        let runs = runs.as_slice();
        if place == 0 {
            sums.resize(runs.len(), 0);
            output.write_body(&*target, &layout, prefix, (runs, contents, &mut sums), marks, &mut scratch)?;
            root = Some((layout, prefix, scratch));
        } else {
            output.begin_at(base);
            sums.push(output.write(&*target, &layout, prefix, (runs, contents), marks, &mut scratch)?);
        }
    }
    output.begin_at(0);
    target.enter(0);
    let (layout, prefix, mut scratch) = root.ok_or(Full)?;
    output.seal(&layout, prefix, &sums, &mut scratch)?;
    Ok(layout.file_len())
}
