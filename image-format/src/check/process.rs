//! Rules of trees: each process has a parent before it that lives, an id of its own, and an image if it lives.

use super::{Check, Result};
use crate::record::credentials::{Credentials, GROUPS_MAX};
use crate::record::header::Features;
use crate::record::process::{PROCESSES_MAX, Process};
use crate::record::sigio::Sigio;
use crate::record::socket::Socket;

impl Check<'_, '_> {
    pub(super) fn tree(&self) -> Result {
        let (processes, mut images) = (self.image.rows::<Process>(), self.image.processes());
        let mut wrong = processes.len() > PROCESSES_MAX || !processes.is_empty() && !self.requires(Features::TREE);
        for (place, one) in processes.iter().enumerate().take(PROCESSES_MAX) {
            let (mut parent, mut twin) = (place == 0, false);
            for before in processes.iter().take(place) {
                parent |= before.pid == one.parent && before.ended.get() == 0;
                twin |= before.pid == one.pid;
            }
            // Those that live come first, each with its image; the root's is this one.
            let own = match (place, one.ended.get()) {
                (0, 0) => Some(self.image.header().pid.get().into()),
                (0, _) => None,
                (_, 0) => images.next().map(|image| image.addr),
                _ => Some(one.pid.get().into()),
            };
            if !parent || twin || own != Some(one.pid.get().into()) {
                return self.bad("a process without its parent, its image, or an id of its own", one);
            }
        }
        wrong |= images.next().is_some();
        self.credentials()?;
        if wrong {
            self.bad("a tree that is too large, or not required, or images that belong to none", self.image.header())
        } else {
            Ok(())
        }
    }

    /// Credentials that a process can have, once; sockets whose signals somebody gets.
    fn credentials(&self) -> Result {
        for (place, one) in self.image.each::<Credentials>().enumerate() {
            let groups = self.image.bytes(one.groups).map_or(1, <[u8]>::len);
            let (permitted, inheritable) = (one.permitted.get(), one.inheritable.get());
            let more = one.effective.get() & !permitted | one.ambient.get() & !(permitted & inheritable);
            let wrong = place != 0
                || !self.requires(Features::CREDENTIALS)
                || !self.requires(Features::TREE)
                || !groups.is_multiple_of(4)
                || groups > 4 * GROUPS_MAX
                // What would leave the restart's own.
                || one.uid.iter().chain(&one.gid).any(|id| id.get() == u32::MAX)
                || more != 0
                || one.dumpable.get() > 2;
            if wrong {
                return self.bad("credentials that no process has", one);
            }
        }
        let mut least = 0;
        for driven in self.image.each::<Sigio>() {
            let id = driven.id.get();
            let socket = self.image.each::<Socket>().any(|socket| socket.id.get() == id);
            let required = self.requires(Features::TREE) && self.requires(Features::SIGNAL_DRIVEN);
            if !socket || id < least || driven.signal.get() as usize > super::SIGNALS || !required {
                return self.bad("a signal-driven socket that is none, or out of order, or with no signal", driven);
            }
            least = id.saturating_add(1);
        }
        Ok(())
    }
}
