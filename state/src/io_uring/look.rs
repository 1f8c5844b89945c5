//! What an instance is: by what the kernel tells, by what it answers to calls that change nothing, and by its memory.

use core::sync::atomic::{AtomicU32, Ordering};

use image_format::record::StrRef;
use image_format::record::io_uring::{IoUring, Params, word};
use image_format::{NoteType, PAGE, align_up};
use sys::abi::uring as abi;
use sys::abi::{O_LARGEFILE, O_RDWR};
use sys::fs::{Fd, Owned};

use sys::uring::{self, Memory};
use sys::{Errno, Sysno};

use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use super::registered;
use super::told::{self, Told, failed, refuse};
use crate::descriptor::{Kind, OpenFile};
use crate::{Arg, Error, ErrorKind, Object, Result, Save, Target};

/// Why a save is refused that may succeed in a moment.
const IN_FLIGHT: &str =
    "has requests in flight, or had some that completed never or more than once, which cannot be carried";

/// How often a look is taken while completions come, 10 ms each.
const LOOKS: u32 = 5;

/// Writes the table.
///
/// # Errors
/// An instance that cannot be carried; no room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile]) -> Result<()> {
    save.notes.begin(NoteType::IoUring)?;
    for file in files.iter().filter(|file| file.is_first(Kind::IoUring)) {
        match one(save, files, file) {
            Ok(ring) => save.notes.push(&ring)?,
            Err(error) => save.target.blocked(error)?,
        }
    }
    save.notes.end()?;
    Ok(())
}

/// Memory of an instance, as long as it is looked at.
struct Mapped(Option<Memory>);

impl Mapped {
    fn new(own: &Owned, offset: u64, len: usize) -> sys::Result<Self> {
        Memory::map(own.fd(), offset, len).map(|memory| Self(Some(memory)))
    }

    fn words(&self) -> &[AtomicU32] {
        self.0.as_ref().map(Memory::words).unwrap_or_default()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Memory::unmap);
    }
}

fn one<T: Target>(save: &mut Save<'_, '_, T>, files: &[OpenFile], file: &OpenFile) -> Result<IoUring> {
    if T::IN_PROCESS {
        return Err(refuse(file, "cannot be carried by a process that saves itself", "save it by its pid"));
    }
    if file.in_transit != 0 || files.iter().any(|other| other.id == file.id && other.place() != file.place()) {
        return Err(refuse(file, "is another process's, too, which cannot be carried", "close it in all but one"));
    }
    let told = settled(save.target, file)?;
    for (is_so, why, remedy) in [
        (
            file.flags & !O_LARGEFILE != O_RDWR,
            "has flags of its own (F_SETFL), which cannot be carried",
            "take them back",
        ),
        (told.sq_thread.is_some(), "is polled by a thread of the kernel's, which cannot be carried", "make it without"),
        (told.personalities, "has registered credentials, which cannot be carried", "unregister them"),
        (told.polls_busily, "polls sockets busily, which cannot be carried", "unregister that"),
    ] {
        if is_so {
            return Err(refuse(file, why, remedy));
        }
    }
    let own = save.target.borrow(file.fd as Fd).map_err(failed(file))?;
    let issuer = issuer(save.target, file, &own)?;
    registered::check(save.target, file, &own, issuer != 0)?;
    let params = shape(save.target, file, &own, &told, issuer)?;
    let mut ring = IoUring {
        id: file.id.into(),
        flags: file.flags.into(),
        params,
        rings: StrRef::default(),
        sqes: StrRef::default(),
        buffers: registered::buffers(save, file, &told)?,
        files: registered::files(save, files, file, &told)?,
    };
    if save.target.stands_still() {
        let [rings, sqes] = lengths(&params);
        ring.rings = contents(save, file, &own, (abi::OFF_SQ_RING, rings))?;
        ring.sqes = contents(save, file, &own, (abi::OFF_SQES, sqes))?;
        // As a restart finds its goal in them.
        let kept = save.notes.kept(ring.rings);
        let is_so = |at| Some(word(kept, at)) == told.cached_sq_head;
        if ![params.sq_head, params.cq_tail].into_iter().all(is_so) {
            return Err(failed(file)(Errno::EIO));
        }
    }
    Ok(ring)
}

