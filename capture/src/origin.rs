//! What an image tells of this machine and of the save itself: all that is known before the process is stopped.
//!
//! Must never hold what the process can change.

use image_format::record::header::Cpu;
use state::{Error, Result};

use crate::cpu::{self, Components};

/// Where and when.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Random id of the image.
    pub uuid: [u8; 16],
    /// Which boot of this machine.
    pub boot_id: [u8; 16],
    /// `uname -r`.
    pub release: [u8; 64],
    /// What the CPU offers.
    pub cpu: Cpu,
    /// Where it keeps the components of the extended state.
    pub components: Components,
}

impl Origin {
    /// Of a save that begins now.
    ///
    /// # Errors
    /// No random number.
    pub fn now() -> Result<Self> {
        let mut uuid = [0; 16];
        let random = |e| Error::failed(format_args!("image"), "no random number for its id", e);
        sys::process::random(&mut uuid).map_err(random)?;
        let cpu = cpu::all();
        Ok(Self {
            uuid,
            boot_id: sys::process::boot_id(),
            release: sys::process::kernel_release(),
            cpu,
            components: Components::of(cpu.xcr0.get()),
        })
    }
}
