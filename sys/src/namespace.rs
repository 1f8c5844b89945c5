//! Namespaces (namespaces(7)): made for the children of this process, and furnished by them.

use core::ffi::CStr;

use crate::child::{self, Birth};
use crate::text::Line;
use crate::{Errno, Result, Sysno, call};

bitflags::bitflags! {
    /// Kinds of namespaces (`CLONE_NEW…`, sched.h and time_namespaces(7)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Kinds: usize {
        /// Clocks, of children.
        const TIME = 0x80;
        /// Mounts, of this process.
        const MOUNT = 0x2_0000;
        /// Users and rights, of this process.
        const USER = 0x1000_0000;
        /// Process ids, of children.
        const PID = 0x2000_0000;
    }
}

/// unshare(2).
///
/// # Errors
/// EPERM: not without rights, or not allowed here; EINVAL: not known to this kernel, or, for a user namespace, this process has several
/// threads; ENOSPC: there are too many.
pub fn unshare(kinds: Kinds) -> Result<()> {
    // SAFETY: no memory is touched, and the descriptors stay as they are.
    unsafe { call(Sysno::unshare, [kinds.bits()]) }.map(drop)
}

/// In a user namespace that was just entered: this process's user and group stay what they are, and no other is known.
///
/// # Errors
/// EPERM: user 0 without `CAP_SETFCAP` outside (`verify_root_map`, kernel/user_namespace.c); the files' other errors.
pub fn map_own((user, group): (u32, u32)) -> Result<()> {
    let write = |path: &CStr, value: &[u8]| {
        crate::fs::open(path, crate::abi::O_WRONLY, 0).and_then(|file| crate::fs::write_all(file.fd(), value))
    };
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/uid_map", Line::filled("# # 1", user.into(), b"", 0).as_bytes())?;
    write(c"/proc/self/gid_map", Line::filled("# # 1", group.into(), b"", 0).as_bytes())
}

/// Whether this process may make these, and keep its user and group in a user namespace: tried in a child that ends at once.
///
/// # Errors
/// As for [`unshare`] and [`map_own`]; those of clone(2).
pub fn may_unshare(kinds: Kinds) -> Result<()> {
    // SAFETY: the child makes system calls alone, and ends: it relies on nothing that another thread may hold.
    let pid = unsafe { child::fork_as(&Birth { exit_signal: 0, ..Birth::default() }) }?;
    if pid == 0 {
        let own = (crate::process::effective_uid(), crate::process::effective_gid());
        let mapped = || if kinds.contains(Kinds::USER) { map_own(own) } else { Ok(()) };
        crate::process::exit(unshare(kinds).and_then(|()| mapped()).err().map_or(0, Errno::into_raw));
    }
    loop {
        match child::wait(pid, true) {
            Ok(Some((_, child::Change::Exited(0)))) => return Ok(()),
            Ok(Some((_, child::Change::Exited(errno)))) => return Err(Errno::new(errno.into())),
            Ok(Some((_, child::Change::Killed(_)))) => return Err(Errno::EPERM),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Mounts of this process's own namespace follow those outside, and are not followed (`MS_REC | MS_SLAVE`).
///
/// # Errors
/// mount(2)'s.
pub fn follow_mounts() -> Result<()> {
    const SLAVE: usize = 0x4000 | 0x8_0000;
    let root = c"/".as_ptr() as usize;
    // SAFETY: the kernel reads the path.
    unsafe { call(Sysno::mount, [0, root, 0, SLAVE, 0]) }.map(drop)
}

/// `/proc` of this process's own pid namespace.
///
/// # Errors
/// mount(2)'s; EPERM: parts of the one that is mounted are covered, as in a container.
pub fn mount_proc() -> Result<()> {
    /// `MS_NOSUID | MS_NODEV | MS_NOEXEC`.
    const HARMLESS: usize = 2 | 4 | 8;
    let (proc, at) = (c"proc".as_ptr() as usize, c"/proc".as_ptr() as usize);
    // SAFETY: the kernel reads the strings.
    unsafe { call(Sysno::mount, [proc, at, proc, HARMLESS, 0]) }.map(drop)
}
