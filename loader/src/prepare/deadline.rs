//! Moments until which threads wait, on clocks that begin anew with each boot: on another one they are moved as far as the clock.
//!
//! They lie in the program's own memory. Must never touch what others see, or what the program itself could not write.

use image_format::Checked;
use image_format::record::deadline::Deadline;
use image_format::record::memory::{Vma, VmaKind};
use sys::abi::mm::PROT_WRITE;

use crate::start::tell;

/// Whether this one can be moved.
pub fn is_movable(image: &Checked<'_>, deadline: &Deadline) -> bool {
    let at = deadline.at.get();
    let inside = |vma: &Vma| vma.start.get() <= at && at + 16 <= vma.end.get();
    let own = |vma: &Vma| vma.prot.get() & PROT_WRITE != 0 && vma.kind.get() != VmaKind::FileShared as u32;
    image.each::<Vma>().any(|vma| inside(vma) && own(vma))
}

/// Names those that cannot be moved.
pub fn warn(image: &Checked<'_>) {
    for deadline in image.each::<Deadline>().filter(|one| !is_movable(image, one)) {
        let what = "thread #: waits by the old clock, perhaps for long: ckpt restart --namespace";
        tell(2, what, deadline.tid.into(), b"", 0);
    }
}
