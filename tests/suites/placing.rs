//! How an image takes its place: nothing but images is replaced, nothing partial stays, and who watches the directory sees it whole.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use ckpt_tests::image::{Mark, expect_sound};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, proc, wait};
use image_format::ExitCode;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

/// Whether the saver's file system knows files without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nameless {
    Known,
    Unknown,
}

const BOTH: [Nameless; 2] = [Nameless::Known, Nameless::Unknown];

/// `ckpt save PID -o IMAGE OPTIONS`.
fn save(place: &Place, how: Nameless, pid: u32, image: &Path, options: &[&str]) -> Result<Command> {
    let ckpt = place.bin().join("ckpt");
    let mut command = match how {
        Nameless::Known => place.command(ckpt),
        Nameless::Unknown => {
            let mut command = place.command(place.guest("notmpfile")?);
            command.arg(ckpt);
            command
        }
    };
    command.args(["save", &pid.to_string(), "-o"]).arg(image).args(options);
    Ok(command)
}

fn counter(place: &Place) -> Result<Job> {
    let job = Job::start(place.command(place.guest("counter")?).args(["100000", "count.txt", "10"]))?;
    job.wait_line("count 3")?;
    Ok(job)
}

/// All names in the working directory but these.
fn others(place: &Place, known: &[&str]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(place.work())? {
        let entry = entry?;
        let is_known = known.iter().any(|name| entry.file_name() == *name);
        all.extend((!is_known).then(|| entry.path()));
    }
    Ok(all)
}

#[test]
fn what_is_no_file_stays_what_it_is() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let job = counter(&place)?;
        fs::write(place.file("elsewhere"), "data")?;
        symlink("elsewhere", place.file("link"))?;
        symlink("nowhere", place.file("dangling"))?;
        fs::create_dir(place.file("dir"))?;
        mknodat(CWD, place.file("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
        let _socket = UnixListener::bind(place.file("socket"))?;
        let cases = [
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("dir", "is a directory"),
            ("fifo", "is a FIFO"),
            ("socket", "is a socket"),
        ];
        for how in BOTH {
            for (name, why) in cases {
                for options in [&[][..], &["--force"], &["--compress", "zstd"]] {
                    let path = place.file(name);
                    let before = fs::symlink_metadata(&path)?;
                    let ended = Job::start(&mut save(&place, how, job.pid(), &path, options)?)?.end()?;
                    ended.expect_code(ExitCode::SaveFailed as i32)?;
                    ensure!(ended.err.contains(why) && ended.err.contains(name), "{ended:#?}");
                    let after = fs::symlink_metadata(&path)?;
                    ensure!((after.ino(), after.mode()) == (before.ino(), before.mode()), "{name} is another one");
                }
            }
            // A device: as root, whom nobody else would stop.
            let ended = Job::start(&mut save(&place, how, job.pid(), Path::new("/dev/null"), &[])?)?.end()?;
            ended.expect_code(ExitCode::SaveFailed as i32)?;
            let null = fs::metadata("/dev/null")?;
            ensure!(null.file_type().is_char_device() && null.permissions().mode() & 0o777 == 0o666, "{null:?}");
        }
        ensure!(fs::read(place.file("elsewhere"))? == b"data" && !place.file("nowhere").exists());
        job.kill().map(drop)
    })
}

