//! Objects of which only a save from outside can know enough.

use super::*;

/// Whose processor time a timer counts is found by letting one thread after the other run: by pid, and not by the process itself.
mod threadtimer {
    use super::*;

    #[test]
    fn undisturbed() -> Result<()> {
        User::each(|user| play("threadtimer", user, Fate::Undisturbed))
    }

    #[test]
    fn by_signal() -> Result<()> {
        refused_by_signal("threadtimer", "save by PID")
    }

    #[test]
    fn by_pid() -> Result<()> {
        User::each(|user| {
            for (times, ids) in [(1, Ids::New), (1, Ids::Namespace), (4, Ids::New)] {
                play("threadtimer", user, Fate::ByPid(times, ids))
                    .with_context(|| format!("{times} times, {ids:?}"))?;
            }
            Ok(())
        })
    }
}

/// Filters are told to root alone: by pid, and not to the process itself.
mod seccomp {
    use super::*;

    #[test]
    fn by_signal() -> Result<()> {
        refused_by_signal("seccomp", "seccomp")
    }

    #[test]
    fn undisturbed() -> Result<()> {
        User::each(|user| play("seccomp", user, Fate::Undisturbed))
    }

    #[test]
    fn by_pid() -> Result<()> {
        User::each(|user| {
            if !user.is_root() {
                let result = refused(user);
                table::enter("seccomp", "PID", user, Outcome::Refused.or_fail(&result));
                return result;
            }
            for (times, ids) in
                [(1, Ids::New), (1, Ids::Namespace), (1, Ids::Tree), (10, Ids::New), (10, Ids::Namespace)]
            {
                play("seccomp", user, Fate::ByPid(times, ids)).with_context(|| format!("{times} times, {ids:?}"))?;
            }
            Ok(())
        })
    }

    /// The smaller stub has no room for filters, and says so.
    #[test]
    fn not_by_the_stub_alone() -> Result<()> {
        if !User::Own.is_root() {
            println!("SKIPPED: filters are told to root alone");
            return Ok(());
        }
        let mut stage = Stage::set("seccomp", User::Own)?;
        let job = stage.start(false)?;
        job.wait_line(READY)?;
        stage.place.save(job.pid(), &stage.image(), &[])?;
        let refused = Job::start(&mut stage.place.stub(&stage.image()))?.end()?;
        anyhow::ensure!(refused.code() == Some(77) && refused.err.contains("ckpt restart"), "{refused:#?}");
        stage.finish(job)
    }

    fn refused(user: User) -> Result<()> {
        let mut stage = Stage::set("seccomp", user)?;
        let job = stage.start(false)?;
        job.wait_line(READY)?;
        let refused = stage.place.try_save(job.pid(), &stage.image(), &[])?;
        anyhow::ensure!(refused.code() == Some(88) && refused.err.contains("seccomp"), "{refused:#?}");
        stage.finish(job)
    }
}
