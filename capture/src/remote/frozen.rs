//! Whether a process is frozen by its cgroup (`cgroup.freeze`, or version 1's `freezer.state`): no tracer can stop it then.
//!
//! Must never refuse a process that runs: where nobody tells, it is none that is frozen, and the stop finds out.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

use state::{Error, Result};
use sys::text::Shown;

/// One of the two kinds of cgroups that freeze.
struct Freezer {
    /// The type of its file system.
    kind: &'static [u8],
    /// What the file system's options must name.
    option: &'static [u8],
    /// The file that tells, and a line of it when no process inside is frozen.
    file: &'static str,
    thawed: &'static [u8],
    remedy: &'static str,
}

const SECOND: Freezer = Freezer {
    kind: b"cgroup2",
    option: b"",
    file: "cgroup.events",
    thawed: b"frozen 0",
    remedy: "thaw it (0 into cgroup.freeze, of that cgroup or of one above it)",
};

const FIRST: Freezer = Freezer {
    kind: b"cgroup",
    option: b"freezer",
    file: "freezer.state",
    thawed: b"THAWED",
    remedy: "thaw it (THAWED into freezer.state, of that cgroup or of one above it)",
};

/// Refuses a process that is frozen.
///
/// # Errors
/// It is, and by which cgroup.
pub fn check(pid: i32) -> Result<()> {
    let (Ok(own), Ok(mounts)) = (fs::read(std::format!("/proc/{pid}/cgroup")), fs::read("/proc/self/mountinfo")) else {
        return Ok(());
    };
    // `number:controllers:path`
    for line in own.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let freezer = match controllers {
            b"" => SECOND,
            some if some.split(|byte| *byte == b',').any(|one| one == FIRST.option) => FIRST,
            _ => continue,
        };
        let told = freezer.directory(&mounts, path).and_then(|dir| fs::read(dir.join(freezer.file)).ok());
        // The first cgroup of all has no such file.
        if told.is_some_and(|told| !told.split(|byte| *byte == b'\n').any(|line| line == freezer.thawed)) {
            return Err(Error::refused(
                format_args!("process {pid} (cgroup {})", Shown(path)),
                "is frozen by its cgroup, and cannot be stopped for a save",
                freezer.remedy,
            ));
        }
    }
    Ok(())
}

impl Freezer {
    /// Where a cgroup of this kind is to be seen here.
    fn directory(&self, mounts: &[u8], path: &[u8]) -> Option<PathBuf> {
        mounts.split(|byte| *byte == b'\n').find_map(|line| {
            // `id parent device root point options [more] - type source options`
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let behind = words.iter().position(|word| *word == b"-")?;
            let (kind, options) = (words.get(behind + 1)?, words.get(behind + 3)?);
            let (root, point) = (plain(words.get(3)?), plain(words.get(4)?));
            let is_it = self.option.is_empty() || options.split(|byte| *byte == b',').any(|one| one == self.option);
            if *kind != self.kind || !is_it {
                return None;
            }
            let below = if root == b"/" { path } else { path.strip_prefix(&*root)? };
            let point = [&point, below].concat();
            Some(PathBuf::from(std::ffi::OsString::from_vec(point)))
        })
    }
}

/// A path of mountinfo, in which blanks and their like stand as `\040`.
fn plain(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = word;
    while let [first, behind @ ..] = rest {
        let code = if *first == b'\\' { behind.get(..3) } else { None };
        let code = code.and_then(|digits| u8::from_str_radix(&String::from_utf8_lossy(digits), 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = behind.get(if code.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_where_it_is_mounted() {
        let mounts = b"24 1 0:21 / /proc rw - proc proc rw\n\
            30 1 0:26 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
            31 1 0:27 /box /sys/fs/a\\040b rw shared:1 - cgroup2 none rw,nsdelegate\n";
        let at = |freezer: Freezer, path: &[u8]| freezer.directory(mounts, path);
        assert_eq!(at(FIRST, b"/x"), Some("/sys/fs/cgroup/freezer/x".into()));
        assert_eq!(at(SECOND, b"/box/y"), Some("/sys/fs/a b/y".into()));
        assert_eq!(at(SECOND, b"/elsewhere"), None);
    }
}
