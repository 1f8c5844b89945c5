//! Rules of trees: each process has a parent before it that lives, an id of its own, and an image if it lives.

use super::{Check, Result};
use crate::Rule;
use crate::record::credentials::{Credentials, GROUPS_MAX};
use crate::record::descriptor::Descriptor;
use crate::record::header::Features;
use crate::record::pidfd::{Pidfd, PidfdOf};
use crate::record::process::{FD_BITS, PROCESSES_MAX, Process, UNTOLD};
use crate::record::sigio::{DRIVEN, KIND, ROOT_GROUP, Sigio};

impl Check<'_, '_> {
    #[inline(never)] // A smaller frame has shorter addresses.
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
            let stopped = one.stopped.get();
            if stopped > UNTOLD || stopped != 0 && one.ended.get() != 0 {
                return self.bad(Rule::ProcessWasStoppedEndedNoKnownWay, one);
            }
            if !parent || twin || one.ended.get() > 2 || own != Some(one.pid.get().into()) {
                return self.bad(Rule::ProcessWithoutParentImageIdOwn, one);
            }
        }
        wrong |= images.next().is_some();
        let live = processes.iter().filter(|one| one.ended.get() == 0).count().max(1);
        for descriptor in self.image.each::<Descriptor>() {
            // The root's table is the whole tree's; those of the others are copies of it. Behind the last one is nobody.
            let place = (descriptor.fd.get() >> FD_BITS) as usize;
            let beyond = place > live || place == live && !self.requires(Features::IN_TRANSIT);
            let alone = processes.is_empty() && !self.requires(Features::TREE);
            wrong |= beyond && (!processes.is_empty() || alone && self.requires(Features::IN_TRANSIT));
        }
        self.credentials()?;
        if wrong { self.bad(Rule::TreeTooLargeNotRequiredImagesBelongNone, self.image.header()) } else { Ok(()) }
    }

    /// Credentials that a process can have, once; pidfds of others; descriptors whose signals somebody gets.
    fn credentials(&self) -> Result {
        for (place, one) in self.image.each::<Credentials>().enumerate() {
            let groups = self.image.bytes(one.groups).map_or(1, <[u8]>::len);
            let (permitted, inheritable) = (one.permitted.get(), one.inheritable.get());
            let more = one.effective.get() & !permitted | one.ambient.get() & !(permitted & inheritable);
            let wrong = place != 0
                || self.requires(Features::CREDENTIALS) && !self.requires(Features::TREE)
                || !groups.is_multiple_of(4)
                || groups > 4 * GROUPS_MAX
                // What would leave the restart's own.
                || one.uid.iter().chain(&one.gid).any(|id| id.get() == u32::MAX)
                || more != 0
                || one.dumpable.get() > 2;
            if wrong {
                return self.bad(Rule::CredentialsNoProcess, one);
            }
        }
        let mut least = 0;
        for other in self.image.each::<PidfdOf>() {
            let (id, processes) = (other.id.get(), self.image.rows::<Process>());
            let stands = self.image.each::<Pidfd>().place(id).is_some();
            let known =
                processes.is_empty() || processes.iter().any(|one| one.pid == other.pid && one.ended.get() != 2);
            let required = self.requires(Features::TREE) && self.requires(Features::OTHERS_PIDFDS);
            if !stands || id < least || !known || !required {
                return self.bad(Rule::PidfdNoneOutOrderProcessNotThere, other);
            }
            least = id.saturating_add(1);
        }
        let mut least = 0;
        for driven in self.image.each::<Sigio>() {
            let id = driven.id.get();
            let open = self.image.each::<Descriptor>().place(id).is_some();
            let how = driven.how.get();
            let known = how <= KIND | DRIVEN | ROOT_GROUP && how & KIND != KIND;
            let signal = driven.signal.get() as usize <= super::SIGNALS;
            if !open || id < least || !signal || !known || !self.requires(Features::SIGNAL_DRIVEN) {
                return self.bad(Rule::OwnerOfNoDescriptorOutOrderNoSignal, driven);
            }
            least = id.saturating_add(1);
        }
        Ok(())
    }
}
