//! What is said of the way in which a program gets its ids: refusals with their remedies, and what `-v` tells.

use image_format::ExitCode;
use image_format::record::header::{Header, Traces};
use state::restart::Error;
use sys::Errno;
use sys::abi::AT_FDCWD;
use sys::text::Line;

use super::{Blocked, Refusal, Way};

/// What helps where ids cannot be kept.
const REMEDY: &str = "restart as root, give ckpt the file capability cap_checkpoint_restore, or --pid new, under which whatever keeps its old id \
                      may fail";

/// The error for a refusal; `pid`: the root's saved id.
#[must_use]
#[inline(never)] // A smaller frame has shorter addresses.
pub fn error(pid: u32, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Taken(id) => {
            let what = "@: end what has it, or --namespace gives it in a namespace of its own";
            Error::about(ExitCode::Kernel, what, 0u32, taken(id).as_bytes(), None)
        }
        Refusal::NoRight(e) => {
            let what =
                "process id #: cannot be chosen (!), nor counted up to: --namespace gives it in a namespace of its own";
            Error::about(ExitCode::Kernel, what, pid, b"", e)
        }
        Refusal::TooLarge(id) => {
            let what = "process id #: is larger than any here: raise kernel.pid_max, or --namespace";
            Error::about(ExitCode::Kernel, what, id, b"", None)
        }
        Refusal::NoWay { ids, namespaces } => {
            let ids = match ids {
                Blocked::Taken(id) => taken(id),
                Blocked::Right(e) => {
                    let what = "process id #: cannot be chosen (!), nor counted up to in time";
                    Line::filled(what, pid.into(), b"", e.into_raw())
                }
            };
            Error::with_reason(
                ExitCode::Kernel,
                "@; pid and user namespaces cannot be made (!)",
                0,
                ids.as_bytes(),
                namespaces,
                ["", REMEDY],
            )
        }
        Refusal::Tree => {
            let what =
                "--pid new: a tree of processes needs its ids, by which its processes know each other: leave it out";
            Error::about(ExitCode::Usage, what, 0u32, b"", None)
        }
    }
}

/// That an id is taken, and by whom, as far as `/proc` tells.
fn taken(id: u32) -> Line {
    let path = Line::filled("/proc/#/comm", id.into(), b"", 0);
    let mut line = Line::filled("process id #: is taken", id.into(), b"", 0);
    let mut buffer = [0; 32];
    if let Ok(name) = sys::fs::read_file_at(AT_FDCWD, path.as_c_str(), &mut buffer) {
        line.fill(" by @", 0, name.trim_ascii(), 0);
    }
    line
}

/// The error for a child with this id that could not be made.
#[must_use]
pub fn no_child(id: u32, e: Errno) -> Error {
    let (why, remedy) = match e {
        Errno::EEXIST => ("was taken meanwhile", "try again"),
        Errno::ETIMEDOUT => ("could not be counted up to in time", "try again, or --namespace"),
        _ => ("no process could be made with it", REMEDY),
    };
    Error::with_reason(ExitCode::Kernel, "process id #", id.into(), b"", e, [why, remedy])
}

/// Which way was chosen, and why. `is_own`: this process has the root's id.
#[must_use]
pub fn chosen(header: &Header, way: Way, is_own: bool) -> Line {
    let mut line = Line::filled("process #: ", header.pid.into(), b"", 0);
    line.push(match way {
        Way::Right if is_own => b"keeps its id, which is this process's own",
        Way::Right => b"keeps its ids, by right (clone3 with set_tid)",
        Way::Counting => b"keeps its ids, which come up next",
        Way::Namespace => b"keeps its ids, in namespaces of its own",
        Way::New { traces: Traces::None } => b"gets new ids: the save has found no trace of the old ones",
        Way::New { traces: Traces::Unknown } => b"gets new ids: whatever keeps its old id may fail",
        Way::New { traces: Traces::Found } => b"gets new ids, and keeps what may be an old one",
    });
    if way == (Way::New { traces: Traces::Found }) {
        line.fill(" (at 0x*): whatever compares it may fail", header.trace.get(), b"", 0);
    }
    line
}
