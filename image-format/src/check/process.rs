//! Rules of trees: each process has a parent before it that lives, an id of its own, and an image if it lives.

use super::{Check, Result};
use crate::record::header::Features;
use crate::record::process::{PROCESSES_MAX, Process};

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
        if wrong {
            self.bad("a tree that is too large, or not required, or images that belong to none", self.image.header())
        } else {
            Ok(())
        }
    }
}
