//! Whose an image is: the job that `ckpt run` is asked for, another one, or the same one whose directory has moved.
//!
//! Must never let a job go on in the place of another.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckpt::remote;
use image_format::ExitCode;
use image_format::record::job::Job as Record;

use super::program;
use crate::failure::{Failure, reason};
use crate::image::ImageFile;
use crate::job::{command, joined, line, own_command};
use crate::text;

/// What is to be done about an image of another job.
const REMEDY: &str = "choose another image with -o, or begin anew with --fresh, which keeps this image aside";

/// What `ckpt run` is asked for.
#[derive(Clone, Debug)]
pub struct Job {
    words: Vec<OsString>,
    command: Vec<u8>,
    /// The working directory.
    pub directory: PathBuf,
    host: OsString,
    /// Files that were standard streams of `ckpt run` before the last restart, see [`remote::Job::reopened`].
    pub reopened: [(u64, u64); 3],
}

/// How an image's job is this one.
#[derive(Debug, PartialEq, Eq)]
pub enum Same {
    /// Started here.
    Here,
    /// Started in a directory that is not there any more.
    Moved(PathBuf),
}

impl Job {
    /// These words, here.
    pub fn new(words: &[OsString]) -> Result<Self, Failure> {
        let directory = std::env::current_dir()
            .map_err(|e| Failure::new(ExitCode::SaveFailed, format_args!("working directory: {}", reason(&e))))?;
        let host = OsStr::from_bytes(rustix::system::uname().nodename().to_bytes()).to_owned();
        let command = joined(words.iter().map(OsString::as_os_str));
        Ok(Self { words: words.to_vec(), command, directory, host, reopened: Default::default() })
    }

    /// What an image says of it, after so many restarts.
    pub fn record(&self, generation: u32) -> remote::Job<'_> {
        remote::Job {
            command: &self.command,
            directory: self.directory.as_os_str().as_bytes(),
            host: self.host.as_bytes(),
            generation,
            reopened: self.reopened,
        }
    }

    /// Its command, for people.
    pub fn line(&self) -> String {
        line(&self.command)
    }

    /// A file name for its image, which no other command has: the beginning for people, then a checksum of all words.
    pub fn image_name(&self) -> PathBuf {
        const MOST: usize = 40;
        let mut words = self.words.iter().map(|word| word.as_bytes());
        let first = words.next().unwrap_or_default();
        let argument = words.find(|word| !word.starts_with(b"-")).unwrap_or_default();
        let last =
            |word: &[u8]| text::plain(Path::new(OsStr::from_bytes(word)).file_name().map_or(word, OsStr::as_bytes));
        let name = [last(first), last(argument)].join("-");
        let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = name.chars().take(MOST).map(safe).collect();
        let (_, sum) = remote::command(&self.command);
        let name = name.trim_matches(['-', '.']);
        format!("{name}{}{:08x}.ckpt", if name.is_empty() { "" } else { "-" }, sum >> 32).into()
    }

    /// How the job of an image is this one.
    ///
    /// # Errors
    /// It is another one, or nobody can tell. `mapped`: the user says where what lay in its directory lies now.
    pub fn compare(&self, file: &ImageFile, mapped: impl Fn(&Path) -> bool) -> Result<Same, Failure> {
        let checked = file.checked()?;
        let image = text::path(file.path());
        let [record] = checked.image.table::<Record>().map_err(|fault| file.fault(fault))? else {
            return self.compare_unnamed(file, &own_command(file, &checked.image)?);
        };
        let saved = command(&checked.image, record);
        let string = |reference| checked.image.string(reference).map_err(|fault| file.fault(fault));
        let directory = Path::new(OsStr::from_bytes(string(record.directory)?)).to_owned();
        let (own, sum) = remote::command(&self.command);
        if own != saved || sum != record.command_sum.get() {
            let host = string(record.host)?;
            let on = if host == self.host.as_bytes() { String::new() } else { format!(" on {}", text::plain(host)) };
            let dir = text::path(&directory);
            return refuse(format!(
                "{image}: belongs to another job, `{}`, started in {dir}{on}, not to `{}`: {REMEDY}",
                line(saved),
                line(&self.command)
            ));
        }
        if same_directory(&directory, &self.directory) || mapped(&directory) {
            return Ok(Same::Here);
        }
        match fs::symlink_metadata(&directory) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Ok(Same::Moved(directory))
            }
            _ => {
                let (old, new) = (text::path(&directory), text::path(&self.directory));
                refuse(format!(
                    "{image}: belongs to the same command in another directory, {old}, which is still there: run it there, say that \
                     its files lie here with --map-path {old}={new}, or {REMEDY}"
                ))
            }
        }
    }

    /// The same of an image that `ckpt run` did not make: its process's command line must be what this command leads to.
    fn compare_unnamed(&self, file: &ImageFile, saved: &[u8]) -> Result<Same, Failure> {
        let executed = || {
            let words = program::executed(&self.words).ok()?;
            Some(joined(words.iter().map(OsString::as_os_str)))
        };
        if saved == self.command || executed().is_some_and(|own| own == saved) {
            return Ok(Same::Here);
        }
        let image = text::path(file.path());
        refuse(format!(
            "{image}: does not say to which job it belongs, and its process was `{}`, not `{}`: `ckpt restart` lets it go on; else {REMEDY}",
            line(saved),
            line(&self.command)
        ))
    }
}

fn refuse<T>(what: String) -> Result<T, Failure> {
    Err(Failure::new(ExitCode::OtherJob, what))
}

/// The same directory, under whichever name.
fn same_directory(a: &Path, b: &Path) -> bool {
    let id = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    a == b || id(a).is_some_and(|one| Some(one) == id(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> Job {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let command = joined(words.iter().map(OsString::as_os_str));
        Job { words, command, directory: "/".into(), host: "here".into(), reopened: Default::default() }
    }

    #[test]
    fn each_command_has_a_name_of_its_own() {
        let name = |words: &[&str]| job(words).image_name().to_string_lossy().into_owned();
        let names =
            [&["python3", "a.py"][..], &["python3", "b.py"], &["python3", "-u", "a.py"], &["python3", "a", ".py"]];
        let names: Vec<String> = names.iter().map(|words| name(words)).collect();
        for (i, one) in names.iter().enumerate() {
            assert!(one.starts_with("python3-") && one.ends_with(".ckpt"), "{one}");
            assert!(!names.iter().skip(i + 1).any(|other| other == one), "{names:?}");
        }
        assert!(name(&["/opt/bin/job", "--fast"]).starts_with("job-"));
        let odd = name(&["sh", "-c", "echo /x/y\n*; \u{1b}[31m"]);
        assert!(odd.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{odd}");
        assert!(name(&["../.."]).len() > 10 && !name(&["../.."]).starts_with('.'));
        assert!(name(&[&"x".repeat(5000)]).len() < 64);
    }
}
