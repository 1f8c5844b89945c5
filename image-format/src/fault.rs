//! What can be wrong with an image, with the place and the rule. The one error type of this crate.
//!
//! Must never carry text from the image: a hostile file does not get to write on somebody's terminal.

#[cfg(not(feature = "terse"))]
use core::fmt;

use crate::ExitCode;

/// What only messages need of a fault. The stub leaves it out, and its faults are one byte: `ckpt` names them whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail<T>(#[cfg(not(feature = "terse"))] T, #[cfg(feature = "terse")] core::marker::PhantomData<T>);

impl<T> From<T> for Detail<T> {
    #[cfg(not(feature = "terse"))]
    fn from(detail: T) -> Self {
        Self(detail)
    }

    #[cfg(feature = "terse")]
    fn from(_: T) -> Self {
        Self(core::marker::PhantomData)
    }
}

#[cfg(not(feature = "terse"))]
impl<T> Detail<T> {
    /// What it is.
    #[must_use]
    pub fn get(self) -> T {
        self.0
    }
}

/// A checksummed part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All before the first segment: headers and notes.
    Prefix,
    /// The sealing note.
    Seal,
    /// The contents of the segment at this address.
    Segment(Detail<u64>),
    /// A part of the contents with this id.
    Content(Detail<u32>),
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
    NotCore(Detail<u16>),
    /// A core that carries no checkpoint header note.
    NotCheckpoint,
    /// `e_machine`, class or byte order of another machine.
    WrongMachine(Detail<u16>),
    /// The image says that it has `need` bytes; the file has `have`.
    Truncated {
        /// Bytes that the image claims.
        need: Detail<u64>,
        /// Bytes in the file.
        have: Detail<u64>,
    },
    /// No sealing note: the writer did not finish.
    Unsealed,
    /// A checksum does not match.
    Checksum(Part),
    /// A rule of the format is broken at a byte offset of the file.
    Malformed {
        /// The rule.
        what: Detail<&'static str>,
        /// Offset in the file, in bytes.
        at: Detail<u64>,
    },
    /// A rule about addresses is broken.
    Address {
        /// The rule.
        what: Detail<&'static str>,
        /// The address.
        addr: Detail<u64>,
    },
    /// The format's major version is newer than this reader.
    Newer(Detail<u16>),
    /// Required-feature bits that this reader does not know.
    Feature(Detail<u64>),
}

impl Fault {
    /// A broken rule of the format, at this offset of the file.
    #[must_use]
    pub fn malformed(what: &'static str, at: u64) -> Self {
        Self::Malformed { what: what.into(), at: at.into() }
    }

    /// A broken rule about this address.
    #[must_use]
    pub fn address(what: &'static str, addr: u64) -> Self {
        Self::Address { what: what.into(), addr: addr.into() }
    }

    /// The image claims `need` bytes, the file has `have`.
    #[must_use]
    pub fn truncated(need: u64, have: u64) -> Self {
        Self::Truncated { need: need.into(), have: have.into() }
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

#[cfg(not(feature = "terse"))]
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match *self {
            Self::Empty => "the file is empty: it is no image",
            Self::NotElf => "not an image: the file does not begin with the ELF magic",
            Self::Compressed => "compressed with zstd: `ckpt restart` reads it; or unpack it (zstd -d)",
            Self::NotCore(kind) => {
                digits("not an image: an ELF file of type ", kind.0.into(), 10, f)?;
                ", not a core (4)"
            }
            Self::NotCheckpoint => {
                "not an image: an ELF core without a checkpoint header (written by a kernel or gcore?)"
            }
            Self::WrongMachine(machine) => {
                digits("an image of another machine (ELF machine ", machine.0.into(), 10, f)?;
                "): restart it on a box of that kind"
            }
            Self::Truncated { need, have } => {
                digits("truncated: the image has ", need.0, 10, f)?;
                digits(" bytes, the file only ", have.0, 10, f)?;
                ": copy it again"
            }
            Self::Unsealed => "not sealed: the save was not finished: use an older image",
            Self::Checksum(part) => {
                f.write_str("damaged: the checksum of ")?;
                match part {
                    Part::Prefix => f.write_str("headers and notes")?,
                    Part::Seal => f.write_str("the seal")?,
                    Part::Segment(at) => digits("the memory at 0x", at.0, 16, f)?,
                    Part::Content(id) => digits("the shared contents ", id.0.into(), 10, f)?,
                }
                " does not match: copy it again"
            }
            Self::Malformed { what, at } => {
                digits("malformed at file offset ", at.0, 10, f)?;
                f.write_str(": ")?;
                what.0
            }
            Self::Address { what, addr } => {
                digits("bad address 0x", addr.0, 16, f)?;
                f.write_str(": ")?;
                what.0
            }
            Self::Newer(version) => {
                digits("written in format ", version.0.into(), 10, f)?;
                ", newer than this program's: update it"
            }
            Self::Feature(bits) => {
                digits("needs features that this program does not know (bits 0x", bits.0, 16, f)?;
                "): update it"
            }
        };
        f.write_str(end)
    }
}

/// Writes what stands before a number, and its digits, the first one first.
#[cfg(not(feature = "terse"))]
fn digits(before: &str, number: u64, base: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if number < base { f.write_str(before) } else { digits(before, number / base, base, f) }?;
    fmt::Write::write_char(f, char::from_digit((number % base) as u32, base as u32).unwrap_or('?'))
}

#[cfg(not(feature = "terse"))]
impl core::error::Error for Fault {}
