//! An image as a restart will see it: whoever ends a process for an image must know that this is one.
//!
//! Must never be a rule of its own: what is checked is what a restart checks before it begins.

use std::vec;
use std::vec::Vec;

use image_format::reader::PROBE_LEN;
use image_format::{Fault, Image, Need, check as rules};
use state::{Error, Result};
use sys::Errno;
use sys::fs::Fd;
use zerocopy::IntoBytes;

/// Checks the headers, notes and seal of an image.
///
/// # Errors
/// They break a rule.
pub fn check(prefix: &[u8], file_len: u64, seal: &[u8]) -> core::result::Result<(), Fault> {
    let image = Image::parse(prefix, file_len)?;
    image.check_seal(seal)?;
    rules::records(&image)
}

/// The image breaks a rule: nothing is lost by that.
pub fn refused(fault: Fault) -> Error {
    Error::refused(
        format_args!("the image ({fault})"),
        "could not be restarted",
        "the process goes on; tell the authors of ckpt",
    )
}

/// Checks an image that was written, and those inside it.
///
/// # Errors
/// It cannot be read, or breaks a rule.
pub fn check_file(file: Fd, failed: impl Fn(Errno) -> Error) -> Result<()> {
    let len = sys::fs::fstat(file).map_err(&failed)?.size as u64;
    let mut parts = vec![(0, len)];
    while let Some((base, len)) = parts.pop() {
        let read = |at: u64, bytes: u64| -> Result<Vec<u64>> {
            let bytes = usize::try_from(bytes).map_err(|_| failed(Errno::EFBIG))?;
            let mut words = vec![0u64; bytes.div_ceil(8)];
            let to = words.as_mut_bytes().get_mut(..bytes).unwrap_or_default();
            sys::fs::pread_exact(file, to, base + at).map_err(&failed)?;
            Ok(words)
        };
        let first = read(0, len.min(PROBE_LEN as u64))?;
        let need = Need::probe(first.as_bytes(), len).map_err(refused)?;
        let prefix = read(0, need.prefix_len)?;
        let prefix = prefix.as_bytes().get(..need.prefix_len as usize).unwrap_or_default();
        let image = Image::parse(prefix, len).map_err(refused)?;
        image.check_inherited(base).map_err(refused)?;
        let (at, seal_len) = image.seal_span();
        let seal = read(at, seal_len)?;
        check(prefix, len, seal.as_bytes().get(..seal_len as usize).unwrap_or_default()).map_err(refused)?;
        parts.extend(image.processes().map(|part| (base + part.offset, part.len)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image_format::ExitCode;

    use super::*;

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(check(&[0; 4096], 4096, &[0; 64]).is_err());
        let file = sys::process::memfd(c"image", 0).unwrap();
        sys::fs::pwrite_all(file.fd(), &[0; 8192], 0).unwrap();
        let failed = |e| Error::failed(format_args!("file"), "cannot be read", e);
        let refused = check_file(file.fd(), failed).unwrap_err();
        assert_eq!(refused.exit_code(), ExitCode::SaveFailed);
    }
}
