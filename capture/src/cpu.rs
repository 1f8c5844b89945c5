//! What a program needs of a CPU: all that this one has, unless it was told at its start to keep to less.
//!
//! Must never claim less than what its threads show to be in use.

use image_format::record::frame::Component;
use image_format::record::header::Cpu;
use state::frame::XSTATE_BV;
use sys::fs::Fd;
use zerocopy::FromZeros;

use crate::session::Threads;

/// The environment variable by which a program is known that was started to run on other CPUs, too (`ckpt run --portable`).
pub const MARK: &str = "CKPT_PORTABLE=x86-64-v3";

/// Components that say nothing of what the program has chosen: rights by protection keys are set for everybody.
const NOBODYS: u64 = 1 << 9;

/// What this CPU offers.
#[must_use]
pub fn all() -> Cpu {
    let (words, xcr0, size) = sys::arch::cpu_features();
    Cpu { words: words.map(Into::into), xcr0: xcr0.into(), xsave_size: size.into(), reserved: 0.into() }
}

/// What a CPU must have on which the process shall go on: `all` that this one has, or less. `held`: components in use below signal
/// handlers.
#[must_use]
pub fn needed(all: Cpu, proc: Fd, threads: &impl Threads, held: u64) -> Cpu {
    let present = |i| {
        let area = threads.get(i).frame.xsave;
        let bytes = area.get(XSTATE_BV..XSTATE_BV + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let used = (0..threads.count()).map(present).fold(held, |all, one| all | one);
    // Whoever has other registers in use did not keep to it.
    if used & !(Cpu::PORTABLE_STATES | NOBODYS) == 0 && is_marked(proc) { all.portable() } else { all }
}

/// Whether the process has the mark in the environment with which it was started.
fn is_marked(proc: Fd) -> bool {
    let mark = MARK.as_bytes();
    let Ok(file) = sys::fs::open_at(proc, c"environ", sys::abi::O_RDONLY, 0) else { return false };
    let mut buffer = [0; 1024];
    // How many bytes of the mark the variable has, so far; none when it is another.
    let mut matched = Some(0);
    while let Ok(got @ 1..) = sys::fs::read(file.fd(), &mut buffer) {
        for byte in buffer.iter().take(got) {
            matched = match (*byte, matched) {
                (0, Some(len)) if len == mark.len() => return true,
                (0, _) => Some(0),
                (byte, Some(len)) if mark.get(len) == Some(&byte) => Some(len + 1),
                _ => None,
            };
        }
    }
    false
}

/// Components that XCR0 has bits for, but x87 and SSE, which have no places of their own.
const COMPONENTS: core::ops::Range<u32> = 2..63;

/// Where the components of the extended state lie on this CPU.
#[derive(Clone, Copy, Debug)]
pub struct Components {
    table: [Component; (COMPONENTS.end - COMPONENTS.start) as usize],
    count: usize,
}

impl Components {
    /// Asks the CPU, whose XCR0 this is, which may take its time: many virtual ones are asked by way of the host.
    #[must_use]
    pub fn of(xcr0: u64) -> Self {
        let mut here = Self { table: FromZeros::new_zeroed(), count: 0 };
        let known = COMPONENTS.filter(|number| xcr0 & (1 << number) != 0);
        for (slot, number) in here.table.iter_mut().zip(known) {
            let [at, len] = sys::arch::xsave_component(number);
            *slot = Component { number: number.into(), at: at.into(), len: len.into(), reserved: 0.into() };
            here.count += 1;
        }
        here
    }

    /// Bytes of an XSAVE area with these components up to the last one that debuggers know: all but AMX, whose tiles lie at the end.
    #[must_use]
    pub fn core_size(&self, xcr0: u64) -> usize {
        /// XTILECFG and XTILEDATA.
        const AMX: u64 = 0b11 << 17;
        let known = self.as_slice().iter().filter(|component| xcr0 & !AMX & (1 << component.number.get()) != 0);
        let ends = known.map(|component| (component.at.get() + component.len.get()) as usize);
        // Legacy area and header, which are always there.
        ends.max().unwrap_or(0).max(576)
    }

    /// The table.
    #[must_use]
    pub fn as_slice(&self) -> &[Component] {
        self.table.get(..self.count).unwrap_or_default()
    }
}
