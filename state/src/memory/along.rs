//! Small tables of libraries that are mapped shared for reading alone, as glibc's list of character sets: their bytes are in the image,
//! too, since another machine may not have the file.
//!
//! Must never take what others write to while it is read for such a table: its bytes of long ago would be read for ever.

use image_format::Notes;
use image_format::record::memory::{Backing, BackingFlags, Vma, VmaFlags};
use sys::abi::{O_PATH, TMPFS_MAGIC};

/// The longest table, bytes: databases are the files' business.
const LONGEST: u64 = 1 << 20;

/// Whether a shared mapping is of such a table: short, of a file that has its name still, was opened for reading alone and does not lie
/// in memory, where programs exchange what they write. (At the restart the file is used where it is still the same inode.)
pub fn is_table(vma: &Vma, flags: VmaFlags, backings: &[Backing], notes: &Notes<'_>) -> bool {
    let other = (BackingFlags::CONTENT | BackingFlags::GONE).bits();
    let Some(backing) = backings.get(vma.backing.get() as usize).filter(|b| b.flags.get() & other == 0) else {
        return false;
    };
    let lies = || sys::fs::open_path(notes.kept(backing.path), O_PATH, 0).and_then(|f| sys::fs::file_system(f.fd()));
    !flags.contains(VmaFlags::MAY_WRITE)
        && vma.end.get() - vma.start.get() <= LONGEST
        && lies().is_ok_and(|system| system != TMPFS_MAGIC)
}
