//! Where code and data for calls inside a process go: bytes of its code that nothing uses, and free address space.
//!
//! Must never choose bytes that the program could run or read: only zeros behind the last instruction of a mapping. What a
//! saver that was killed has left is used again, but for code that a signal frame of the program may still refer to.

use state::{Error, ErrorKind, Result};
use sys::arch::{BLOCK, Boot, Code, Run};
use sys::fs::Fd;

/// Bytes that must be zero in front of the code: a program's last instruction ends where its zeros begin.
const MARGIN: usize = 32;

/// Blocks that are looked at from the end of a mapping.
const BLOCKS: usize = 4;

/// Mappings that are remembered for what killed savers have left at their ends.
const TAILS: usize = 8;

/// What the memory for data begins with.
const MAGIC: [u8; 16] = *b"ckpt calls\0\xd7\x51\x9e\x0c\x66";

/// Bytes of the memory for calls' data, behind [`MAGIC`].
pub const DATA: usize = image_format::PAGE as usize - FIRST;

/// Where calls' data begins.
const FIRST: usize = 64;

/// Room for one signal frame, bytes.
pub const FRAME: usize = 8 << 10;

/// Bytes of memory for data: calls', and the frames of two threads.
pub const LEN: usize = sys::arch::MEMORY;

const _: () = assert!(LEN == FIRST + DATA + 2 * FRAME);

/// The places.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where the code goes.
    block: u64,
    /// Checksum of what is there, and in front of it.
    sum: u64,
    /// Where the vdso lies; empty when there is none.
    vdso: (u64, u64),
    /// Where the data goes.
    pub memory: u64,
    /// The memory is there already: a saver that was killed has left it.
    pub is_mapped: bool,
    /// Code, first address and end: ours, or left by savers that were killed; elsewhere in there are zeros.
    code: [(u64, u64); TAILS],
}

impl Place {
    /// How the memory is mapped: in a way that no program has a use for (this machine reads what it may write), so that
    /// it is known again also when its saver was killed before it could be signed.
    pub const PROTECTION: u32 = sys::abi::mm::PROT_WRITE;

    /// Finds them, also while the process runs. `mem` is its memory.
    ///
    /// # Errors
    /// `/proc/PID/maps` cannot be read; no such bytes.
    pub fn find(proc: Fd, mem: Fd) -> Result<Self> {
        let failed = |e| Error::failed(format_args!("mappings"), "/proc/PID/maps cannot be read", e);
        let mut buffer = [0; 8192];
        let mut lines = sys::fs::Lines::open_at(proc, c"maps", &mut buffer).map_err(failed)?;
        let (mut best, mut left) = (None, None);
        let (mut code, mut tails, mut vdso) = ([(0, 0); TAILS], 0, (0, 0));
        let (mut last, mut gap) = (image_format::PAGE * 16, 0..0);
        while let Some(line) = lines.next_line().map_err(failed)? {
            let mut fields = sys::text::words(line);
            let range = fields.next().and_then(|f| sys::text::cut(f, b'-'));
            let Some((start, end)) = range.and_then(|(a, b)| Some((sys::text::hex(a)?, sys::text::hex(b)?))) else {
                continue;
            };
            if end > image_format::USER_END {
                continue;
            }
            if start.saturating_sub(last) > gap.end - gap.start {
                gap = last..start;
            }
            last = end;
            let perms = fields.next().unwrap_or_default();
            let name = fields.nth(3).unwrap_or_default();
            if name == b"[vdso]" {
                vdso = (start, end);
            }
            if perms.starts_with(b"r-x") && (best.is_none() || name == b"[vdso]") {
                let (block, from) = tail(mem, end);
                best = block.or(best);
                if let Some(tail) = code.get_mut(tails).filter(|_| from < end) {
                    *tail = (from, end);
                    tails += 1;
                }
            }
            let mut head = [0; MAGIC.len()];
            if name.is_empty()
                && perms == b"-w-p"
                && end - start == LEN as u64
                && sys::fs::pread_exact(mem, &mut head, start).is_ok()
                && (head == MAGIC || head == [0; MAGIC.len()])
            {
                left = Some(start);
            }
        }
        let middle = (gap.start + (gap.end - gap.start) / 2) & !(image_format::PAGE - 1);
        match best {
            Some(block) => {
                let sum = sum(mem, block);
                Ok(Self { block, sum, vdso, memory: left.unwrap_or(middle), is_mapped: left.is_some(), code })
            }
            None => Err(Error::refused(
                format_args!("executable mappings"),
                "have no bytes at their ends that nothing uses: no system call can be made inside",
                "preload libckpt.so, or save it by a call of the library",
            )
            // So it is for a moment while exec maps a program, too.
            .kind(ErrorKind::NoRoomInside)),
        }
    }

