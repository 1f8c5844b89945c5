//! Whether a process is being restarted: it is no program yet, and nobody saves it.
//!
//! Told by what lies in its memory, and not by its name: the stub begins with its ELF header at an address of its own, and its data with a
//! mark; while it rebuilds the program, a copy of both lies elsewhere. `ckpt` itself has the mark alone, at the stub's address, until it executes
//! the stub.

use core::sync::atomic::{AtomicU32, Ordering};

use image_format::PAGE;
use sys::abi::mm::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use sys::fs::Fd;
use sys::text::{cut, hex, words};

/// Where the stub is linked (`linker.ld`).
pub const WINDOW: u64 = 0x3a7c_5000_0000;

/// What the mark begins with.
pub const MAGIC: [u8; 16] = *b"ckpt restart 001";

/// Its states.
const UNDER_WAY: u32 = 1;
const SUPERVISES: u32 = 2;
const DONE: u32 = 3;

/// The mark in the memory of a process that restarts a program.
#[derive(Debug)]
#[repr(C)]
pub struct Mark {
    magic: [u8; 16],
    state: AtomicU32,
    /// The program's process, for a supervisor.
    program: AtomicU32,
}

impl Mark {
    /// Of a restart that is under way.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it is a static")]
    pub const fn new() -> Self {
        Self { magic: MAGIC, state: AtomicU32::new(UNDER_WAY), program: AtomicU32::new(0) }
    }

    /// This process supervises the program, which is another one.
    pub fn supervises(&self, program: i32) {
        self.program.store(program.cast_unsigned(), Ordering::Relaxed);
        self.state.store(SUPERVISES, Ordering::Release);
    }

    /// This process is the program from now on.
    pub fn done(&self) {
        self.state.store(DONE, Ordering::Release);
    }
}

/// Marks this process, where the stub would be; none where something else lies there.
#[must_use]
pub fn announce() -> Option<&'static Mark> {
    let how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping; the kernel refuses to replace anything.
    let at = unsafe { sys::memory::map(WINDOW as usize, PAGE as usize, PROT_READ | PROT_WRITE, how, -1, 0) };
    let at = at.ok().filter(|at| *at as u64 == WINDOW)? as *mut Mark;
    // SAFETY: just mapped, aligned, and never unmapped.
    unsafe {
        at.write(Mark::new());
        Some(&*at)
    }
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A program.
    Program,
    /// One that is being restarted.
    Restarting,
    /// The supervisor of a program with this id, as it sees that itself.
    Supervisor(i32),
}

impl Part {
    /// Of the process with this directory in `/proc`.
    #[must_use]
    pub fn of(proc: Fd) -> Self {
        let Ok(memory) = sys::fs::open_at(proc, c"mem", sys::abi::O_RDONLY, 0) else { return Self::Program };
        if let Some(part) = mark_at(memory.fd(), WINDOW) {
            return part;
        }
        // While memory is rebuilt the copy of the stub lies where there is room. Who does that has this name; others may have it, too.
        let mut name = [0; 32];
        let name = sys::fs::read_file_at(proc, c"comm", &mut name).unwrap_or_default();
        if name.trim_ascii_end() != NAME.strip_suffix(b"\0").unwrap_or_default() {
            return Self::Program;
        }
        copy(proc, memory.fd()).unwrap_or(Self::Program)
    }
}

/// The name of a process that is being restarted, until the program's own takes its place.
pub const NAME: [u8; 16] = *b"ckpt-restarting\0";

/// What the marks of copies of the stub say, if there are any: those of earlier restarts may be left, with threads that have not gone on yet.
fn copy(proc: Fd, memory: Fd) -> Option<Part> {
    let mut buffer = [0; 4096];
    let mut lines = sys::fs::Lines::open_at(proc, c"maps", &mut buffer).ok()?.pass_long();
    let mut last = None;
    while let Ok(Some(line)) = lines.next_line() {
        let mut fields = words(line);
        let start = fields.next().and_then(|range| cut(range, b'-')).and_then(|(start, _)| hex(start));
        let executable = fields.next().is_some_and(|access| access.contains(&b'x'));
        let found = start.filter(|_| executable).and_then(|start| mark_at(memory, start));
        match found {
            Some(Part::Restarting) => return found,
            Some(_) => last = found,
            None => {}
        }
    }
    last
}

/// What the mark at an address says, or that of a stub whose ELF header lies there.
fn mark_at(memory: Fd, at: u64) -> Option<Part> {
    /// Bytes of the header and two program headers.
    const HEADERS: usize = 64 + 2 * 56;
    /// Where the program headers have their addresses.
    const ADDRESSES: [usize; 2] = [64 + 16, 64 + 56 + 16];
    let mut headers = [0; HEADERS];
    sys::fs::pread_exact(memory, &mut headers, at).ok()?;
    if headers.starts_with(&MAGIC) {
        return part(memory, at);
    }
    let [text, data] =
        ADDRESSES.map(|at| headers.get(at..).and_then(|bytes| bytes.first_chunk()).map(|b| u64::from_le_bytes(*b)));
    if !headers.starts_with(b"\x7fELF") || text != Some(WINDOW) {
        return None;
    }
    part(memory, at.checked_add(data?.checked_sub(WINDOW)?)?)
}

fn part(memory: Fd, at: u64) -> Option<Part> {
    let mut bytes = [0; size_of::<Mark>()];
    sys::fs::pread_exact(memory, &mut bytes, at).ok()?;
    let word = |at: usize| bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_le_bytes(*b));
    match (bytes.starts_with(&MAGIC), word(16)?, word(20)?) {
        (true, UNDER_WAY, _) => Some(Part::Restarting),
        (true, SUPERVISES, program) => Some(Part::Supervisor(program.cast_signed())),
        (true, DONE, _) => Some(Part::Program),
        _ => None,
    }
}
