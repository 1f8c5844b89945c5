//! Who owns what a restart makes again, and who may do what with it.
//!
//! Must never take a right that the restart has not: what cannot be given is said, and stays the restart's own.

use image_format::Checked;
use sys::fs::Fd;
use sys::text::Line;

/// Gives a new file the owner and the group that the old one had.
///
/// # Errors
/// It cannot be looked at.
pub fn restore(image: &Checked<'_>, fd: Fd, uid: u32, gid: u32) -> sys::Result<()> {
    let now = sys::fs::fstat(fd)?;
    if (now.uid, now.gid) == (uid, gid) {
        return Ok(());
    }
    let given = sys::fs::chown(fd, uid, gid);
    // What another user restarts is that user's, as the process is.
    if let Err(e) = given.as_ref().map_err(|e| e.into_raw())
        && image.header().uid.get() == sys::process::effective_uid()
    {
        let said = "restart-stub: what belonged to user # is this user's now: its owner cannot be given again (!)\n";
        let _ = sys::fs::write_all(2, Line::filled(said, uid.into(), b"", e).as_bytes());
    }
    Ok(())
}