    /// Whether the place for code, which was found while the process ran, is still as it was.
    #[must_use]
    pub fn is_as_found(&self, mem: Fd) -> bool {
        sum(mem, self.block) == self.sum
    }

    /// Marks the memory as ours, for a later saver.
    pub fn sign(&self, mem: Fd) {
        let _ = sys::fs::pwrite_all(mem, &MAGIC, self.memory);
    }

    /// Where [`Boot`] goes.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.block
    }

    /// Where [`Run`] goes, and the room for its frame: of the first thread, or of another one.
    #[must_use]
    pub const fn run(&self, first: bool) -> (u64, u64) {
        let other = !first as u64;
        let code = self.block + (Boot::ROOM + other as usize * Run::ROOM) as u64;
        (code, self.memory + (FIRST + DATA) as u64 + other * FRAME as u64)
    }

    /// Where calls' data goes.
    #[must_use]
    pub const fn data(&self) -> u64 {
        self.memory + FIRST as u64
    }

    /// Puts back what was there before the code.
    pub fn restore(&self, mem: Fd) {
        let _ = sys::fs::pwrite_all(mem, &[0; BLOCK], self.block);
    }

    /// Blanks out the code in bytes that were read at `addr`.
    pub fn hide(&self, addr: u64, bytes: &mut [u8]) {
        let len = bytes.len() as u64;
        for (from, to) in self.code {
            let within = |at: u64| at.saturating_sub(addr).min(len) as usize;
            bytes.get_mut(within(from)..within(to)).unwrap_or_default().fill(0);
        }
    }

    /// Whether no thread is saved at an address: within code of ours, or the kernel's own (vdso).
    #[must_use]
    pub fn is_in_between(&self, addr: u64) -> bool {
        self.code.iter().chain([&self.vdso]).any(|(from, to)| (*from..*to).contains(&addr))
    }
}

/// Checksum of a block and of what is in front of it; 0 when it cannot be read.
fn sum(mem: Fd, block: u64) -> u64 {
    let mut bytes = [0; MARGIN + BLOCK];
    let read = sys::fs::pread_exact(mem, &mut bytes, block - MARGIN as u64);
    read.map_or(0, |()| image_format::seal::sum(&bytes))
}

/// At the end of a mapping: a block whose bytes are zero, or hold code that a killed saver has left and nothing leads to any
/// more; and where such blocks and this one begin (`end`: there are none).
fn tail(mem: Fd, end: u64) -> (Option<u64>, u64) {
    let mut tail = [0; MARGIN + BLOCKS * BLOCK];
    let from = end - tail.len() as u64;
    if sys::fs::pread_exact(mem, &mut tail, from).is_err() {
        return (None, end);
    }
    let zero = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    let mut ours = end;
    for n in 1..=BLOCKS {
        let at = tail.len() - n * BLOCK;
        let (before, from_here) = tail.split_at_mut(at);
        let (boot, runs) = from_here.split_at_mut(Boot::ROOM);
        let Some(runs) = runs.get_mut(..BLOCK - Boot::ROOM) else { break };
        for run in runs.chunks_exact_mut(Run::ROOM).filter(|run| Run::is_in(run)) {
            run.fill(0);
        }
        let is_boot = Boot::is_in(boot);
        if !(is_boot || zero(boot) && zero(runs)) {
            break;
        }
        ours = from + at as u64;
        // Code that restores registers word by word: a handler that interrupted it may still return to it.
        if !is_boot && before.last_chunk::<MARGIN>().is_some_and(|margin| zero(margin)) {
            return (Some(ours), ours);
        }
    }
    (None, ours)
}