/// The instance by its fdinfo, once nothing is in flight: waits while completions are on their way into the ring.
fn settled<T: Target>(target: &mut T, file: &OpenFile) -> Result<Told> {
    let (mut looks, mut first) = (0, None);
    loop {
        let told = told::read(target, file.fd, |_, _, _| {}).map_err(failed(file))?;
        // One that runs is at work, and would be done in a moment.
        let now = (told.cached_sq_head, told.cached_cq_tail);
        let goes_on = !target.stands_still() && told.waiting.is_none() && *first.get_or_insert(now) != now;
        if told.is_quiet() || goes_on {
            return Ok(told);
        }
        looks += 1;
        if looks >= LOOKS {
            let remedy = "save it when they are done";
            return Err(match (told.waiting, told.cached_sq_head) {
                (Some(name), _) => {
                    let object = Object::descriptor(file.fd, format_args!("io_uring, {name} waits"));
                    Error::refused(object, IN_FLIGHT, remedy).kind(ErrorKind::InFlight)
                }
                // Or it was busy, and told nothing.
                (None, None) if told.sq_entries != 0 => {
                    refuse(file, "cannot be examined on this kernel", "use Linux 5.19 or newer")
                }
                (None, _) => refuse(file, IN_FLIGHT, remedy).kind(ErrorKind::InFlight),
            });
        }
        if target.stands_still() {
            // Its own thread takes what has completed.
            let enter = [file.fd as usize, 0, 0, abi::ENTER_GETEVENTS, 0, 0].map(Arg::Value);
            // SAFETY: nothing is submitted: completions that are due come into the rings.
            let _ = unsafe { target.call(Sysno::io_uring_enter, enter, &mut []) };
        }
        sys::time::nap();
    }
}

/// `IORING_SETUP_*` that tell who may submit, and how completions come to it.
fn issuer<T: Target>(target: &mut T, file: &OpenFile, own: &Owned) -> Result<u32> {
    let mut probed = uring::probe(own.fd());
    let mut flags = 0;
    if probed == Errno::EEXIST {
        flags |= abi::SETUP_SINGLE_ISSUER;
        if uring::look(own.fd(), abi::ENTER_GETEVENTS, &[]) == Err(Errno::EEXIST) {
            flags |= abi::SETUP_DEFER_TASKRUN | abi::SETUP_TASKRUN_FLAG;
        }
        if crate::process::threads(target.proc_of(file.place() as usize)).map_err(failed(file))? > 1 {
            let why = "is for one thread alone (IORING_SETUP_SINGLE_ISSUER), and nobody tells for which";
            return Err(refuse(file, why, "make it without"));
        }
        probed = Errno::EBADFD;
        if target.stands_still() {
            let restrict = [file.fd as usize, abi::REGISTER_RESTRICTIONS, 0, 0, 0, 0].map(Arg::Value);
            // SAFETY: nothing is registered.
            let asked = unsafe { target.call(Sysno::io_uring_register, restrict, &mut []) };
            probed = asked.err().unwrap_or(Errno::EBADFD);
        }
    }
    match probed {
        Errno::EBADFD => Ok(flags),
        Errno::EACCES => Err(refuse(file, "is restricted, which cannot be carried", "make it without")),
        Errno::EINVAL => Err(refuse(file, "is not enabled yet, which cannot be carried", "enable it")),
        Errno::EEXIST => Err(refuse(file, "is for a thread that has ended", "make it anew")),
        e => Err(failed(file)(e)),
    }
}

/// `struct io_uring_params` of an instance like this one, by one that is made and given up at once.
fn like(told: &Told, flags: u32) -> sys::Result<Params> {
    let mut params = Params::new_zeroed();
    params.cq_entries = told.cq_entries.into();
    params.flags = (flags | abi::SETUP_CQSIZE | abi::SETUP_SUBMIT_ALL).into();
    let made = uring::setup(told.sq_entries, zerocopy::transmute_mut!(&mut params))?;
    // SAFETY: it was made just now.
    unsafe { sys::fs::close(made) };
    Ok(params)
}

/// Bytes of the rings and of the submissions, whole pages.
fn lengths(params: &Params) -> [usize; 2] {
    let [sq, cq, flags] = [params.sq_entries, params.cq_entries, params.flags].map(U32::get);
    let long = |flag| u32::from(flags & flag != 0);
    let cqes = params.cq_cqes.get() + ((cq * 16) << long(abi::SETUP_CQE32));
    let array = params.sq_array.get() + sq * 4;
    [cqes.max(array), (sq * 64) << long(abi::SETUP_SQE128)].map(|len| align_up(len.into(), PAGE) as usize)
}

