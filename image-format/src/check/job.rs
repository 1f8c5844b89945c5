//! Rules of the job that an image belongs to.

use zerocopy::IntoBytes;

use super::{Check, Result};
use crate::Rule;
use crate::record::job::Job;

impl Check<'_, '_> {
    pub(super) fn job(&self) -> Result {
        let mut jobs = self.image.each::<Job>();
        let (Some(job), more) = (jobs.next(), jobs.next()) else { return Ok(()) };
        self.path(job.directory, job.as_bytes())?;
        self.string(job.host)?;
        let ends = self.image.bytes(job.command).is_some_and(|command| command.ends_with(b"\0"));
        if more.is_none() && ends { Ok(()) } else { self.bad(Rule::JobWithoutCommandSeveralJobs, job) }
    }
}
