//! System V objects: shared memory made, attached, asked for; semaphores. What a segment holds is whoever's who attached it.

use crate::{Errno, Result, Sysno, call};

/// What shmctl(2) and semctl(2) do with a structure of facts, of these sizes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(usize);

impl Command {
    /// The command's number, for a call that is made elsewhere.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0
    }
}

/// What semctl(2) tells of one semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact(usize);

/// `IPC_RMID`.
pub const RMID: Command = Command(0);
/// `IPC_SET`.
pub const SET: Command = Command(1);
/// `IPC_STAT`.
pub const STAT: Command = Command(2);
/// `SHM_LOCK`.
pub const LOCK: Command = Command(11);
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
pub fn control(id: i32, command: Command, facts: &mut [u8; FACTS]) -> Result<()> {
    // SAFETY: the kernel reads and writes this structure alone.
    unsafe { call(Sysno::shmctl, [id as usize, command.0, facts.as_mut_ptr() as usize]) }.map(drop)
}

/// shmat(2): at a place of the kernel's choice for address 0, else there, where nothing may be mapped yet.
///
/// # Errors
/// The call's.
pub fn attach(id: i32, addr: usize, flags: u32) -> Result<usize> {
    // SAFETY: the kernel replaces no mapping without `SHM_REMAP`.
    unsafe { call(Sysno::shmat, [id as usize, addr, flags as usize & !0o40000]) }
}

/// What semctl(2) tells of one semaphore of a set: `GETPID`, who has used it last.
pub const PID: Fact = Fact(11);
/// `GETVAL`.
pub const VALUE: Fact = Fact(12);
/// Bytes of `struct semid64_ds`.
pub const SET_FACTS: usize = 104;

/// semctl(2) on one semaphore: [`PID`] or [`VALUE`].
///
/// # Errors
/// The call's.
pub fn semaphore(id: i32, number: usize, fact: Fact) -> Result<i32> {
    // SAFETY: works on no memory.
    unsafe { call(Sysno::semctl, [id as usize, number, fact.0]) }.map(|value| value as i32)
}

/// semctl(2) `GETALL`: the values of a set, at one moment. Ids do not come again soon, and a set keeps its number of semaphores.
///
/// # Errors
/// The call's; EINVAL when the set has another number of semaphores.
pub fn values(id: i32, to: &mut [u16]) -> Result<()> {
    const ALL: usize = 13;
    check_count(id, to.len())?;
    // SAFETY: the kernel writes a number for each semaphore.
    unsafe { call(Sysno::semctl, [id as usize, 0, ALL, to.as_mut_ptr() as usize]) }.map(drop)
}

/// semctl(2) `SETALL`: all values at once, two bytes each. This process is the last user of all of them then.
///
/// # Errors
/// The call's; EINVAL when the set has another number of semaphores.
pub fn set_values(id: i32, values: &[u8]) -> Result<()> {
    const ALL: usize = 17;
    check_count(id, values.len() / 2)?;
    // SAFETY: the kernel reads a number for each semaphore.
    unsafe { call(Sysno::semctl, [id as usize, 0, ALL, values.as_ptr() as usize]) }.map(drop)
}

/// The kernel goes by the set's number of semaphores, whatever room there is.
fn check_count(id: i32, expected: usize) -> Result<()> {
    const COUNT: usize = 80;
    let mut facts = [0; SET_FACTS];
    set_control(id, STAT, &mut facts)?;
    let count = facts.get(COUNT..).and_then(|rest| rest.first_chunk()).map(|count| u64::from_le_bytes(*count));
    if count == Some(expected as u64) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// semctl(2) with `struct semid64_ds`: [`STAT`], [`SET`], [`RMID`].
///
/// # Errors
/// The call's.
pub fn set_control(id: i32, command: Command, facts: &mut [u8; SET_FACTS]) -> Result<()> {
    // SAFETY: the kernel reads and writes this structure alone.
    unsafe { call(Sysno::semctl, [id as usize, 0, command.0, facts.as_mut_ptr() as usize]) }.map(drop)
}

/// semctl(2) `SEM_INFO`: the highest place of a set in the namespace's table, and how many sets there are.
///
/// # Errors
/// The call's.
pub fn sets() -> Result<(usize, usize)> {
    const INFO: usize = 19;
    const SETS: usize = 7;
    let mut facts = [0u32; 10];
    // SAFETY: the kernel fills `struct seminfo`, ten numbers.
    let top = unsafe { call(Sysno::semctl, [0, 0, INFO, facts.as_mut_ptr() as usize]) }?;
    Ok((top, facts.get(SETS).map_or(0, |sets| *sets as usize)))
}

/// semctl(2) `SEM_STAT_ANY`: the set at a place of that table, which any user may read.
///
/// # Errors
/// There is none, or the call's.
pub fn set_at(place: usize, facts: &mut [u8; SET_FACTS]) -> Result<i32> {
    const STAT_ANY: usize = 20;
    // SAFETY: the kernel fills this structure alone.
    unsafe { call(Sysno::semctl, [place, 0, STAT_ANY, facts.as_mut_ptr() as usize]) }.map(|id| id as i32)
}

/// semget(2).
///
/// # Errors
/// The call's.
pub fn get_set(key: u32, count: u64, flags: u32) -> Result<i32> {
    // SAFETY: works on no memory of this process.
    unsafe { call(Sysno::semget, [key as usize, count as usize, flags as usize]) }.map(|id| id as i32)
}

/// Makes this process the last user of a semaphore, whose value stays: by semop(2), once down and up again in one call, or, where
/// it is 0, by waiting for that. No undo is recorded for it, and no process's undo is lost.
///
/// # Errors
/// The call's: nothing was done.
pub fn use_semaphore(id: i32, number: u16) -> Result<()> {
    const NOWAIT: u16 = 0o4000;
    // struct sembuf
    let (down, up, zero) = ([number, u16::MAX, NOWAIT], [number, 1, NOWAIT], [number, 0, NOWAIT]);
    let try_by = |operations: &[[u16; 3]]| {
        // SAFETY: the kernel reads these operations alone.
        unsafe { call(Sysno::semop, [id as usize, operations.as_ptr() as usize, operations.len()]) }.map(drop)
    };
    match try_by(&[zero]) {
        Err(Errno::EAGAIN) => try_by(&[down, up]),
        result => result,
    }
}

/// mincore(2): whether each page has contents.
///
/// # Errors
/// The call's.
pub fn resident(addr: usize, pages: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes one byte for each page, no more.
    unsafe { call(Sysno::mincore, [addr, pages.len() * 4096, pages.as_mut_ptr() as usize]) }.map(drop)
}
