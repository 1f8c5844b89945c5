//! What can be wrong with an image, with the place and the rule. The one error type of this crate.
//!
//! Must never carry text from the image: a hostile file does not get to write on somebody's terminal.

use core::fmt::{self, Write as _};

use crate::{ExitCode, Rule};

/// A checksummed part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All before the first segment: headers and notes.
    Prefix,
    /// The sealing note.
    Seal,
    /// The contents of the segment at this address.
    Segment(u64),
    /// A part of the contents with this id.
    Content(u32),
}

/// Why a file is not an image that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file has no bytes.
    Empty,
    /// The first four bytes are not ELF's.
    NotElf,
    /// A zstd stream, which the command line's tools unpack.
    Compressed,
    /// An ELF file, but no core (`e_type`).
    NotCore(u16),
    /// A core that carries no checkpoint header note.
    NotCheckpoint,
    /// `e_machine`, class or byte order of another machine.
    WrongMachine(u16),
    /// The image says that it has `need` bytes; the file has `have`.
    Truncated {
        /// Bytes that the image claims.
        need: u64,
        /// Bytes in the file.
        have: u64,
    },
    /// No sealing note: the writer did not finish.
    Unsealed,
    /// A checksum does not match.
    Checksum(Part),
    /// A rule of the format is broken at a byte offset of the file.
    Malformed {
        /// The rule.
        what: Rule,
        /// Offset in the file, in bytes.
        at: u64,
    },
    /// A rule about addresses is broken.
    Address {
        /// The rule.
        what: Rule,
        /// The address.
        addr: u64,
    },
    /// The format's major version is newer than this reader.
    Newer(u16),
    /// Required-feature bits that this reader does not know.
    Feature(u64),
}

impl Fault {
    /// A broken rule of the format, at this offset of the file.
    #[must_use]
    pub fn malformed(what: Rule, at: u64) -> Self {
        Self::Malformed { what, at }
    }

    /// A broken rule about this address.
    #[must_use]
    pub fn address(what: Rule, addr: u64) -> Self {
        Self::Address { what, addr }
    }

    /// The image claims `need` bytes, the file has `have`.
    #[must_use]
    pub fn truncated(need: u64, have: u64) -> Self {
        Self::Truncated { need, have }
    }

    /// The exit code of a program that stops for this fault.
    #[must_use]
    #[inline(never)] // So that it exists once.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Empty => ExitCode::Empty,
            Self::NotElf | Self::Compressed | Self::NotCore(_) | Self::NotCheckpoint => ExitCode::NotImage,
            Self::WrongMachine(_) => ExitCode::WrongMachine,
            Self::Truncated { .. } | Self::Unsealed => ExitCode::Truncated,
            Self::Checksum(Part::Segment(_) | Part::Content(_)) => ExitCode::DamagedMemory,
            Self::Checksum(_) => ExitCode::Damaged,
            Self::Malformed { .. } => ExitCode::Malformed,
            Self::Address { .. } => ExitCode::BadAddress,
            Self::Newer(_) | Self::Feature(_) => ExitCode::Newer,
        }
    }
}

impl Fault {
    /// What is wrong, in pieces: patterns in which `#` stands for the number in decimal, `*` for it in hexadecimal.
    pub fn tell(&self, put: &mut dyn FnMut(&'static str, u64)) {
        let (pattern, number, end) = match *self {
            Self::Empty => ("the file is empty: it is no image", 0, ""),
            Self::NotElf => ("not an image: the file does not begin with the ELF magic", 0, ""),
            Self::Compressed => ("compressed with zstd: `ckpt restart` reads it; or unpack it (zstd -d)", 0, ""),
            Self::NotCore(kind) => ("not an image: an ELF file of type #, not a core (4)", kind.into(), ""),
            Self::NotCheckpoint => {
                ("not an image: an ELF core without a checkpoint header (written by a kernel or gcore?)", 0, "")
            }
            Self::WrongMachine(machine) => {
                ("an image of another machine (ELF machine #): restart it on a box of that kind", machine.into(), "")
            }
            Self::Truncated { need, have } => {
                put("truncated: the image has # bytes", need);
                (", the file only # bytes: copy it again", have, "")
            }
            Self::Unsealed => ("not sealed: the save was not finished: use an older image", 0, ""),
            Self::Checksum(part) => {
                put("damaged: the checksum of ", 0);
                let (what, number) = match part {
                    Part::Prefix => ("headers and notes", 0),
                    Part::Seal => ("the seal", 0),
                    Part::Segment(at) => ("the memory at 0x*", at),
                    Part::Content(id) => ("the shared contents #", id.into()),
                };
                (what, number, " does not match: copy it again")
            }
            Self::Malformed { what, at } => ("malformed at file offset #: ", at, what.text()),
            Self::Address { what, addr } => ("bad address 0x*: ", addr, what.text()),
            Self::Newer(version) => ("written in format #, newer than this program's: update it", version.into(), ""),
            Self::Feature(bits) => ("needs features that this program does not know (bits 0x*): update it", bits, ""),
        };
        put(pattern, number);
        put(end, 0);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.tell(&mut |pattern, number| {
            result = result.and_then(|()| {
                pattern.chars().try_for_each(|c| match c {
                    '#' => write!(f, "{number}"),
                    '*' => write!(f, "{number:x}"),
                    other => f.write_char(other),
                })
            });
        });
        result
    }
}

impl core::error::Error for Fault {}

/// The caller's buffer is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer for headers and notes is too small")
    }
}
