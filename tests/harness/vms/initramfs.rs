//! An initramfs: a cpio archive ("newc"), written by hand, as it is no more than headers in hexadecimal.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// What the kernel unpacks as the first file system of a virtual machine.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// Types of entries (`S_IFMT`).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    /// A directory; its parents must be there.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, DIRECTORY | permissions, (0, 0), b"");
    }

    /// A file with these bytes.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, REGULAR | permissions, (0, 0), contents);
    }

    /// A copy of one of the host's files.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn copy(&mut self, path: &str, permissions: u32, from: &Path) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
        let (contents, time) = (fs::read(from).map_err(named)?, fs::metadata(from).map_err(named)?.mtime());
        self.timed_entry(path, REGULAR | permissions, (0, 0), &contents, u32::try_from(time).unwrap_or(0));
        Ok(())
    }

    /// The same with the directories above it, for everybody to run.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn bring(&mut self, path: &str, from: &Path) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.directory(&path[..end], 0o755);
        }
        self.copy(path, 0o755, from)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entry(path, LINK | 0o777, (0, 0), to.as_bytes());
    }

    /// A character device.
    pub fn device(&mut self, path: &str, permissions: u32, number: (u32, u32)) {
        self.entry(path, CHARACTER | permissions, number, b"");
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.timed_entry(path, mode, device, contents, 0);
    }

    fn timed_entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8], time: u32) {
        self.entries += 1;
        let path = path.trim_start_matches('/');
        // Inode, mode, uid, gid, links, time, size, device of the file system (2), device (2), length of the name, checksum.
        let size = contents.len() as u32;
        let name = path.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, time, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }
}
