//! What this kernel, this CPU and this user's limits must allow.

use crate::heap;
use image_format::record::frame::Component;
use image_format::{Checked, ExitCode};
use loader::limits;
use loader::options::Options;
use state::frame::{FIXED, Move, Xstate};
use state::restart::{Error, Result};
use sys::abi::{AT_FDCWD, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_SIGPENDING, RLIMIT_STACK};
use sys::text::{cut, hex, words};

/// A mapping of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether it is the kernel's.
    pub special: bool,
    /// Whether it is the kernel's code.
    pub code: bool,
}

/// Components of the extended state besides the first two: CPUs have seven without AMX.
const COMPONENTS: usize = 12;

/// Where the components of saved extended states go.
#[derive(Clone, Copy, Debug)]
pub struct Components {
    /// Those that are given back.
    pub features: u64,
    /// Bytes of an area.
    pub len: u32,
    /// The places.
    pub moves: [Move; COMPONENTS],
}

impl Components {
    /// The same for the frames.
    pub fn as_xstate(&self) -> Xstate<'_> {
        Xstate { features: self.features, len: self.len, moves: &self.moves }
    }
}

/// Mappings that this process may have: it has about a dozen.
const OWN_MAX: usize = 64;

/// CPU, rights and limits.
///
/// # Errors
/// The first that is lacking.
pub fn check(image: &Checked<'_>, options: &Options<'_>) -> Result<()> {
    if !options.any_cpu {
        limits::cpu(image, Err)?;
    }
    limits::system(image, Err)
}

/// What becomes of the extended state in full frames and those of signal handlers: each component goes to where this CPU has it. What it has no
/// place for is lost, where the user asked for that.
pub fn xstate(image: &Checked<'_>) -> Components {
    /// Which no image has in use.
    const AMX: u64 = 0b111 << 17;
    let (_, xcr0, _) = sys::arch::cpu_features();
    let mut here = Components { features: 0b11, len: FIXED as u32, moves: [Move::default(); COMPONENTS] };
    let mut places = here.moves.iter_mut();
    for component in image.each::<Component>() {
        let number = component.number.get();
        let (bit, [to, len]) = (1 << (number & 63), sys::arch::xsave_component(number));
        // AMX's tiles are longer than a frame.
        if bit & xcr0 & !AMX != 0
            && len == component.len.get()
            && let Some(place) = places.next()
        {
            *place = Move { bit, from: component.at.get(), to, len };
            here.features |= bit;
            here.len = here.len.max(to + len);
        }
    }
    here
}

/// Mappings of this process.
///
/// # Errors
/// `/proc` is not there.
#[inline(never)] // For its buffer.
pub fn own_mappings() -> Result<&'static [Own]> {
    let failed = |e| Error::about(ExitCode::Kernel, "/proc/self/maps: cannot be read (!): mount /proc", 0u32, b"", e);
    let mut buffer = [0; OWN_MAX * 128];
    let text = sys::fs::read_file_at(AT_FDCWD, c"/proc/self/maps", &mut buffer).map_err(failed)?;
    if text.len() == OWN_MAX * 128 {
        return Err(failed(sys::Errno::E2BIG));
    }
    let list = heap::list(OWN_MAX, Own::default())?;
    let mut places = list.iter_mut();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = words(line);
        let Some((start, end)) = fields.next().and_then(|f| cut(f, b'-')) else { continue };
        let (Some(start), Some(end)) = (hex(start), hex(end)) else { continue };
        let name = fields.nth(4).unwrap_or_default();
        let code = name == b"[vdso]";
        if end <= image_format::USER_END {
            *places.next().ok_or(sys::Errno::E2BIG).map_err(failed)? =
                Own { start, end, special: code || name.starts_with(b"[vvar"), code };
        }
    }
    let unused = places.len();
    Ok(list.get(..OWN_MAX - unused).unwrap_or_default())
}

/// Raises the soft limits that the restart itself could meet before the program's own are set: it is built under the
/// hard ones.
pub fn raise_limits() {
    for resource in [RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING] {
        if let Ok(mut limit) = sys::process::rlimit(resource) {
            limit.soft = limit.hard;
            let _ = sys::process::set_rlimit(resource, &limit);
        }
    }
}
