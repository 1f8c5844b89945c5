//! What can be wrong with an image, with the place and the rule. The one error type of this crate.
//!
//! Must never carry text from the image: a hostile file does not get to write on somebody's terminal.

use core::fmt;

use crate::ExitCode;

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
        what: &'static str,
        /// Offset in the file, in bytes.
        at: u64,
    },
    /// A rule about addresses is broken.
    Address {
        /// The rule.
        what: &'static str,
        /// The address.
        addr: u64,
    },
    /// The format's major version is newer than this reader.
    Newer(u16),
    /// Required-feature bits that this reader does not know.
    Feature(u64),
}

impl Fault {
    /// The exit code of a program that stops for this fault.
    #[must_use]
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match *self {
            Self::Empty => "the file is empty: it is no image",
            Self::NotElf => "not an image: the file does not begin with the ELF magic",
            Self::Compressed => "compressed with zstd: `ckpt restart` reads it; or unpack it (zstd -d)",
            Self::NotCore(kind) => {
                digits("not an image: an ELF file of type ", kind.into(), 10, f)?;
                ", not a core (4)"
            }
            Self::NotCheckpoint => {
                "not an image: an ELF core without a checkpoint header (written by a kernel or gcore?)"
            }
            Self::WrongMachine(machine) => {
                digits("an image of another machine (ELF machine ", machine.into(), 10, f)?;
                "): restart it on a box of that kind"
            }
            Self::Truncated { need, have } => {
                digits("truncated: the image has ", need, 10, f)?;
                digits(" bytes, the file only ", have, 10, f)?;
                ": copy it again"
            }
            Self::Unsealed => "not sealed: the save was not finished: use an older image",
            Self::Checksum(part) => {
                f.write_str("damaged: the checksum of ")?;
                match part {
                    Part::Prefix => f.write_str("headers and notes")?,
                    Part::Seal => f.write_str("the seal")?,
                    Part::Segment(at) => digits("the memory at 0x", at, 16, f)?,
                    Part::Content(id) => digits("the shared contents ", id.into(), 10, f)?,
                }
                " does not match: copy it again"
            }
            Self::Malformed { what, at } => {
                digits("malformed at file offset ", at, 10, f)?;
                f.write_str(": ")?;
                what
            }
            Self::Address { what, addr } => {
                digits("bad address 0x", addr, 16, f)?;
                f.write_str(": ")?;
                what
            }
            Self::Newer(version) => {
                digits("written in format ", version.into(), 10, f)?;
                ", newer than this program's: update it"
            }
            Self::Feature(bits) => {
                digits("needs features that this program does not know (bits 0x", bits, 16, f)?;
                "): update it"
            }
        };
        f.write_str(end)
    }
}

/// Writes what stands before a number, and its digits, the first one first: the core library's own know padding and signs,
/// which cost the stub 1 KiB.
fn digits(before: &str, number: u64, base: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if number < base { f.write_str(before) } else { digits(before, number / base, base, f) }?;
    fmt::Write::write_char(f, char::from_digit((number % base) as u32, base as u32).unwrap_or('?'))
}

impl core::error::Error for Fault {}
