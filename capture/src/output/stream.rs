//! Images as a stream: a pipe, or a file behind standard output.
//!
//! Must never wait for a reader that does not come, once nobody wants the image.

use sys::Errno;
use sys::abi::POLLOUT;
use sys::fs::Fd;

/// Writes to a stream, whose reader may never come for it: what is given up must not wait there.
pub(super) fn write(fd: Fd, bytes: &[u8], given_up: Option<fn() -> bool>) -> sys::Result<()> {
    /// `PIPE_BUF`: a pipe with room for anything has room for as much.
    const PIECE: usize = 4096;
    /// How long between two questions, milliseconds.
    const PAUSE: i64 = 100;
    let Some(given_up) = given_up else { return sys::fs::write_all(fd, bytes) };
    for piece in bytes.chunks(PIECE) {
        while sys::fs::ready_within(fd, POLLOUT, PAUSE)? == 0 {
            if given_up() {
                return Err(Errno::EINTR);
            }
        }
        sys::fs::write_all(fd, piece)?;
    }
    Ok(())
}
