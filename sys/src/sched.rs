//! Scheduling of threads: policy, nice value, CPUs, I/O priority.

use crate::{Result, Sysno, call};

/// Bytes of the first version of `struct sched_attr` (include/uapi/linux/sched/types.h).
pub const ATTR_LEN: usize = 48;

/// Words of a set of all CPUs that a kernel for x86 may know.
pub const CPU_WORDS: usize = 128;

/// `IOPRIO_WHO_PROCESS`: one thread.
const ONE: usize = 1;

/// sched_getattr(2) of a thread; 0 for the calling one.
///
/// # Errors
/// The call's.
pub fn attr(tid: i32) -> Result<[u8; ATTR_LEN]> {
    let mut attr = [0; ATTR_LEN];
    // SAFETY: the kernel writes at most as many bytes as the length argument says.
    unsafe { call(Sysno::sched_getattr, [tid as usize, attr.as_mut_ptr() as usize, ATTR_LEN, 0]) }?;
    Ok(attr)
}

/// sched_setattr(2) of the calling thread. The first four bytes must be [`ATTR_LEN`].
///
/// # Errors
/// EPERM: without privilege a nice value can only rise.
pub fn set_attr(attr: &[u8; ATTR_LEN]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as the structure says, which it checks.
    unsafe { call(Sysno::sched_setattr, [0, attr.as_ptr() as usize, 0]) }.map(drop)
}

/// sched_getaffinity(2) of a thread; 0 for the calling one.
///
/// # Errors
/// The call's.
pub fn affinity(tid: i32) -> Result<[u64; CPU_WORDS]> {
    let mut cpus = [0; CPU_WORDS];
    // SAFETY: the kernel writes at most as many bytes as the length argument says.
    unsafe { call(Sysno::sched_getaffinity, [tid as usize, size_of_val(&cpus), cpus.as_mut_ptr() as usize]) }?;
    Ok(cpus)
}

/// sched_setaffinity(2) of the calling thread.
///
/// # Errors
/// EINVAL: it may use none of these CPUs.
pub fn set_affinity(cpus: &[u64; CPU_WORDS]) -> Result<()> {
    // SAFETY: the kernel reads the set.
    unsafe { call(Sysno::sched_setaffinity, [0, size_of_val(cpus), cpus.as_ptr() as usize]) }.map(drop)
}

/// sched_setaffinity(2) of another thread.
///
/// # Errors
/// EINVAL: it may use none of these CPUs; EPERM: it is somebody else's.
pub fn set_affinity_of(tid: i32, cpus: &[u64; CPU_WORDS]) -> Result<()> {
    // SAFETY: the kernel reads the set.
    unsafe { call(Sysno::sched_setaffinity, [tid as usize, size_of_val(cpus), cpus.as_ptr() as usize]) }.map(drop)
}

/// getcpu(2): the CPU that runs this code.
///
/// # Errors
/// The call's.
pub fn cpu() -> Result<usize> {
    let mut cpu = 0u32;
    // SAFETY: the kernel writes one number.
    unsafe { call(Sysno::getcpu, [(&raw mut cpu) as usize, 0, 0]) }.map(|_| cpu as usize)
}

/// ioprio_get(2) of a thread; 0 for the calling one.
///
/// # Errors
/// The call's.
pub fn io_priority(tid: i32) -> Result<u32> {
    // SAFETY: asks only.
    unsafe { call(Sysno::ioprio_get, [ONE, tid as usize]) }.map(|value| value as u32)
}

/// ioprio_set(2) of the calling thread.
///
/// # Errors
/// EPERM: the real-time class without privilege.
pub fn set_io_priority(value: u32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { call(Sysno::ioprio_set, [ONE, 0, value as usize]) }.map(drop)
}
