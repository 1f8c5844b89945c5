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
            Self::NotElf | Self::NotCore(_) | Self::NotCheckpoint => ExitCode::NotImage,
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
        match self {
            Self::Empty => f.write_str("the file is empty: it is no image"),
            Self::NotElf => f.write_str("not an image: the file does not begin with the ELF magic"),
            Self::NotCore(t) => {
                write!(f, "not an image: an ELF file of type {}, not a core (4)", Decimal((*t).into()))
            }
            Self::NotCheckpoint => f.write_str(
                "not an image: an ELF core without a checkpoint header note (written by a kernel or gcore?)",
            ),
            Self::WrongMachine(m) => {
                let m = Decimal((*m).into());
                write!(f, "an image of another machine (ELF machine {m}): restart it on a box of that kind")
            }
            Self::Truncated { need, have } => {
                let (need, have) = (Decimal(*need), Decimal(*have));
                write!(f, "truncated: the image has {need} bytes, the file only {have}: copy it again")
            }
            Self::Unsealed => f.write_str("not sealed: the save was not finished: use an older image"),
            Self::Checksum(Part::Prefix) => {
                f.write_str("damaged: the checksum of headers and notes does not match: copy it again")
            }
            Self::Checksum(Part::Seal) => f.write_str("damaged: the seal's own checksum does not match: copy it again"),
            Self::Checksum(Part::Segment(a)) => {
                write!(f, "damaged: the checksum of the memory at 0x{} does not match: copy it again", Hex(*a))
            }
            Self::Checksum(Part::Content(id)) => {
                let id = Decimal((*id).into());
                write!(f, "damaged: the checksum of the shared contents {id} does not match: copy it again")
            }
            Self::Malformed { what, at } => {
                write!(f, "malformed at file offset {}: ", Decimal(*at))?;
                f.write_str(what)
            }
            Self::Address { what, addr } => {
                write!(f, "bad address 0x{}: ", Hex(*addr))?;
                f.write_str(what)
            }
            Self::Newer(v) => {
                write!(f, "written in format {}, newer than this program's: update it", Decimal((*v).into()))
            }
            Self::Feature(bits) => {
                write!(f, "needs features that this program does not know (bits 0x{}): update it", Hex(*bits))
            }
        }
    }
}

/// Numbers in decimal and in hexadecimal: the core library's own know padding and signs, which cost the stub 1 KiB.
struct Decimal(u64);
struct Hex(u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(self.0, 10, f)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(self.0, 16, f)
    }
}

/// Writes the digits of a number, the first one first.
fn digits(number: u64, radix: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if number >= radix {
        digits(number / radix, radix, f)?;
    }
    fmt::Write::write_char(f, char::from_digit((number % radix) as u32, radix as u32).unwrap_or('?'))
}

impl core::error::Error for Fault {}
