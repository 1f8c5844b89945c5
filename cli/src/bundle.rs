//! A bundle: the restart stub, and behind it an image, in one executable. The stub finds the image by `e_flags` of its own ELF header
//! (`loader/src/prepare/input.rs`), which means nothing to anybody else on x86-64.
//!
//! Must never take another program for one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use image_format::{PAGE, align_up};

/// Bytes of an ELF header.
const HEADER: usize = 64;

/// Where `e_type` and `e_flags` are in it.
const E_TYPE: usize = 16;
const E_FLAGS: usize = 48;

/// `ET_EXEC`, as the stub is.
const ET_EXEC: [u8; 2] = [2, 0];

/// Where the image begins in a file: 0, or behind the stub of a bundle.
pub fn start(file: &File) -> io::Result<u64> {
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    let is_program = header.starts_with(b"\x7fELF") && header.get(E_TYPE..E_TYPE + 2) == Some(&ET_EXEC);
    let flags = header.get(E_FLAGS..E_FLAGS + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let start = u64::from(flags);
    let is_bundle = is_program && start.is_multiple_of(PAGE) && start < file.metadata()?.len();
    Ok(if is_bundle { start } else { 0 })
}

/// Whether this path leads to a bundle; what cannot be opened is none.
pub fn is_one(path: &Path) -> bool {
    File::open(path).and_then(|file| start(&file)).is_ok_and(|start| start != 0)
}

/// What stands in front of the image: the stub, up to the next page, which says where that is.
pub fn front(mut stub: Vec<u8>) -> Option<Vec<u8>> {
    let start = align_up(stub.len() as u64, PAGE);
    stub.resize(usize::try_from(start).ok()?, 0);
    stub.get_mut(E_FLAGS..E_FLAGS + 4)?.copy_from_slice(&u32::try_from(start).ok()?.to_le_bytes());
    Some(stub)
}
