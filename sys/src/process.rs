//! The process as a whole: ids, limits, mm fields, exec, exit.

use core::ffi::CStr;

use crate::abi::{self, PrctlMmMap, Rlimit};
use crate::fs::{Fd, Owned, fd_of};
use crate::{Errno, Result, Sysno, call};

/// getpid(2).
#[must_use]
#[inline(never)] // A smaller frame has shorter addresses.
pub fn pid() -> i32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::getpid, []) }.unwrap_or(0) as i32
}

/// getuid(2).
#[must_use]
pub fn uid() -> u32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::getuid, []) }.unwrap_or(0) as u32
}

/// geteuid(2).
#[must_use]
pub fn effective_uid() -> u32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::geteuid, []) }.unwrap_or(0) as u32
}

/// getegid(2).
#[must_use]
pub fn effective_gid() -> u32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::getegid, []) }.unwrap_or(0) as u32
}

/// membarrier(2).
///
/// # Errors
/// The call's.
pub fn membarrier(command: u32) -> Result<()> {
    // SAFETY: orders memory, and changes none.
    unsafe { call(Sysno::membarrier, [command as usize, 0]) }.map(drop)
}

/// exit_group(2).
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { call(Sysno::exit_group, [status as usize]) };
    }
}

/// kill(2).
///
/// # Errors
/// The call's.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: sends a signal, touches no memory.
    unsafe { call(Sysno::kill, [pid as usize, signal as usize]) }.map(drop)
}

/// getpgid(2) of this process.
#[must_use]
pub fn group() -> i32 {
    // SAFETY: asks only; cannot fail.
    unsafe { call(Sysno::getpgid, [0]) }.unwrap_or(0) as i32
}

/// setpgid(2): a group of its own for process `pid`, this one or a child that has not called exec.
///
/// # Errors
/// The call's.
pub fn lead_group(pid: i32) -> Result<()> {
    // SAFETY: no memory is touched.
    unsafe { call(Sysno::setpgid, [pid as usize, pid as usize]) }.map(drop)
}

/// `PR_SET_PDEATHSIG`: the signal that this process gets when its parent ends; 0 for none.
///
/// # Errors
/// EINVAL: no signal.
pub fn set_death_signal(signal: i32) -> Result<()> {
    // SAFETY: a number.
    unsafe { prctl(abi::PR_SET_PDEATHSIG, signal as usize, 0, 0) }.map(drop)
}

/// `PR_SET_PTRACER`: where Yama restricts ptrace(2), process `pid` and its children may trace this one.
///
/// # Errors
/// EINVAL: there is no such process, or no Yama.
pub fn set_tracer(pid: i32) -> Result<()> {
    /// `PR_SET_PTRACER`: "Yama".
    const TRACER: usize = 0x5961_6d61;
    // SAFETY: numbers.
    unsafe { prctl(TRACER, pid as usize, 0, 0) }.map(drop)
}

/// getrlimit(2) of this process.
///
/// # Errors
/// The call's.
pub fn rlimit(resource: u32) -> Result<Rlimit> {
    let mut limit = Rlimit::default();
    // SAFETY: the kernel fills `limit`.
    unsafe { call(Sysno::prlimit64, [0, resource as usize, 0, (&raw mut limit) as usize]) }?;
    Ok(limit)
}

/// setrlimit(2) of this process.
///
/// # Errors
/// EPERM to raise a hard limit without privilege.
pub fn set_rlimit(resource: u32, limit: &Rlimit) -> Result<()> {
    // SAFETY: the kernel only reads `limit`.
    unsafe { call(Sysno::prlimit64, [0, resource as usize, (&raw const *limit) as usize, 0]) }.map(drop)
}

/// prctl(2) with numbers.
///
/// # Errors
/// The call's.
///
/// # Safety
/// The option must not make the kernel write to memory that the arguments name, unless it may.
pub unsafe fn prctl(option: usize, a: usize, b: usize, c: usize) -> Result<usize> {
    // SAFETY: the caller vouches.
    unsafe { call(Sysno::prctl, [option, a, b, c, 0]) }
}

/// Whether this thread may install seccomp filters.
///
/// # Errors
/// EACCES: not without privilege or `no_new_privs`; and the call's.
pub fn may_filter() -> Result<()> {
    // The kernel looks at the privilege before it looks for the program, which is nowhere.
    let program = [1usize, 1];
    // SAFETY: the kernel reads no more than these words.
    match unsafe { call(Sysno::seccomp, [1, 0, (&raw const program) as usize]) } {
        Err(Errno::EFAULT) => Ok(()),
        other => other.map(drop),
    }
}

/// Has a tracer decide about every further call of this process: a seccomp filter that answers `SECCOMP_RET_TRACE` to all. It stays until the end.
///
/// # Errors
/// The call's.
pub fn let_tracer_decide() -> Result<()> {
    const NO_NEW_PRIVS: usize = 38;
    // `BPF_RET | BPF_K`, as `struct sock_filter` has it.
    let code = [0x06u64 | 0x7ff0_0000 << 32];
    let program = [code.len(), code.as_ptr() as usize];
    // SAFETY: sets a flag.
    unsafe { prctl(NO_NEW_PRIVS, 1, 0, 0) }?;
    // SAFETY: the kernel reads the program.
    unsafe { call(Sysno::seccomp, [1, 0, (&raw const program) as usize]) }.map(drop)
}

/// personality(2).
///
/// # Errors
/// The call's.
pub fn set_personality(value: u64) -> Result<()> {
    // SAFETY: changes how the kernel treats this process from now on; no memory.
    unsafe { call(Sysno::personality, [value as usize]) }.map(drop)
}

