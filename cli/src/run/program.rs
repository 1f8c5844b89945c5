//! Which file a program's name means, and whether its user may save it.
//!
//! Must never execute anything to find out.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use image_format::ExitCode;

use crate::failure::Failure;
use crate::text;

/// Interpreters of interpreters that the kernel follows (fs/exec.c).
const LEVELS: usize = 5;

/// Bytes of a script that the kernel looks at (`BINPRM_BUF_SIZE`).
const FIRST_LINE: u64 = 256;

/// Finds `name` as a shell would and refuses what its own user may not trace.
pub fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let program = search(name)?;
    let mut file = program.clone();
    for _ in 0..LEVELS {
        refuse_privileged(&file)?;
        match interpreter(&file).map_err(|e| Failure::exec(&file, &e))? {
            Some(interpreter) => file = interpreter,
            None => return Ok(program),
        }
    }
    refused(&program, "too many interpreters, one after the other")
}

/// The command line that a process has when these words were executed: a script's begins with its interpreter's (fs/binfmt_script.c).
pub fn executed(words: &[OsString]) -> Result<Vec<OsString>, Failure> {
    let mut words = words.to_vec();
    let Some(name) = words.first() else { return Ok(words) };
    let mut file = search(name)?;
    for _ in 0..LEVELS {
        let Some((interpreter, argument)) = first_line(&file).map_err(|e| Failure::exec(&file, &e))? else { break };
        let lead = [Some(interpreter.clone()), argument, Some(file)];
        words.splice(..1, lead.into_iter().flatten().map(PathBuf::into_os_string));
        file = interpreter;
    }
    Ok(words)
}

/// A name with a slash is a path; any other is looked up in `PATH`.
fn search(name: &OsStr) -> Result<PathBuf, Failure> {
    let not_found =
        || Failure::exec(Path::new(name), &io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()));
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return fs::metadata(&path).map(|_| path.clone()).map_err(|e| Failure::exec(&path, &e));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let usable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file())
            && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(usable).ok_or_else(not_found)
}

/// The program that a script's first line names.
fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    Ok(first_line(path)?.map(|(interpreter, _)| interpreter))
}

/// The same, and its one argument, if there is one.
fn first_line(path: &Path) -> io::Result<Option<(PathBuf, Option<PathBuf>)>> {
    let mut first = Vec::new();
    File::open(path)?.take(FIRST_LINE).read_to_end(&mut first)?;
    let Some(line) = first.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
    let argument = rest.trim_ascii();
    Ok(Some((path(name), (!argument.is_empty()).then(|| path(argument)))))
}

fn refused<T>(path: &Path, why: &str) -> Result<T, Failure> {
    Err(Failure::new(ExitCode::SaveFailed, format_args!("{}: {why}", text::path(path))))
}

/// The kernel lets nobody look into a program that runs with more rights than its caller.
fn refuse_privileged(path: &Path) -> Result<(), Failure> {
    let meta = fs::metadata(path).map_err(|e| Failure::exec(path, &e))?;
    let mode = meta.permissions().mode();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if (mode & 0o4000 != 0 && meta.uid() != uid.as_raw()) || (mode & 0o2000 != 0 && meta.gid() != gid.as_raw()) {
        return refused(path, "a set-uid or set-gid program cannot be saved: run a copy without that bit");
    }
    let mut none = [0u8; 0];
    if !uid.is_root() && rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|len| len > 0) {
        return refused(path, "a program with file capabilities cannot be saved: run a copy without them");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_first_lines() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("script");
        for (text, expected) in
            [("print 1\n", None), ("#! /bin/sh -e  \nexit\n", Some("/bin/sh")), ("#!/bin/x", Some("/bin/x"))]
        {
            fs::write(&path, text)?;
            assert_eq!(interpreter(&path)?, expected.map(PathBuf::from), "{text}");
        }
        fs::write(&path, "#! /bin/sh -e x \nexit\n")?;
        let words = executed(&[path.clone().into(), "one".into()]).unwrap_or_default();
        assert_eq!(words, ["/bin/sh".into(), "-e x".into(), path.into_os_string(), OsString::from("one")]);
        Ok(())
    }
}
