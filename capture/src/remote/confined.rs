//! Whether a security module (Landlock, AppArmor, …) restricts a process: what that forbids is in no image.
//!
//! The kernel tells nobody of Landlock's domains. But a process inside one may look into none outside, so each is asked to look at the saver.
//! Must never say so of a process that could be kept from it by anything else.

use std::vec::Vec;

use state::{Arg, Question};
use sys::abi::{KCMP_VM, PR_GET_DUMPABLE};
use sys::fs::Fd;
use sys::{Errno, Sysno};

/// What counts for the right to look into another process.
#[derive(PartialEq, Eq)]
struct Rights {
    users: Vec<u64>,
    groups: Vec<u64>,
    permitted: u64,
    filtered: bool,
}

impl Rights {
    fn of(proc: Fd) -> Option<Self> {
        let value = |key: &[u8]| {
            let mut buffer = [0; 128];
            state::target::status_value(proc, c"status", key, &mut buffer).ok().flatten().map(<[u8]>::to_vec)
        };
        let numbers = |key: &[u8]| {
            value(key).map(|text| sys::text::words(&text).filter_map(sys::text::decimal).collect::<Vec<_>>())
        };
        let (users, groups) = (numbers(b"Uid")?, numbers(b"Gid")?);
        let permitted = value(b"CapPrm").as_deref().and_then(sys::text::hex)?;
        Some(Self { users, groups, permitted, filtered: value(b"Seccomp").as_deref() != Some(b"0") })
    }

    /// Whether it is one user's all over.
    fn is_plain(&self) -> bool {
        let alike = |ids: &[u64]| ids.iter().all(|id| Some(id) == ids.first());
        alike(&self.users) && alike(&self.groups) && !self.filtered
    }
}

/// What to ask the process with this directory in `/proc`; `None`: its answer would tell nothing.
pub fn question(proc: Fd) -> Option<Question> {
    let own = sys::fs::open(c"/proc/self", sys::abi::O_DIRECTORY, 0).ok()?;
    let (its, ours) = (Rights::of(proc)?, Rights::of(own.fd())?);
    let namespace = |proc: Fd| {
        let mut buffer = [0; 64];
        sys::fs::read_link_at(proc, c"ns/pid", &mut buffer).ok().map(<[u8]>::to_vec)
    };
    let may_look = its.is_plain()
        && ours.is_plain()
        && (&its.users, &its.groups) == (&ours.users, &ours.groups)
        && ours.permitted & !its.permitted == 0
        && namespace(proc).is_some_and(|its| namespace(own.fd()) == Some(its));
    // SAFETY: the option asks.
    let open = may_look && unsafe { sys::process::prctl(PR_GET_DUMPABLE, 0, 0, 0) } == Ok(1);
    let pid = sys::process::pid();
    let known = open && sys::process::shares(pid, pid, KCMP_VM) == Some(true);
    let (pid, zero) = (Arg::Value(pid as usize), Arg::Value(0));
    let args = [pid, pid, Arg::Value(KCMP_VM), zero, zero, zero];
    // SAFETY: returns a number.
    known.then_some(unsafe { Question::of(Sysno::kcmp, args, 0) })
}

/// Whether this is the answer of a process that is restricted.
pub fn is_refusal(answer: sys::Result<usize>) -> bool {
    answer == Err(Errno::EPERM)
}
