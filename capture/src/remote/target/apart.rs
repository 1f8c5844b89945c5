//! What a fork leaves out: memory marked `MADV_DONTFORK`, what memory marked `MADV_WIPEONFORK` holds, and that memory is locked. It is read
//! while the process stands still, and the copy gets it afterwards.
//!
//! Must never let a copy pass for the process that lacks something of it.

use core::ops::Range;
use std::vec;
use std::vec::Vec;

use state::memory::head;
use sys::fs::{Fd, Owned};
use sys::text::words;
use sys::{Errno, Sysno};

use crate::pages::Scanner;
use crate::remote::copy::Copy;
use crate::remote::place::Place;

/// Most bytes of such memory that are copied while the process stands still.
const MOST: u64 = 16 << 20;

/// Why there is no such copy.
const UNREAD: &str = "what is left out of its copies (MADV_DONTFORK) cannot be read";

/// What a copy of a process lacks.
#[derive(Debug)]
pub struct Apart {
    /// What `/proc/PID/smaps` told of the process itself.
    smaps: Owned,
    /// Mappings that the copy does not have.
    mappings: Vec<Range<u64>>,
    /// Addresses, and what is there.
    pages: Vec<(u64, Vec<u8>)>,
}

impl Apart {
    /// Reads it of a process that stands still; or says why it must go on standing still.
    pub fn read(proc: Fd, mem: Fd) -> Result<Self, &'static str> {
        Self::of(proc, mem).map_err(|why| why.unwrap_or(UNREAD))
    }

    fn of(proc: Fd, mem: Fd) -> Result<Self, Option<&'static str>> {
        let text = all_of(proc).map_err(|_| None)?;
        let smaps = sys::process::memfd(c"smaps", 0).map_err(|_| None)?;
        sys::fs::pwrite_all(smaps.fd(), &text, 0).map_err(|_| None)?;
        let mut apart = Self { smaps, mappings: Vec::new(), pages: Vec::new() };
        let mut scanner = Scanner::open(proc).map_err(|_| None)?;
        let (mut open, mut bytes) = (None, 0);
        for line in text.split(|byte| *byte == b'\n') {
            let Some(flags) = line.strip_prefix(b"VmFlags:") else {
                open = head(line).or(open);
                continue;
            };
            let has = |flag: &[u8; 2]| words(flags).any(|word| word == flag);
            let (is_lacking, is_wiped) = (has(b"dc"), has(b"wf") && !has(b"dp"));
            let Some(mapping) = open.take().filter(|_| is_lacking || is_wiped) else { continue };
            let is_plain = mapping.name.is_empty() || mapping.name.starts_with(b"[");
            if !is_plain || mapping.perms.last() != Some(&b'p') {
                return Err(Some("it has mappings of files that are left out of copies (MADV_DONTFORK)"));
            }
            if is_lacking {
                apart.mappings.push(mapping.start..mapping.end);
            }
            let mut found = Vec::new();
            let mut is_guarded = false;
            let mut note = |from, to, guard| {
                found.push(from..to);
                is_guarded |= guard;
                Ok(())
            };
            scanner.scan(mapping.start, mapping.end, &mut note).map_err(|_| None)?;
            if is_guarded {
                return Err(Some("it has guard regions in memory that is left out of copies (MADV_DONTFORK)"));
            }
            for part in found {
                bytes += part.end - part.start;
                if bytes > MOST {
                    return Err(Some("it has too much memory that is left out of copies (MADV_DONTFORK)"));
                }
                let mut held = vec![0; (part.end - part.start) as usize];
                sys::fs::pread_exact(mem, &mut held, part.start).map_err(|_| None)?;
                apart.pages.push((part.start, held));
            }
        }
        Ok(apart)
    }

    /// Gives it to the copy.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give(&self, copy: &Copy, place: &Place) -> sys::Result<()> {
        use sys::abi::mm::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
        let prot = (PROT_READ | PROT_WRITE) as usize;
        let how = (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE) as usize;
        for range in &self.mappings {
            let (start, len) = (range.start as usize, (range.end - range.start) as usize);
            let at = copy.call(place, Sysno::mmap, [start, len, prot, how, usize::MAX, 0])?;
            if at != start {
                return Err(Errno::EEXIST);
            }
        }
        self.pages.iter().try_for_each(|(at, held)| sys::fs::pwrite_all(copy.mem(), held, *at))
    }

    /// What smaps told, from the beginning.
    ///
    /// # Errors
    /// The kernel's.
    pub fn smaps(&self) -> sys::Result<Owned> {
        sys::fs::seek(self.smaps.fd(), 0, sys::abi::SEEK_SET)?;
        sys::fs::duplicate(self.smaps.fd())
    }
}

/// All that smaps tells.
fn all_of(proc: Fd) -> sys::Result<Vec<u8>> {
    const PIECE: usize = 1 << 16;
    let file = sys::fs::open_at(proc, c"smaps", sys::abi::O_RDONLY, 0)?;
    let (mut text, mut filled) = (Vec::new(), 0);
    loop {
        text.resize(filled + PIECE, 0);
        let read = sys::fs::read(file.fd(), text.get_mut(filled..).unwrap_or_default())?;
        filled += read;
        if read == 0 {
            text.truncate(filled);
            return Ok(text);
        }
    }
}
