//! Open files that this user could not open again: whoever started the program gave them to it (`sudo -u bob job > /var/log/job`).
//! Named when the process is saved, as the restart needs `--fd N=PATH` for them, or another user.
//!
//! Must never open them, nor refuse a save for them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};

use crate::text;

/// A line for each, of these processes.
pub fn beyond(all: &BTreeSet<i32>) -> Vec<String> {
    let several = all.len() > 1;
    all.iter().flat_map(|pid| of(*pid, several)).collect()
}

fn of(pid: i32, several: bool) -> Vec<String> {
    let mut numbers: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let whose = if several { format!(" of process {pid}") } else { String::new() };
    let line = |fd| {
        let path = out_of_reach(pid, fd)?;
        let name = text::path(&path);
        Some(format!(
            "descriptor {fd}{whose} (file {name}): this user cannot open it again: the restart will need --fd {fd}=PATH"
        ))
    };
    numbers.into_iter().filter_map(line).collect()
}

/// The name of a file that this user may not open as the process has it open. Terminals are the restart's own, and what has no
/// name is carried.
fn out_of_reach(pid: i32, fd: u32) -> Option<PathBuf> {
    let link = format!("/proc/{pid}/fd/{fd}");
    let path = fs::read_link(&link).ok()?;
    let is_deleted = path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    // Most are told by their names alone: a save is made to wait for this.
    if !path.is_absolute() || is_deleted || path.starts_with("/proc") {
        return None;
    }
    let kind = fs::metadata(&link).ok()?.file_type();
    let is_reopened = kind.is_file() || kind.is_dir() || kind.is_fifo() && fd > 2;
    (is_reopened && !may(&path, wanted(flags(pid, fd)?))).then_some(path)
}

fn may(path: &Path, wanted: Access) -> bool {
    // Other errors are the save's to judge.
    accessat(CWD, path, wanted, AtFlags::EACCESS) != Err(rustix::io::Errno::ACCESS)
}

/// The flags in `/proc/PID/fdinfo/FD`, octal (proc(5)).
fn flags(pid: i32, fd: u32) -> Option<OFlags> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(OFlags::from_bits_retain(u32::from_str_radix(flags.trim(), 8).ok()?))
}

fn wanted(flags: OFlags) -> Access {
    if flags.contains(OFlags::PATH) {
        return Access::EXISTS;
    }
    match flags & OFlags::RWMODE {
        OFlags::RDWR => Access::READ_OK | Access::WRITE_OK,
        OFlags::WRONLY => Access::WRITE_OK,
        _ => Access::READ_OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_open() {
        assert_eq!(wanted(OFlags::RDONLY | OFlags::CLOEXEC), Access::READ_OK);
        assert_eq!(wanted(OFlags::WRONLY | OFlags::APPEND), Access::WRITE_OK);
        assert_eq!(wanted(OFlags::RDWR), Access::READ_OK | Access::WRITE_OK);
        assert_eq!(wanted(OFlags::PATH), Access::EXISTS);
    }

    #[test]
    fn ones_own_files_are_in_reach() {
        let own = std::process::id() as i32;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let fd = std::os::fd::AsRawFd::as_raw_fd(file.as_file()) as u32;
        assert_eq!(flags(own, fd).map(wanted), Some(Access::READ_OK | Access::WRITE_OK));
        assert_eq!(out_of_reach(own, fd), None);
    }
}
