//! Who traces a process already, and whether this user may.

use state::{Error, ErrorKind};
use sys::Errno;
use sys::fs::Fd;
use sys::text::Text;

/// Somebody else traces the process.
pub fn traced(pid: i32, tracer: u64) -> Error {
    Error::refused(
        format_args!("process {pid} (traced by process {tracer})"),
        "only one program can trace a process",
        "detach the debugger",
    )
}

/// The tracer of a thread, by its pid; 0 for none.
pub fn tracer(proc: Fd, tid: i32) -> u64 {
    let path = Text::<48>::of(format_args!("task/{tid}/status"));
    let mut buffer = [0; 32];
    let value = state::target::status_value(proc, path.as_c_str(), b"TracerPid", &mut buffer);
    value.ok().flatten().and_then(sys::text::decimal).unwrap_or(0)
}

/// Whether this process traces the thread.
pub fn is_ours(proc: Fd, tid: i32) -> bool {
    tracer(proc, tid) == sys::process::pid() as u64
}

/// This user may not trace the process.
pub fn not_allowed(pid: i32, tid: i32, proc: Fd, errno: Errno) -> Error {
    let tracer = tracer(proc, tid);
    if tracer != 0 {
        return traced(pid, tracer);
    }
    let failed = Error::failed(format_args!("process {pid}"), "may not be traced", errno).kind(ErrorKind::NotTraced);
    failed.remedy("save your own processes; `ckpt check` tells what this system allows; or start it with `ckpt run`")
}
