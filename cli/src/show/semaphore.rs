//! System V semaphores that the process was the last to use.

use image_format::record::semaphore;
use image_format::{Fault, Image};
use serde::Serialize;

/// A set of them.
#[derive(Debug, Serialize)]
pub struct Semaphores {
    /// Its id.
    pub id: u32,
    /// Its key; 0 for none.
    pub key: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// The value of each.
    pub values: Vec<u16>,
}

impl Semaphores {
    /// Those of an image.
    pub fn all(image: &Image<'_>) -> Result<Vec<Self>, Fault> {
        let set = |one: &semaphore::Semaphore| Self {
            id: one.id.get(),
            key: one.key.get(),
            mode: one.mode.get(),
            uid: one.uid.get(),
            values: semaphore::values(image.bytes(one.values).unwrap_or_default()).iter().map(|v| v.get()).collect(),
        };
        Ok(image.table::<semaphore::Semaphore>()?.iter().map(set).collect())
    }

    /// For people, on one line.
    pub fn line(&self) -> String {
        const SHOWN: usize = 16;
        let values = self.values.iter().take(SHOWN).map(u16::to_string).collect::<Vec<_>>().join(" ");
        let more =
            if self.values.len() > SHOWN { format!(" … ({} in all)", self.values.len()) } else { String::new() };
        format!("System V {} (key {:#x}, mode {:04o}, user {}): {values}{more}", self.id, self.key, self.mode, self.uid)
    }
}