#[test]
fn a_file_that_is_no_image_is_replaced_when_asked_for() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let job = counter(&place)?;
        let image = place.file("job.ckpt");
        let ok = |options: &[&str]| -> Result<()> {
            Job::start(&mut save(&place, Nameless::Known, job.pid(), &image, options)?)?.end()?.expect_code(0)
        };
        // An empty file holds nothing; then each kind of image, by each kind.
        place.write("job.ckpt", "")?;
        for options in [&[][..], &[], &["--compress", "zstd"], &["--compress", "zstd"], &[]] {
            ok(options)?;
        }
        expect_sound(&image)?;
        // Of each, and in front of what only begins like one.
        let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 100]].concat();
        let elf = fs::read(place.bin().join("counter"))?;
        for data in [&b"a thesis"[..], &b"x".repeat(100_000), &zstd, &elf, b"\x7fELF"] {
            fs::remove_file(&image)?;
            place.write("job.ckpt", data)?;
            for options in [&[][..], &["--compress", "zstd"]] {
                let command = &mut save(&place, Nameless::Known, job.pid(), &image, options)?;
                let ended = Job::start(command)?.end()?;
                ended.expect_code(ExitCode::SaveFailed as i32)?;
                ensure!(ended.err.contains("is no image: choose another name; `ckpt save --force`"), "{ended:#?}");
                ensure!(fs::read(&image)? == data, "it was changed");
            }
            ok(&["--force"])?;
            expect_sound(&image)?;
        }
        job.kill().map(drop)
    })
}

/// One that saves itself keeps to the same.
#[test]
fn a_program_that_saves_itself_replaces_images_alone() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.write("job.ckpt", "a thesis")?;
        let job = Job::start(place.armed(place.guest("counter")?, &image).args(["100000", "count.txt", "10"]))?;
        job.wait_line("count 3")?;
        job.wait_armed()?;
        job.send(Signal::USR1)?;
        job.wait_err("is no image")?;
        ensure!(fs::read(&image)? == b"a thesis");
        job.kill()?;
        fs::remove_file(&image)?;
        let job = Job::start(place.armed(place.guest("counter")?, &image).args(["100000", "count.txt", "10"]))?;
        job.wait_line("count 3")?;
        for _ in 0..2 {
            job.save(&image)?;
            expect_sound(&image)?;
        }
        job.kill()?;
        ensure!(others(&place, &["count.txt", "job.ckpt"])?.is_empty());
        Ok(())
    })
}

/// A program whose image takes a while to write.
fn large(place: &Place) -> Result<Job> {
    const SCRIPT: &str = "import os, time\nhold = [os.urandom(1 << 20) for _ in range(96)]\nprint('ready', flush=True)\n\
        while True: time.sleep(0.01)\n";
    let job = Job::start(place.command(tool("python3", "python3")?).args(["-c", SCRIPT]))?;
    job.wait_line(READY)?;
    Ok(job)
}

/// Whether a process has a file of this directory open for the image.
fn is_writing(pid: u32, dir: &Path) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|to| {
        let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
        to.parent() == Some(dir) && (name.starts_with('#') || name.starts_with(".ckpt-"))
    })
}

/// Whatever ends the saver while it writes: no file stays, the old image is whole, the program goes on and can be saved.
#[test]
fn nothing_partial_stays() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let dir = place.work().canonicalize()?;
        let job = large(&place)?;
        let image = place.file("job.ckpt");
        for how in BOTH {
            for options in [&[][..], &["--freeze"], &["--compress", "zstd:1"]] {
                for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
                    let before = Mark::of(&image);
                    let mut saver = Job::start(&mut save(&place, how, job.pid(), &image, options)?)?;
                    // It is in the midst of it, or so fast that it is done.
                    let writes = || {
                        let over = matches!(proc::state(saver.pid()), None | Some('Z' | 'X'));
                        Ok((over || is_writing(saver.pid(), &dir)).then_some(()))
                    };
                    wait::until(writes, || saver.story())?;
                    let _ = saver.send(signal);
                    saver.end()?;
                    let gone = || Ok(others(&place, &["job.ckpt"])?.is_empty().then_some(()));
                    wait::until(gone, || {
                        format!("{how:?} {options:?} {signal:?}: {:?}", others(&place, &["job.ckpt"]))
                    })?;
                    ensure!(before == Mark::of(&image) || image.exists(), "the old image is gone");
                }
            }
            Job::start(&mut save(&place, how, job.pid(), &image, &[])?)?.end()?.expect_code(0)?;
            expect_sound(&image)?;
        }
        job.kill().map(drop)
    })
}