/// Whether two processes share a kernel object (`KCMP_VM` …); `None` when the kernel does not tell.
#[must_use]
pub fn shares(a: i32, b: i32, what: usize) -> Option<bool> {
    // SAFETY: compares kernel pointers, touches no memory.
    unsafe { call(Sysno::kcmp, [a as usize, b as usize, what, 0, 0]) }.ok().map(|order| order == 0)
}

/// pidfd_open(2).
///
/// # Errors
/// The call's.
#[inline(always)]
pub fn pidfd(pid: i32, flags: u32) -> Result<Owned> {
    // SAFETY: a new descriptor, no memory.
    unsafe { crate::socket::request(Sysno::pidfd_open, [pid as usize, flags as usize, 0, 0, 0]) }.map(Owned::own)
}

/// pidfd_getfd(2): a descriptor of another process, close-on-exec.
///
/// # Errors
/// The call's.
pub fn borrow_descriptor(pidfd: Fd, fd: Fd) -> Result<Owned> {
    // SAFETY: a new descriptor, no memory.
    let fd = unsafe { call(Sysno::pidfd_getfd, [pidfd as usize, fd as usize, 0]) }?;
    Ok(Owned::own(fd_of(fd)))
}

/// prctl(2) `PR_SET_MM_MAP`: where code, data, heap, stack, arguments and the auxiliary vector lie.
///
/// # Errors
/// The call's.
pub fn set_mm_map(map: &PrctlMmMap) -> Result<()> {
    let at = (&raw const *map) as usize;
    // SAFETY: the kernel reads the structure and the auxiliary vector that it names.
    unsafe { prctl(abi::PR_SET_MM, abi::PR_SET_MM_MAP, at, size_of::<PrctlMmMap>()) }.map(drop)
}

/// arch_prctl(2).
///
/// # Errors
/// The call's.
///
/// # Safety
/// Setting FS or GS base changes where thread-local storage is; getting writes 8 bytes to `value`.
pub unsafe fn arch_prctl(code: usize, value: usize) -> Result<()> {
    // SAFETY: the caller vouches.
    unsafe { call(Sysno::arch_prctl, [code, value]) }.map(drop)
}

/// FS base and GS base of this thread.
///
/// # Errors
/// The call's.
pub fn segment_bases() -> Result<(u64, u64)> {
    let (mut fs, mut gs) = (0u64, 0u64);
    // SAFETY: the kernel writes 8 bytes to each.
    unsafe {
        arch_prctl(abi::ARCH_GET_FS, (&raw mut fs) as usize)?;
        arch_prctl(abi::ARCH_GET_GS, (&raw mut gs) as usize)?;
    }
    Ok((fs, gs))
}

/// `struct utsname`: the release only.
#[must_use]
pub fn kernel_release() -> [u8; 64] {
    let mut names = [0u8; 6 * 65];
    // SAFETY: the kernel fills six fields of 65 bytes.
    let _ = unsafe { call(Sysno::uname, [names.as_mut_ptr() as usize]) };
    let mut release = [0; 64];
    for (to, from) in release.iter_mut().zip(names.iter().skip(130).take_while(|b| **b != 0)) {
        *to = *from;
    }
    release
}

/// getrandom(2).
///
/// # Errors
/// The call's.
pub fn random(to: &mut [u8]) -> Result<()> {
    // SAFETY: the kernel writes only into `to`.
    unsafe { call(Sysno::getrandom, [to.as_mut_ptr() as usize, to.len(), 1]) }.map(drop)
}

/// process_vm_readv(2) of one range; how many bytes were read.
///
/// # Errors
/// The call's: EFAULT where the process may not read.
pub fn read_memory_of(pid: i32, addr: u64, to: &mut [u8]) -> Result<usize> {
    let (own, theirs) = ([to.as_mut_ptr() as usize, to.len()], [addr as usize, to.len()]);
    let args = [pid as usize, (&raw const own) as usize, 1, (&raw const theirs) as usize, 1, 0];
    // SAFETY: the kernel writes only into `to`.
    unsafe { call(Sysno::process_vm_readv, args) }
}

/// memfd_create(2), close-on-exec, with further flags.
///
/// # Errors
/// The call's.
pub fn memfd(name: &CStr, flags: usize) -> Result<Owned> {
    // SAFETY: the kernel only reads the name.
    let fd = unsafe { call(Sysno::memfd_create, [name.as_ptr() as usize, abi::MFD_CLOEXEC | flags]) }?;
    Ok(Owned::own(fd_of(fd)))
}

/// execveat(2) of an open file.
///
/// # Safety
/// `argv` and `envp` are arrays of pointers to NUL-ended strings that end with a null pointer.
pub unsafe fn exec(fd: Fd, argv: *const *const u8, envp: *const *const u8) -> Errno {
    let args = [fd as usize, c"".as_ptr() as usize, argv as usize, envp as usize, abi::AT_EMPTY_PATH];
    // SAFETY: the caller vouches for the arrays.
    unsafe { call(Sysno::execveat, args) }.err().unwrap_or(Errno::EIO)
}

/// The id of this boot of the machine (`/proc/sys/kernel/random/boot_id`) in binary; zero where it cannot be read.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    let mut buffer = [0; 64];
    let path = c"/proc/sys/kernel/random/boot_id";
    let text = crate::fs::read_file_at(crate::abi::AT_FDCWD, path, &mut buffer).unwrap_or_default();
    let mut id = [0; 16];
    let digits = text.iter().filter_map(|b| char::from(*b).to_digit(16));
    for (i, digit) in digits.take(32).enumerate() {
        if let Some(byte) = id.get_mut(i / 2) {
            *byte = *byte << 4 | digit as u8;
        }
    }
    id
}
