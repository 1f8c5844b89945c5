//! Rules of System V semaphore sets: as many values as semaphores, none that the kernel would not take.

use super::{Check, Result};
use crate::Rule;
use crate::record::header::Features;
use crate::record::semaphore::{Semaphore, users, values};

impl Check<'_, '_> {
    pub(super) fn semaphores(&self) -> Result {
        let required = self.requires(Features::SEMAPHORES) && self.requires(Features::SYSV);
        for one in self.image.each::<Semaphore>() {
            let values = values(self.image.bytes(one.values).unwrap_or_default());
            let users = users(self.image.bytes(one.users).unwrap_or_default());
            if !required
                || !(1..=Semaphore::COUNT_MAX).contains(&one.count.get())
                || values.len() as u64 != one.count.get()
                || users.len() != values.len()
                || values.iter().any(|value| value.get() > Semaphore::VALUE_MAX)
                || one.id.get() > i32::MAX as u32
                || one.mode.get() & !0o777 != 0
            {
                return self.bad(Rule::SystemVSemaphoresNotRequiredNoKernel, one);
            }
        }
        Ok(())
    }
}
