//! Guard regions: installed again when all memory has its contents.

use image_format::record::guard::Guard;
use image_format::record::memory::Vma;
use image_format::writer::Full;
use image_format::{Checked, ExitCode, PAGE};
use sys::Errno;
use sys::abi::mm::{MADV_GUARD_INSTALL, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};

use crate::{Result, Save, Target, restart};

/// A growing list of regions in a fixed table.
#[derive(Debug)]
pub struct Guards<'b> {
    table: &'b mut [Guard],
    count: usize,
}

impl<'b> Guards<'b> {
    /// An empty list with room for as many regions as `table` is long.
    #[must_use]
    pub fn new(table: &'b mut [Guard]) -> Self {
        Self { table, count: 0 }
    }

    /// The regions, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[Guard] {
        self.table.get(..self.count).unwrap_or_default()
    }

    /// Appends a region of a mapping, joined to the last one of the same mapping where they touch.
    ///
    /// # Errors
    /// No room.
    pub fn push(&mut self, vma: &Vma, start: u64, end: u64) -> Result<(), Full> {
        let last = self.count.checked_sub(1).and_then(|i| self.table.get_mut(i));
        if let Some(last) = last.filter(|last| last.end.get() == start && last.start >= vma.start) {
            last.end = end.into();
            return Ok(());
        }
        *self.table.get_mut(self.count).ok_or(Full)? = Guard { start: start.into(), end: end.into() };
        self.count += 1;
        Ok(())
    }
}

/// Writes the table.
///
/// # Errors
/// No room.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>, guards: &Guards<'_>) -> Result<()> {
    save.notes.table(guards.as_slice())?;
    Ok(())
}

/// Whether this kernel can have the image's regions.
///
/// # Errors
/// It is older than Linux 6.13.
pub fn check(image: &Checked<'_>) -> restart::Result<()> {
    if image.each::<Guard>().next().is_none() {
        return Ok(());
    }
    let how = MAP_PRIVATE | MAP_ANONYMOUS;
    // SAFETY: a new page at a free place, which nobody uses, and which is given back.
    let tried = unsafe {
        sys::memory::map(0, PAGE as usize, PROT_READ | PROT_WRITE, how, -1, 0).and_then(|page| {
            let tried = sys::memory::advise(page, PAGE as usize, MADV_GUARD_INSTALL);
            sys::memory::unmap(page, PAGE as usize).and(tried)
        })
    };
    tried.map_err(|e| {
        restart::Error::about(
            ExitCode::Kernel,
            "guard regions: are not known to this kernel (!): use Linux 6.13 or newer",
            0u32,
            b"",
            e,
        )
    })
}

/// Installs one.
///
/// # Errors
/// The kernel's.
pub fn restore(guard: &Guard) -> sys::Result<()> {
    let (start, len) = (guard.start.get(), guard.end.get() - guard.start.get());
    // SAFETY: the region had no contents at the save, and is the program's.
    match unsafe { sys::memory::advise(start as usize, len as usize, MADV_GUARD_INSTALL) } {
        // A signal, or memory that is wanted elsewhere: the kernel has done a part.
        Err(Errno::EINTR | Errno::EAGAIN) => restore(guard),
        other => other,
    }
}
