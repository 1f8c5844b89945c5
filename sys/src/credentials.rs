//! Users, groups and capabilities of the calling thread (credentials(7), capabilities(7)).
//!
//! Each call changes this thread alone, unlike those of C libraries, which change all of a process.

use crate::{Result, Sysno, abi, call};

/// Which of a thread's ids a call means: real, effective and saved ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The user's.
    User,
    /// The group's.
    Group,
}

/// `_LINUX_CAPABILITY_VERSION_3`, and this thread.
const HEAD: [u32; 2] = [0x2008_0522, 0];

/// Sets real, effective and saved ids, and that for files.
///
/// # Errors
/// EPERM without the right; EINVAL for one that this namespace does not know.
pub fn set_ids(whose: Whose, [real, effective, saved, file]: [u32; 4]) -> Result<()> {
    let (all, one) = match whose {
        Whose::User => (Sysno::setresuid, Sysno::setfsuid),
        Whose::Group => (Sysno::setresgid, Sysno::setfsgid),
    };
    // SAFETY: no address is given.
    unsafe {
        call(all, [real, effective, saved].map(|id| id as usize))?;
        call(one, [file as usize])?;
        // It tells the old one, whether or not it has set the new one.
        if call(one, [file as usize])? as u32 == file { Ok(()) } else { Err(crate::Errno::EPERM) }
    }
}

/// Sets the supplementary groups: four bytes each.
///
/// # Errors
/// The call's.
pub fn set_groups(groups: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads as many.
    unsafe { call(Sysno::setgroups, [groups.len() / 4, groups.as_ptr() as usize]) }.map(drop)
}

/// The effective, permitted and inheritable capabilities.
///
/// # Errors
/// The call's.
pub fn capabilities() -> Result<[u64; 3]> {
    let (mut head, mut sets) = (HEAD, [0u32; 6]);
    // SAFETY: the kernel reads the head, and writes both.
    unsafe { call(Sysno::capget, [(&raw mut head) as usize, (&raw mut sets) as usize]) }?;
    let [e, p, i, e2, p2, i2] = sets.map(u64::from);
    Ok([e | e2 << 32, p | p2 << 32, i | i2 << 32])
}

/// The number of `CAP_CHECKPOINT_RESTORE` (linux/capability.h).
pub const CHECKPOINT_RESTORE: u32 = 40;

/// `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`, `CAP_FOWNER` and `CAP_FSETID`: rights over files that others have not.
pub const OVER_FILES: u64 = 0b1_1111;

/// Keeps a capability that this thread has beyond an exec (`PR_CAP_AMBIENT_RAISE`).
///
/// # Errors
/// EPERM: it has none, or ambient ones are not allowed.
pub fn keep(capability: u32) -> Result<()> {
    let [effective, permitted, inheritable] = capabilities()?;
    set_capabilities([effective, permitted, inheritable | 1 << capability])?;
    let raise = [abi::PR_CAP_AMBIENT, abi::PR_CAP_AMBIENT_RAISE, capability as usize];
    // SAFETY: numbers.
    unsafe { crate::process::prctl(raise[0], raise[1], raise[2], 0) }.map(drop)
}

/// Whether a capability is in the set that an exec keeps (`PR_CAP_AMBIENT_IS_SET`).
///
/// # Errors
/// EINVAL before Linux 4.3.
pub fn is_kept(capability: u32) -> Result<bool> {
    // SAFETY: numbers.
    unsafe { crate::process::prctl(abi::PR_CAP_AMBIENT, abi::PR_CAP_AMBIENT_IS_SET, capability as usize, 0) }
        .map(|is| is == 1)
}

/// Sets them.
///
/// # Errors
/// EPERM: more than there are.
pub fn set_capabilities(sets: [u64; 3]) -> Result<()> {
    let mut head = HEAD;
    let [low, high] = [0, 32].map(|half| sets.map(|set| (set >> half) as u32));
    let sets = [low, high];
    // SAFETY: the kernel reads both, and may write the head.
    unsafe { call(Sysno::capset, [(&raw mut head) as usize, (&raw const sets) as usize]) }.map(drop)
}
