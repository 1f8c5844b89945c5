//! Programs whose files and whose executable lie on other file systems, in mounts that are theirs: layers (overlayfs, as in
//! containers), and memory (tmpfs).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, left_out, own};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::UnshareFlags;

/// Each holds its own name.
const FILES: [&str; 8] = ["below", "copied", "gone", "gone-copied", "gone-mapped", "old", "mapped", "private"];

/// Mounts of this thread's, gone with the value.
#[derive(Default)]
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn add(&mut self, kind: &str, at: &Path, options: &str) -> Result<()> {
        fs::create_dir_all(at)?;
        let options = std::ffi::CString::new(options)?;
        mount("ckpt-test", at, kind, MountFlags::empty(), &*options).with_context(|| format!("{kind} {options:?}"))?;
        self.0.push(at.to_owned());
        Ok(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.0.iter().rev() {
            let _ = unmount(at, UnmountFlags::DETACH);
        }
    }
}

/// Where the layers of an overlay lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layers {
    /// Both on the disk.
    Disk,
    /// The upper one in memory: files have other numbers than their layers'.
    Mixed,
    /// No layers: a file system in memory alone.
    None,
}

/// Fills a directory with the guest and its files; they and their directory are the user's.
fn fill(place: &Place, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for name in FILES {
        fs::write(dir.join(name), name)?;
        place.give(&dir.join(name))?;
    }
    fs::copy(place.guest("layers")?, dir.join("layers"))?;
    fs::set_permissions(dir.join("layers"), fs::Permissions::from_mode(0o755))?;
    place.give(dir)
}

/// Mounts all, and tells where the guest is to run.
fn set_up(place: &Place, layers: Layers) -> Result<(Mounts, PathBuf)> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let (mut mounts, merged) = (Mounts::default(), place.file("merged"));
    if layers == Layers::None {
        mounts.add("tmpfs", &merged, "mode=755")?;
        fill(place, &merged)?;
        return Ok((mounts, merged));
    }
    let (lower, top) = (place.file("lower"), place.file("top"));
    fill(place, &lower)?;
    if layers == Layers::Mixed {
        mounts.add("tmpfs", &top, "mode=755")?;
    }
    for dir in ["upper", "work"] {
        fs::create_dir_all(top.join(dir))?;
    }
    place.give(&top.join("upper"))?;
    let top = top.display();
    mounts.add("overlay", &merged, &format!("lowerdir={},upperdir={top}/upper,workdir={top}/work", lower.display()))?;
    Ok((mounts, merged))
}

/// Saved again and again, by its pid and by itself, in its mounts.
fn comes_back(layers: Layers) -> Result<()> {
    left_out::unless_root("only root can mount")?;
    User::each(|user| {
        own::inside(UnshareFlags::NEWNS, || {
            for by_pid in [true, false] {
                let place = Place::new(user)?;
                let (_mounts, merged) = set_up(&place, layers)?;
                let image = place.file("job.ckpt");
                let mut command = place.command(merged.join("layers"));
                command.current_dir(&merged);
                if !by_pid {
                    place.arm(&mut command, &image);
                }
                let mut job = Job::start(&mut command)?;
                job.wait_line(READY)?;
                for generation in 0..4 {
                    if by_pid {
                        place.save(job.pid(), &image, if generation == 0 { &[] } else { &["--kill"] })?;
                        job.kill()?;
                    } else {
                        job.save_and_kill(&image)?;
                    }
                    job = Job::start(&mut place.stub(&image))?;
                }
                place.go()?;
                let ended = job.end()?;
                ended.expect_pass().with_context(|| format!("by its pid: {by_pid}"))?;
                ensure!(ended.err.is_empty(), "{ended:#?}");
            }
            Ok(())
        })
    })
}

/// A saver that sees other mounts finds other files, or none, under the program's names: also when that is its directory alone.
#[test]
fn another_ones_mounts_are_named() -> Result<()> {
    left_out::unless_root("only root can mount")?;
    own::inside(UnshareFlags::NEWNS, || {
        let place = Place::new(User::Own)?;
        let (_mounts, merged) = set_up(&place, Layers::None)?;
        let image = place.file("job.ckpt");
        for (guest, object) in [("umask", "working directory"), ("layers", "descriptor")] {
            let job = Job::start(place.command(place.guest(guest)?).current_dir(&merged))?;
            job.wait_line(READY)?;
            // In the mounts of the tests' first thread.
            let from_outside = |arguments: &[&str]| {
                let mut command = place.command(tool("nsenter", "util-linux")?);
                command.args(["-m", "-t", &std::process::id().to_string()]).arg(place.bin().join("ckpt"));
                Job::start(command.args(arguments))?.end()
            };
            let pid = job.pid().to_string();
            let checked = from_outside(&["check", &pid])?;
            let saved = from_outside(&["save", &pid, "-o", &image.display().to_string()])?;
            for text in [&checked.out, &saved.err] {
                let named =
                    text.contains(object) && text.contains("mounts of the process's own") && text.contains("nsenter");
                ensure!(named, "{checked:#?} {saved:#?}");
            }
            ensure!(saved.code() == Some(88), "{saved:#?}");
            place.save(job.pid(), &image, &[])?;
            job.kill()?;
        }
        Ok(())
    })
}

#[test]
fn layers_on_a_disk() -> Result<()> {
    comes_back(Layers::Disk)
}

#[test]
fn layers_in_memory_and_on_a_disk() -> Result<()> {
    comes_back(Layers::Mixed)
}

#[test]
fn a_file_system_in_memory() -> Result<()> {
    comes_back(Layers::None)
}
