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

/// Descriptors that nobody has but a message can be told from what is the saver's from outside alone.
mod transit {
    use super::*;

    #[test]
    fn undisturbed() -> Result<()> {
        User::each(|user| play("transit", user, Fate::Undisturbed))
    }

    #[test]
    fn by_signal() -> Result<()> {
        refused_by_signal("transit", "in transit")
    }

    #[test]
    fn by_pid() -> Result<()> {
        User::each(|user| {
            for (times, ids) in [(1, Ids::New), (1, Ids::Namespace), (10, Ids::New), (10, Ids::Namespace)] {
                play("transit", user, Fate::ByPid(times, ids)).with_context(|| format!("{times} times, {ids:?}"))?;
            }
            Ok(())
        })
    }
}

/// What an io_uring instance is, another process is told.
mod io_uring {
    use super::*;

    #[test]
    fn undisturbed() -> Result<()> {
        User::each(|user| play("io_uring", user, Fate::Undisturbed))
    }

    #[test]
    fn by_signal() -> Result<()> {
        refused_by_signal("io_uring", "io_uring")
    }

    #[test]
    fn by_pid() -> Result<()> {
        User::each(|user| {
            for (times, ids) in
                [(1, Ids::Auto), (1, Ids::New), (1, Ids::Namespace), (10, Ids::Auto), (10, Ids::Namespace)]
            {
                play("io_uring", user, Fate::ByPid(times, ids)).with_context(|| format!("{times} times, {ids:?}"))?;
            }
            Ok(())
        })
    }
}

/// Filters are told to root alone: by pid, and not to the process itself.
macro_rules! filters {
    ($($name:ident)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn by_signal() -> Result<()> {
                refused_by_signal(stringify!($name), "seccomp")
            }

            #[test]
            fn undisturbed() -> Result<()> {
                User::each(|user| play(stringify!($name), user, Fate::Undisturbed))
            }

            #[test]
            fn by_pid() -> Result<()> {
                User::each(|user| filtered(stringify!($name), user))
            }
        }
    )* };
}

filters! { seccomp tsync }

fn filtered(name: &'static str, user: User) -> Result<()> {
    if !user.is_root() {
        let result = refused_as(name, user);
        table::enter(name, "PID", user, Outcome::Refused.or_fail(&result));
        return result;
    }
    for (times, ids) in [(1, Ids::New), (1, Ids::Namespace), (1, Ids::Auto), (10, Ids::New), (10, Ids::Namespace)] {
        play(name, user, Fate::ByPid(times, ids)).with_context(|| format!("{times} times, {ids:?}"))?;
    }
    Ok(())
}

fn refused_as(name: &'static str, user: User) -> Result<()> {
    let mut stage = Stage::set(name, user)?;
    let job = stage.start(false)?;
    job.wait_line(READY)?;
    let refused = stage.place.try_save(job.pid(), &stage.image(), &[])?;
    anyhow::ensure!(refused.code() == Some(88) && refused.err.contains("seccomp"), "{refused:#?}");
    stage.finish(job)
}
