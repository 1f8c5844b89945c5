//! What this system allows, asked by trying it.

use core::time::Duration;

use sys::abi::{AT_FDCWD, CLOCK_MONOTONIC};
use sys::namespace::Kinds;
use sys::text::decimal;
use sys::{Errno, namespace};

use super::System;

/// `PID_MAX_LIMIT` (linux/threads.h): no id reaches it.
const PID_MAX_LIMIT: u32 = 4 << 20;

/// Ids that are used up to learn how long each takes: they are a part of the way.
const SAMPLES: u32 = 64;

/// This system, asked by a process with this id.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// This process's own id, which the program may get.
    pub own: u32,
    /// Whether ids may be counted up to.
    pub counts: bool,
}

impl System for Here {
    fn may_choose(&self) -> Result<(), Errno> {
        // Its own id is taken: EEXIST says that it could have chosen.
        match sys::thread::may_choose_ids(self.own) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn is_taken(&self, id: u32) -> bool {
        let id = id.cast_signed();
        // A group may outlive the process that it is named after.
        [id, -id].iter().any(|id| sys::process::kill(*id, 0) != Err(Errno::ESRCH))
    }

    fn largest(&self) -> u32 {
        let mut buffer = [0; 32];
        let text = sys::fs::read_file_at(AT_FDCWD, c"/proc/sys/kernel/pid_max", &mut buffer);
        let limit = text.ok().and_then(|text| decimal(text.trim_ascii())).and_then(|limit| u32::try_from(limit).ok());
        limit.unwrap_or(PID_MAX_LIMIT).saturating_sub(1)
    }

    fn counter(&self, next: u32) -> Option<(u32, Duration)> {
        if !self.counts {
            return None;
        }
        let first = u32::try_from(sys::thread::next_id().ok()?).ok()?;
        // Not beyond the one that is wanted.
        let count = next.checked_sub(first).map_or(SAMPLES, |ahead| (ahead / 4).min(SAMPLES));
        let start = sys::time::nanoseconds(CLOCK_MONOTONIC);
        for _ in 0..count {
            sys::thread::use_up_id().ok()?;
        }
        let passed = sys::time::nanoseconds(CLOCK_MONOTONIC).saturating_sub(start);
        let last = if count == 0 { first } else { u32::try_from(sys::thread::next_id().ok()?).ok()? };
        // A kernel that deals them otherwise is not counted with; behind the largest one it begins anew.
        let dealt = last >= first + count || last < first;
        dealt.then_some((last, Duration::from_nanos(passed / u64::from(count.max(1)))))
    }

    fn may_make_namespaces(&self) -> Result<(), Errno> {
        let kinds = Kinds::PID | Kinds::TIME | Kinds::MOUNT;
        namespace::may_unshare(kinds).or_else(|_| namespace::may_unshare(kinds | Kinds::USER))
    }
}
