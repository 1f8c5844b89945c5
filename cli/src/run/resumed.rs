//! An image that a job goes on from: what it is, and the options with which the job finds its files and streams.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::images;
use super::job::{Job, Same};
use super::rollback::Rollback;
use super::speaker::Speaker;
use super::streams;
use crate::failure::Failure;
use crate::restart::Source;
use crate::stub::{Files, Options};
use crate::text;

/// The image, found to be the job's.
#[derive(Debug)]
pub struct Resumed {
    /// Its name.
    pub path: PathBuf,
    /// What to restart.
    pub source: Source,
    /// Restarts that the program will have behind it.
    pub generation: u32,
    /// When it was saved.
    pub saved: SystemTime,
    /// What one wants to know of it, a line each.
    pub words: Vec<String>,
    /// The files that it finds cut back.
    pub rollback: Rollback,
    /// Files that were standard streams, and are opened again, see [`super::job::Job::reopened`].
    pub reopened: [(u64, u64); 3],
}

impl Resumed {
    /// The newest whole image of this job, if there is one: the first of `images`, which are taken from there. Adds what the restart is to
    /// be told to the options that it returns.
    ///
    /// # Errors
    /// One is no image, or another job's; none is whole.
    pub fn find(
        images: &mut VecDeque<PathBuf>,
        job: &Job,
        options: impl Fn() -> Options,
        speaker: &mut Speaker,
    ) -> Result<Option<(Self, Options)>, Failure> {
        while let Some(path) = images.pop_front() {
            let mut options = options();
            match Self::of(&path, job, &mut options) {
                Ok(resumed) => return Ok(Some((resumed, options))),
                Err(failure) if images::is_damage(failure.code()) && !images.is_empty() => {
                    Self::put_away(&path, &failure.into_parts().1, speaker)?;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(None)
    }

    /// A damaged image gives its place to an older one.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn put_away(path: &Path, why: &str, speaker: &mut Speaker) -> Result<(), Failure> {
        let kept = images::is_damaged(path)?;
        speaker
            .trouble(format_args!("{why}: it is {} now, and the job goes on from the one before", text::path(&kept)));
        Ok(())
    }

    fn of(path: &Path, job: &Job, options: &mut Options) -> Result<Self, Failure> {
        let source = Source::open(path, options.trust)?;
        let (file, _) = source.image()?;
        let same = job.compare(&file, |old| place(&options.map_path, old) != old)?;
        let (generation, saved) = {
            let checked = file.checked()?;
            let header = checked.image.header();
            let seconds = u64::try_from(header.wall_sec.get()).unwrap_or(0);
            (header.generation.get().saturating_add(1), UNIX_EPOCH + Duration::from_secs(seconds))
        };
        // A clock that was set back makes it nothing.
        let age = text::age(saved.elapsed().unwrap_or_default());
        let mut words = vec![format!(
            "{}: `{}` goes on from it, saved {age} ago, after {}",
            text::path(path),
            job.line(),
            text::count(usize::try_from(generation - 1).unwrap_or(usize::MAX), "restart")
        )];
        if let Same::Moved(old) = same {
            let new = &job.directory;
            let pair = [old.as_os_str(), OsStr::new("="), new.as_os_str()].map(OsStr::to_owned);
            options.map_path.push(pair.into_iter().collect::<OsString>());
            let (old, new) = (text::path(&old), text::path(new));
            words.push(format!("{old}: is not there any more: what lay there is taken from {new}"));
        }
        let policy = options.files.unwrap_or(Files::Verify);
        let maps = options.map_path.clone();
        let asked = |fd: u32| options.fd.iter().any(|one| one.as_bytes().starts_with(format!("{fd}=").as_bytes()));
        let (mut taken, reopened) = streams::taken(&file, policy, |path| place(&maps, path))?;
        taken.retain(|one| !asked(one.stream));
        let rollback = match policy {
            Files::Rollback => {
                let left = |id| taken.iter().any(|one| one.left == Some(id));
                Rollback::of(&file, |path| place(&maps, path), left)?
            }
            Files::Verify | Files::Ignore => Rollback::default(),
        };
        for one in taken {
            options.fd.push(one.option().into());
            words.extend(one.words);
        }
        Ok(Self { path: path.to_owned(), source, generation, saved, words, rollback, reopened })
    }
}

/// Where a path of the program leads, by `OLD=NEW`: the first whose OLD it is, or lies below.
fn place(maps: &[OsString], path: &Path) -> PathBuf {
    let moved = |map: &OsString| {
        let (old, new) = map.as_bytes().split_at_checked(map.as_bytes().iter().position(|byte| *byte == b'=')?)?;
        let rest = path.strip_prefix(OsStr::from_bytes(old)).ok()?;
        let new = Path::new(OsStr::from_bytes(new.strip_prefix(b"=")?));
        Some(if rest.as_os_str().is_empty() { new.to_owned() } else { new.join(rest) })
    };
    maps.iter().find_map(moved).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_led_elsewhere() {
        let maps = ["/a=/b".into(), "/a/c=/d".into(), "/e=".into()];
        for (path, to) in [("/a/x", "/b/x"), ("/a", "/b"), ("/a/c", "/b/c"), ("/ab", "/ab"), ("/x", "/x")] {
            assert_eq!(place(&maps, Path::new(path)), Path::new(to), "{path}");
        }
    }
}
