//! What belongs to no object of its own yet, and is refused by name: children, seccomp, shadow stacks, AMX.
//!
//! Checked first, before anything is touched.

use sys::abi::{ARCH_GET_XCOMP_PERM, XTILEDATA};
use sys::signal::bit;
use sys::text::Text;
use sys::{Errno, Sysno};

use crate::target::{Arg, status_value};
use crate::{Error, Result, Target};

/// The name of a process that is being restarted, until its own takes its place: it is no program yet.
pub const RESTARTING: [u8; 16] = *b"ckpt-restarting\0";

/// Whether a process of this name is being restarted. Until its first instruction, the stub bears the name of its file, also
/// when that is a nameless one of `ckpt`'s.
#[must_use]
pub fn is_restarting(name: &[u8]) -> bool {
    [&b"ckpt-restarting"[..], b"restart-stub", b"memfd:restart-s"].contains(&name)
}

/// Refuses a process that has what cannot be carried yet.
///
/// # Errors
/// The first such thing.
pub fn check<T: Target>(target: &mut T) -> Result<()> {
    let proc = target.proc();
    if let Some(error) = seccomp(proc, c"status")? {
        target.blocked(error)?;
    }
    let mut buffer = [0; 256];
    let read = |e| Error::failed(format_args!("/proc/PID/status"), "cannot be read", e);
    if let Some(features) = status_value(proc, c"status", b"x86_Thread_features", &mut buffer).map_err(read)?
        && features.windows(5).any(|w| w == b"shstk")
    {
        target.blocked(Error::refused(
            format_args!("user shadow stack"),
            "cannot be carried",
            "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
        ))?;
    }
    let mut permitted = [0; 8];
    let zero = Arg::Value(0);
    let args = [Arg::Value(ARCH_GET_XCOMP_PERM), Arg::Data(0), zero, zero, zero, zero];
    // A kernel that knows no such call has no AMX either.
    if target.call(Sysno::arch_prctl, args, &mut permitted).is_ok() && u64::from_le_bytes(permitted) & XTILEDATA != 0 {
        return Err(Error::refused(
            format_args!("AMX tiles (the process asked for them)"),
            "cannot be carried yet",
            "start the program so that it does not use AMX",
        ));
    }
    Ok(())
}

/// Why a thread with a seccomp filter cannot be saved, by its `status` in `/proc`. Asked before any call is made in
/// it: the filter may end the process for one.
///
/// # Errors
/// The file cannot be read.
pub fn seccomp(proc: sys::fs::Fd, status: &core::ffi::CStr) -> Result<Option<Error>> {
    let mut buffer = [0; 16];
    let mode = status_value(proc, status, b"Seccomp", &mut buffer);
    let mode = mode.map_err(|e| Error::failed(format_args!("/proc/PID/status"), "cannot be read", e))?;
    let refused =
        || Error::refused(format_args!("seccomp filter"), "cannot be carried yet", "start the program without it");
    Ok(mode.filter(|mode| *mode != b"0").map(|_| refused()))
}

/// Refuses a thread that has children, or has exited while others go on.
///
/// # Errors
/// The first such thing.
pub fn check_thread<T: Target>(target: &mut T, tid: i32) -> Result<()> {
    let proc = target.proc();
    let mut buffer = [0; 256];
    let path = Text::<48>::of(format_args!("task/{tid}/children"));
    match sys::fs::read_file_at(proc, path.as_c_str(), &mut buffer) {
        Ok(text) => {
            for child in sys::text::words(text) {
                let comm = Text::<48>::of(format_args!("/proc/{}/comm", sys::text::Shown(child)));
                let mut name = [0; 32];
                let name = sys::fs::read_file_at(sys::abi::AT_FDCWD, comm.as_c_str(), &mut name).unwrap_or_default();
                target.blocked(Error::refused(
                    format_args!("child process {} ({})", sys::text::Shown(child), sys::text::Shown(name.trim_ascii())),
                    "process trees cannot be carried yet",
                    "save when it has ended",
                ))?;
            }
        }
        // Without CONFIG_PROC_CHILDREN nobody can tell from here; ESRCH: the thread is gone.
        Err(Errno::ENOENT | Errno::ESRCH) => {}
        Err(e) => return Err(Error::failed(format_args!("children of thread {tid}"), "cannot be read", e)),
    }
    Ok(())
}

/// Whether a thread has ended but is not gone, as a first thread does that called pthread_exit.
#[must_use]
pub fn is_dead<T: Target>(target: &T, tid: i32) -> bool {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 64];
    matches!(status_value(target.proc(), path.as_c_str(), b"State", &mut buffer), Ok(Some([b'Z' | b'X', ..])))
}

/// Whether a thread blocks a signal, so that it cannot be asked to stop with it.
#[must_use]
pub fn blocks<T: Target>(target: &T, tid: i32, signal: i32) -> bool {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 64];
    let mask = status_value(target.proc(), path.as_c_str(), b"SigBlk", &mut buffer);
    mask.ok().flatten().and_then(sys::text::hex).is_some_and(|m| m & bit(signal) != 0)
}
