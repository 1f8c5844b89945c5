//! The descriptors that are ours, and must not outlive their use: the program would find them.

use super::{Fd, close};

/// A descriptor that is closed when it goes out of scope.
#[derive(Debug)]
pub struct Owned(Fd);

impl Owned {
    /// Takes the responsibility for a descriptor.
    #[must_use]
    pub const fn new(fd: Fd) -> Self {
        Self(fd)
    }

    /// The number.
    #[must_use]
    pub const fn fd(&self) -> Fd {
        self.0
    }

    /// Gives the responsibility away.
    #[must_use]
    pub const fn release(self) -> Fd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        close(self.0);
    }
}