/// What it was made with. The kernel does not tell: what is longer than it must be shows by its length, or by how a request is listed.
fn shape<T: Target>(target: &mut T, file: &OpenFile, own: &Owned, told: &Told, issuer: u32) -> Result<Params> {
    let failed = failed(file);
    let map = |offset, len: usize| Mapped::new(own, offset, len);
    let first = map(abi::OFF_SQ_RING, PAGE as usize).map_err(|e| match e {
        Errno::EINVAL | Errno::ENOMEM => {
            refuse(file, "has its rings in the program's own memory, which cannot be carried", "make it without")
        }
        e => failed(e),
    })?;
    let mut flags = issuer;
    if target.stands_still() && polls(own).map_err(&failed)? {
        flags |= abi::SETUP_IOPOLL;
    }
    let plain = like(told, flags).map_err(&failed)?;
    let [rings, sqes] = lengths(&plain);
    let [long_rings, _] = lengths(&like(told, flags | abi::SETUP_CQE32).map_err(&failed)?);
    let [_, long_sqes] = lengths(&like(told, flags | abi::SETUP_SQE128).map_err(&failed)?);
    // The array of indices, which comes last, may be lacking.
    let array = align_up(u64::from(told.sq_entries) * 4, PAGE) as usize;
    let mut unknown = false;
    for (flag, offset, short, long) in [
        (abi::SETUP_CQE32, abi::OFF_SQ_RING, rings, long_rings - array),
        (abi::SETUP_SQE128, abi::OFF_SQES, sqes, long_sqes),
    ] {
        if short >= long {
            unknown = true;
        } else if map(offset, long).is_ok() {
            flags |= flag;
        }
    }
    let now = like(told, flags).map_err(&failed)?;
    let indexed = told.sq_entries == 1 || has_indices(own, &now).unwrap_or(false);
    if target.stands_still() && (unknown || !indexed) {
        let listed = match &first.0 {
            Some(first) => listed(target, file, first, &now)?,
            None => Told::default(),
        };
        flags |= if listed.long_submission { abi::SETUP_SQE128 } else { 0 };
        flags |= if listed.long_completion { abi::SETUP_CQE32 } else { 0 };
        flags |= if listed.submission || indexed { 0 } else { abi::SETUP_NO_SQARRAY };
    }
    like(told, flags).map_err(&failed)
}

/// Whether completions are polled for at the devices: only then a time is not looked at that lies nowhere.
fn polls(own: &Owned) -> sys::Result<bool> {
    // struct io_uring_getevents_arg
    let argument = [0, 8, 1];
    match uring::look(own.fd(), abi::ENTER_GETEVENTS | abi::ENTER_EXT_ARG, &argument) {
        Err(Errno::EFAULT) => Ok(false),
        Ok(()) | Err(Errno::EEXIST) => Ok(true),
        Err(e) => Err(e),
    }
}

/// Whether there is an array of indices, which is not all zero.
fn has_indices(own: &Owned, params: &Params) -> sys::Result<bool> {
    let [len, _] = lengths(params);
    let memory = Mapped::new(own, abi::OFF_SQ_RING, len)?;
    let [at, count] = [params.sq_array, params.sq_entries].map(|n| n.get() as usize);
    Ok(memory.words().iter().skip(at / 4).take(count).any(|word| word.load(Ordering::Relaxed) != 0))
}

/// How a submission and a completion are listed: for a moment there is one, which nobody looks at while the process stands still.
fn listed<T: Target>(target: &mut T, file: &OpenFile, memory: &Memory, params: &Params) -> Result<Told> {
    let [submitted, tail, head, completed] =
        [params.sq_head, params.sq_tail, params.cq_head, params.cq_tail].map(|at| memory.word(at.get()));
    let [submitted, completed] = [submitted, completed].map(|word| word.load(Ordering::Relaxed));
    let was = [tail, head].map(|word| word.load(Ordering::Relaxed));
    let undo = || [tail, head].iter().zip(was).for_each(|(word, was)| word.store(was, Ordering::Relaxed));
    let fd = file.fd;
    let proc = target.at(fd);
    let look = || {
        tail.store(submitted.wrapping_add(1), Ordering::Relaxed);
        head.store(completed.wrapping_sub(1), Ordering::Relaxed);
        let told = told::read_at(proc, |_, _, _| {});
        undo();
        told
    };
    // SAFETY: `undo` makes atomic stores alone.
    unsafe { target.guarded(undo, look) }.and_then(|told| told).map_err(failed(file))
}

fn contents<T: Target>(
    save: &mut Save<'_, '_, T>,
    file: &OpenFile,
    own: &Owned,
    (offset, len): (u64, usize),
) -> Result<StrRef> {
    let memory = Mapped::new(own, offset, len).map_err(failed(file))?;
    let bytes = save.scratch.bytes(len)?;
    for (to, from) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(memory.words()) {
        *to = from.load(Ordering::Relaxed).to_le_bytes();
    }
    Ok(save.notes.string(bytes)?)
}
