//! System V objects: shared memory made, attached, asked for. What a segment holds is whoever's who attached it.

use crate::{Result, Sysno, call};

/// `IPC_RMID`.
pub const RMID: usize = 0;
/// `IPC_SET`.
pub const SET: usize = 1;
/// `IPC_STAT`.
pub const STAT: usize = 2;
/// `SHM_LOCK`.
pub const LOCK: usize = 11;
/// `IPC_CREAT | IPC_EXCL`.
pub const NEW: u32 = 0o3000;
/// `SHM_RDONLY`.
pub const RDONLY: u32 = 0o10000;
/// Bytes of `struct shmid64_ds`.
pub const FACTS: usize = 112;

/// shmget(2).
///
/// # Errors
/// The call's.
pub fn get(key: u32, size: u64, flags: u32) -> Result<i32> {
    // SAFETY: works on no memory of this process.
    unsafe { call(Sysno::shmget, [key as usize, size as usize, flags as usize]) }.map(|id| id as i32)
}

/// shmctl(2) with `struct shmid64_ds`.
///
/// # Errors
/// The call's.
pub fn control(id: i32, command: usize, facts: &mut [u8; FACTS]) -> Result<()> {
    // SAFETY: the kernel reads and writes this structure alone.
    unsafe { call(Sysno::shmctl, [id as usize, command, facts.as_mut_ptr() as usize]) }.map(drop)
}

/// shmat(2): at a place of the kernel's choice for address 0, else there, where nothing may be mapped yet.
///
/// # Errors
/// The call's.
pub fn attach(id: i32, addr: usize, flags: u32) -> Result<usize> {
    // SAFETY: the kernel replaces no mapping without `SHM_REMAP`.
    unsafe { call(Sysno::shmat, [id as usize, addr, flags as usize & !0o40000]) }
}

/// shmdt(2): ends an attachment, and nothing else.
pub fn detach(addr: usize) {
    // SAFETY: no other memory goes by it, and nothing of Rust's lies in an attachment.
    let _ = unsafe { call(Sysno::shmdt, [addr]) };
}

/// semctl(2) `GETPID`: who has changed a semaphore of a set last.
///
/// # Errors
/// The call's.
pub fn last_user(id: i32, number: u32) -> Result<i32> {
    const GETPID: usize = 11;
    // SAFETY: works on no memory.
    unsafe { call(Sysno::semctl, [id as usize, number as usize, GETPID]) }.map(|pid| pid as i32)
}

/// mincore(2): whether each page has contents.
///
/// # Errors
/// The call's.
pub fn resident(addr: usize, pages: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes one byte for each page, no more.
    unsafe { call(Sysno::mincore, [addr, pages.len() * 4096, pages.as_mut_ptr() as usize]) }.map(drop)
}