/// Where even its guard was killed, the next saver takes the place of what stayed; two at a time do not meet.
#[test]
fn what_stayed_all_the_same_does_not_add_up() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let job = large(&place)?;
        let image = place.file("job.ckpt");
        // The name that a saver without nameless files has for this image.
        let mut saver = Job::start(&mut save(&place, Nameless::Unknown, job.pid(), &image, &["--freeze"])?)?;
        let hidden = wait::until(|| Ok(others(&place, &["job.ckpt"])?.pop()), || saver.story())?;
        saver.end()?.expect_code(0)?;
        ensure!(!hidden.exists());
        for how in BOTH {
            fs::write(&hidden, vec![1; 100_000])?;
            place.give(&hidden)?;
            Job::start(&mut save(&place, how, job.pid(), &image, &[])?)?.end()?.expect_code(0)?;
            expect_sound(&image)?;
            ensure!(others(&place, &["job.ckpt"])?.is_empty(), "{:?}", others(&place, &[])?);
        }
        let second = counter(&place)?;
        let pids = [job.pid(), second.pid(), job.pid(), second.pid()];
        let savers =
            pids.iter().map(|pid| Job::start(&mut save(&place, Nameless::Unknown, *pid, &image, &["--freeze"])?));
        for mut saver in savers.collect::<Result<Vec<_>>>()? {
            // Of two that save one process the second is refused; both images are whole, and one is the last.
            let ended = saver.end()?;
            ensure!(ended.code() == Some(0) || ended.err.contains("traced"), "{ended:#?}");
        }
        expect_sound(&image)?;
        ensure!(others(&place, &["job.ckpt", "count.txt"])?.is_empty(), "{:?}", others(&place, &[])?);
        second.kill()?;
        job.kill().map(drop)
    })
}

/// Who watches the directory sees nothing before it is stopped, so that it can be saved there; then of an image that is whole.
#[test]
fn a_watcher_of_the_directory_is_saved_there() -> Result<()> {
    const SCRIPT: &str = "import ctypes, os, struct, sys, time\nlibc = ctypes.CDLL(None)\n\
        watch = libc.inotify_init1(0o4000); assert libc.inotify_add_watch(watch, b'.', 0xfff) > 0\n\
        def told():\n    try: data = os.read(watch, 65536)\n    except BlockingIOError: return []\n    all = []\n    while data:\n        \
        _, mask, _, n = struct.unpack_from('iIII', data); all.append((mask, data[16:16 + n].rstrip(b'\\0').decode())); data = data[16 + n:]\n    \
        return all\nprint('ready', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\n\
        seen = [(mask, name) for mask, name in told() if name != 'go' and mask & (0x100 | 0x40 | 0x80 | 0x200)]\n\
        print('seen', *(f'{mask:x}:{name}' for mask, name in seen), flush=True)\n";
    User::each(|user| {
        let python = tool("python3", "python3")?;
        for how in BOTH {
            for options in [&["--kill"][..], &[], &["--freeze"], &["--kill", "--compress", "zstd"]] {
                let place = Place::new(user)?;
                let image = place.file("job.ckpt");
                let mut job = Job::start(place.command(&python).args(["-c", SCRIPT]))?;
                job.wait_line(READY)?;
                Job::start(&mut save(&place, how, job.pid(), &image, options)?)?.end()?.expect_code(0)?;
                place.go()?;
                let ended = job.end()?;
                // Who went on may see it come: by a name of its own, or hidden and then by its own.
                if let Some(line) = ended.out.lines().find(|line| line.starts_with("seen")) {
                    let names: Vec<_> = line.split(' ').skip(1).collect();
                    let hidden = how == Nameless::Unknown && names.len() == 3;
                    ensure!(names == ["100:job.ckpt"] || hidden && names[2] == "80:job.ckpt", "{ended:#?}");
                }
                let again = Job::start(place.ckpt().arg("restart").arg(&image))?.end()?;
                ensure!(again.code() == Some(0) && again.out == "seen\n", "{how:?} {options:?}: {again:#?}");
            }
        }
        Ok(())
    })
}
