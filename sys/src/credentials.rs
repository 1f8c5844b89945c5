//! Users, groups and capabilities of the calling thread (credentials(7), capabilities(7)).
//!
//! Each call changes this thread alone, unlike those of C libraries, which change all of a process.

use crate::{Result, Sysno, call};

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

/// Sets them.
///
/// # Errors
/// EPERM: more than there are.
pub fn set_capabilities(sets: [u64; 3]) -> Result<()> {
    let (mut head, [e, p, i]) = (HEAD, sets);
    let sets = [e, p, i, e >> 32, p >> 32, i >> 32].map(|set| set as u32);
    // SAFETY: the kernel reads both, and may write the head.
    unsafe { call(Sysno::capset, [(&raw mut head) as usize, (&raw const sets) as usize]) }.map(drop)
}
