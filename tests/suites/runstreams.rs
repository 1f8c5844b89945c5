//! What a job of `ckpt run` is given when it goes on: standard streams whose files are gone or changed, descriptors, a directory that has moved.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, job, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Says numbered lines on standard output and error, to `go`.
const LINES: &str = "import os, sys, time\nn = 0\nwhile not os.path.exists('go'):\n    n += 1\n    print('out', n, flush=True)\n    \
    print('err', n, file=sys.stderr, flush=True)\n    time.sleep(0.01)\nprint('out last', flush=True)\n";

/// `ckpt run -q -o job.ckpt OPTIONS -- WORDS`.
fn run(place: &Place, options: &[&str], words: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.args(["run", "-q", "-o", "job.ckpt"]).args(options).arg("--").args(words);
    command.stdin(Stdio::null());
    command
}

fn python(place: &Place, options: &[&str], script: &str) -> Result<Command> {
    Ok(run(place, options, &[&tool("python3", "python3")?.to_string_lossy(), "-c", script]))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn until(path: &Path, what: impl Fn(&str) -> bool) -> Result<()> {
    wait::until(|| Ok(what(&read(path)).then_some(())), || format!("{}: {:?}", path.display(), read(path)))
}

fn end(mut child: Child, expected: i32) -> Result<()> {
    let look = || Ok(child.try_wait()?);
    let status = wait::until(look, || "it does not end".to_owned())?;
    ensure!(status.code() == Some(expected), "{status:?}");
    Ok(())
}

fn send(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

fn lines<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines().filter(|line| line.starts_with(word)).collect()
}

/// Numbers follow each other; the first one and how many.
fn expect_row(text: &str, word: &str) -> Result<u32> {
    let numbers: Vec<u32> = lines(text, word).iter().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    let first = *numbers.first().with_context(|| format!("no line {word}: {text:?}"))?;
    ensure!(numbers.iter().copied().eq(first..first + numbers.len() as u32), "{word}: {numbers:?}");
    Ok(first)
}

/// How somebody opens the log of each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// `>log 2>&1`, as at each requeue.
    Truncated,
    /// `>>log 2>&1`.
    Appended,
    /// At its end, not for appending: a shell's own output, handed on.
    Kept,
    /// Another file of the same name; the old one has another.
    Rotated,
    /// Gone; another file.
    Deleted,
    /// By root, whose it is, for another user.
    Roots,
}

impl Log {
    fn open(self, path: &Path, first: bool) -> Result<File> {
        match self {
            Self::Rotated if !first => fs::rename(path, path.with_extension("1"))?,
            Self::Deleted if !first => fs::remove_file(path)?,
            _ => {}
        }
        let mut open = OpenOptions::new();
        open.create(true).write(true).append(matches!(self, Self::Appended)).truncate(self == Self::Truncated);
        let mut file = open.open(path)?;
        file.seek(SeekFrom::End(0))?;
        let mode = if self == Self::Roots { 0o600 } else { 0o666 };
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(file)
    }
}

#[test]
fn logs_of_all_kinds() -> Result<()> {
    User::each(|user| {
        for log in [Log::Truncated, Log::Appended, Log::Kept, Log::Rotated, Log::Deleted, Log::Roots] {
            let place = Place::new(user)?;
            let path = place.file("log");
            let start = |first: bool| -> Result<Child> {
                let file = log.open(&path, first)?;
                let mut command = python(&place, &[], LINES)?;
                Ok(command.stdout(file.try_clone()?).stderr(file).spawn()?)
            };
            let story = |e: anyhow::Error| e.context(format!("{log:?}: {:?}", read(&path)));
            let child = start(true)?;
            until(&path, |text| text.contains("err 5\n"))?;
            send(&child, Signal::TERM)?;
            end(child, 85).map_err(story)?;
            let before = read(&path);
            let child = start(false)?;
            let had = lines(&before, "err").len() as u32;
            until(&path, |text| text.contains(&format!("err {}\n", had + 5))).map_err(story)?;
            place.go()?;
            end(child, 0).map_err(story)?;
            let text = read(&path);
            ensure!(!text.contains('\0') && text.ends_with("out last\n"), "{log:?}: {text:?}");
            let first = [expect_row(&text, "out").map_err(story)?, expect_row(&text, "err").map_err(story)?];
            match log {
                // All of it, as if nothing had happened.
                Log::Appended | Log::Kept | Log::Roots => ensure!(first == [1, 1], "{log:?}: {text:?}"),
                // What follows the save.
                _ => ensure!(first.iter().all(|n| n.abs_diff(had) <= 1), "{log:?}: {first:?} after {had}"),
            }
            if log == Log::Rotated {
                ensure!(read(&path.with_extension("1")) == before, "the old log was changed");
            }
            ensure!(!place.file("log.after-restart.1").exists() || log != Log::Rotated);
        }
        Ok(())
    })
}

/// Parts of a job that write to files of their own go on there; those that share the job's standard output follow it.
#[test]
fn a_tree_whose_log_was_truncated() -> Result<()> {
    const SCRIPT: &str = "python3 -c 'import time, os\nn = 0\nwhile not os.path.exists(\"go\"): n += 1; print(\"own\", n, flush=True); time.sleep(0.01)' >own.txt &\n\
        n=0; while [ ! -e go ]; do n=$((n+1)); echo out $n; sleep 0.02; done; wait; echo out last";
    User::each(|user| {
        let place = Place::new(user)?;
        let (log, own) = (place.file("log"), place.file("own.txt"));
        let start = || -> Result<Child> {
            let file = Log::Truncated.open(&log, false)?;
            let mut command = run(&place, &[], &[&tool("bash", "bash")?.to_string_lossy(), "-c", SCRIPT]);
            command.env("PATH", "/usr/bin:/bin");
            Ok(command.stdout(file.try_clone()?).stderr(file).spawn()?)
        };
        let child = start()?;
        until(&log, |text| text.contains("out 5\n"))?;
        until(&own, |text| text.contains("own 5\n"))?;
        send(&child, Signal::TERM)?;
        end(child, 85)?;
        let had = lines(&read(&own), "own").len();
        let child = start()?;
        until(&own, |text| text.contains(&format!("own {}\n", had + 5)))?;
        until(&log, |text| lines(text, "out").len() > 5)?;
        place.go()?;
        end(child, 0)?;
        ensure!(expect_row(&read(&own), "own")? == 1 && !read(&own).contains("out"), "{}", read(&own));
        expect_row(&read(&log), "out ").map(drop)?;
        ensure!(read(&log).ends_with("out last\n") && !read(&log).contains("own"), "{}", read(&log));
        Ok(())
    })
}

/// A shell that has redirected a command keeps its own output under a high number meanwhile. That is the job's stream all the same, in each generation;
/// what the command writes is not.
#[test]
fn a_stream_that_a_shell_has_put_aside() -> Result<()> {
    const SCRIPT: &str = "set -e; echo begun; python3 -c 'import time, os\nn = 0\nwhile not os.path.exists(\"go\"): n += 1; print(\"own\", n, flush=True); time.sleep(0.01)' >own.txt 2>&1; \
        echo out last; echo err last >&2";
    User::each(|user| {
        for log in [Log::Truncated, Log::Appended, Log::Rotated, Log::Deleted, Log::Roots] {
            let place = Place::new(user)?;
            let (path, own) = (place.file("log"), place.file("own.txt"));
            let start = |first: bool| -> Result<Child> {
                let file = log.open(&path, first)?;
                let mut command = run(&place, &[], &["/bin/dash", "-c", SCRIPT]);
                command.env("PATH", "/usr/bin:/bin");
                Ok(command.stdout(file.try_clone()?).stderr(file).spawn()?)
            };
            let story = |e: anyhow::Error| e.context(format!("{log:?}: {:?}", read(&path)));
            let further =
                |from: usize| until(&own, |text| text.contains(&format!("own {}\n", from + 5))).map_err(story);
            let mut child = start(true)?;
            for _ in 0..3 {
                further(lines(&read(&own), "own").len())?;
                send(&child, Signal::TERM)?;
                end(child, 85).map_err(story)?;
                child = start(false)?;
            }
            further(lines(&read(&own), "own").len())?;
            place.go()?;
            end(child, 0).map_err(story)?;
            let text = read(&path);
            ensure!(
                !text.contains('\0') && text.ends_with("out last\nerr last\n") && !text.contains("own"),
                "{log:?}: {text:?}"
            );
            ensure!(matches!(log, Log::Appended | Log::Roots) == text.starts_with("begun\n"), "{log:?}: {text:?}");
            ensure!(expect_row(&read(&own), "own")? == 1, "{log:?}: {}", read(&own));
        }
        Ok(())
    })
}

/// A file of the program's own that is gone is missed: standard output of the moment does not take its place.
#[test]
fn a_large_file_that_is_gone_is_missed() -> Result<()> {
    const SCRIPT: &str = "import os, sys, time\nf = open('large', 'w'); f.write('x' * 3000000); f.flush()\nos.dup2(f.fileno(), 1)\nprint('ready', file=sys.stderr, flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\nos.write(1, b'end')\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(&mut python(&place, &[], SCRIPT)?)?;
        job.wait_err("ready")?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        fs::rename(place.file("large"), place.file("kept"))?;
        let refused = Job::start(&mut python(&place, &[], SCRIPT)?)?.end()?;
        ensure!(refused.code() == Some(81) && refused.err.contains("/large"), "{refused:#?}");
        fs::rename(place.file("kept"), place.file("large"))?;
        place.go()?;
        Job::start(&mut python(&place, &[], SCRIPT)?)?.end()?.expect_code(0)?;
        ensure!(read(&place.file("large")).len() == 3_000_003);
        Ok(())
    })
}

/// Input that is not what it was is never taken for it.
#[test]
fn another_input_is_refused() -> Result<()> {
    const SCRIPT: &str = "import os, sys, time\nfirst = sys.stdin.readline()\nprint('ready', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\nprint('got', repr(first + sys.stdin.read()), flush=True)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let input = place.write("input", "one\ntwo\n")?;
        let start = |input: Stdio| -> Result<Child> {
            let mut command = python(&place, &[], SCRIPT)?;
            let (out, err) =
                (Log::Appended.open(&place.file("log"), true)?, Log::Appended.open(&place.file("err"), true)?);
            Ok(command.stdin(input).stdout(out).stderr(err).spawn()?)
        };
        let child = start(File::open(&input)?.into())?;
        until(&place.file("log"), |text| text.contains("ready"))?;
        send(&child, Signal::TERM)?;
        end(child, 85)?;
        place.go()?;
        // Another one of the same length.
        fs::rename(&input, place.file("kept"))?;
        place.write("input", "six\nten\n")?;
        end(start(File::open(&input)?.into())?, 83)?;
        ensure!(read(&place.file("err")).contains("input"), "{}", read(&place.file("err")));
        fs::rename(place.file("kept"), &input)?;
        end(start(File::open(&input)?.into())?, 0)?;
        ensure!(read(&place.file("log")).ends_with("got 'one\\ntwo\\n'\n"), "{}", read(&place.file("log")));
        Ok(())
    })
}

/// A descriptor that somebody else has left open is no part of the job; one that is asked for is.
#[test]
fn descriptors_that_were_left_open() -> Result<()> {
    const SCRIPT: &str = "import os, time\ndef is_open(fd):\n    try: return os.fstat(fd)\n    except OSError: return None\n\
        print('has', *filter(is_open, range(300)), flush=True)\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n\
        try: print('read', repr(os.read(5, 100)), flush=True)\nexcept OSError as e: print('no', e.errno)\nprint('PASS', flush=True)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let (reader, mut writer) = std::io::pipe()?;
        let raw = reader.as_raw_fd();
        let start = |options: &[&str], open: &'static [i32]| -> Result<Job> {
            let mut command = python(&place, options, SCRIPT)?;
            job::with_descriptor(&mut command, raw, open);
            Job::start(&mut command)
        };
        let wrong = start(&["--keep-fd", "77"], &[5])?.end()?;
        wrong.expect_code(64)?;
        ensure!(wrong.err.contains("--keep-fd 77: this command has no such descriptor"), "{wrong:#?}");
        // Left open by accident: an editor's terminal, a job server.
        let mut job = start(&[], &[5, 9, 251])?;
        job.wait_line("ready")?;
        ensure!(job.out().starts_with("has 0 1 2\n"), "{}", job.story());
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        place.go()?;
        let ended = start(&[], &[])?.end()?;
        ensure!(ended.out == "no 9\nPASS\n", "{ended:#?}");
        // One that is wanted needs its like at the restart, or what takes its place.
        place.halt()?;
        let mut job = start(&["--keep-fd", "5"], &[5, 9])?;
        job.wait_line("ready")?;
        ensure!(job.out().starts_with("has 0 1 2 5\n"), "{}", job.story());
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        place.go()?;
        let image = fs::read(place.file("job.ckpt"))?;
        let refused = start(&[], &[])?.end()?;
        refused.expect_code(84)?;
        ensure!(refused.err.contains("--fd 5=PATH") && refused.err.contains("--fd 5=closed"), "{refused:#?}");
        writer.write_all(b"hello")?;
        let file = place.write("file", "from a file")?;
        let by_path = format!("5={}", file.display());
        for (options, open, got) in [
            (&["--fd", "5=closed"][..], &[][..], "read b''\n"),
            (&["--fd", &by_path], &[], "read b'from a file'\n"),
            (&["--fd", "5=inherit"], &[5], "read b'hello'\n"),
        ] {
            let ended = start(options, open)?.end()?;
            ended.expect_pass()?;
            ensure!(ended.out.contains(got), "{options:?}: {ended:#?}");
            let path = place.write("job.ckpt", &image)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        }
        Ok(())
    })
}

/// `ckpt save` says what a restart will need for a pipe that somebody has left open; what leads nowhere else is not told.
#[test]
fn a_save_names_what_leads_outside() -> Result<()> {
    const SCRIPT: &str = "import os, time\na, b = os.pipe(); c, d = os.pipe(); os.close(d)\nprint('ready', flush=True)\ntime.sleep(1000)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let (reader, _writer) = std::io::pipe()?;
        let raw = reader.as_raw_fd();
        let mut command = place.command(tool("python3", "python3")?);
        job::with_no_other_descriptors(&mut command);
        job::with_descriptor(&mut command, raw, &[251]);
        let job = Job::start(command.args(["-c", SCRIPT]))?;
        job.wait_line("ready")?;
        let saved = place.save(job.pid(), &place.file("job.ckpt"), &["--kill"])?;
        let told: Vec<&str> = saved.err.lines().filter(|line| line.contains("leads to another process")).collect();
        let [line] = told[..] else { anyhow::bail!("{saved:#?}") };
        ensure!(line.contains("descriptor 251 (pipe:[") && line.contains("--fd 251=closed"), "{line}");
        drop(job);
        Ok(())
    })
}

/// A scheduler's directory for the job is another one on the next machine: files that lay in it lie in the new one.
#[test]
fn a_directory_that_has_moved() -> Result<()> {
    const SCRIPT: &str = "import os, time\nf = open('data/out.txt', 'a')\nn = 0\nwhile not os.path.exists('go'):\n    n += 1\n    print('out', n, file=f, flush=True)\n    \
        if n == 5: print('ready', flush=True)\n    time.sleep(0.01)\nprint('cwd', os.getcwd(), flush=True)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let (old, new) = (place.file("execute.1"), place.file("execute.2"));
        fs::create_dir_all(old.join("data"))?;
        [&old, &old.join("data")].iter().try_for_each(|dir| place.give(dir))?;
        let start = |dir: &Path| Job::start(place_in(&place, dir)?.current_dir(dir));
        fn place_in(place: &Place, _: &Path) -> Result<Command> {
            let mut command = place.ckpt();
            command.args(["run", "-o", "job.ckpt", "--"]).arg(tool("python3", "python3")?).args(["-c", SCRIPT]);
            Ok(command)
        }
        let mut job = start(&old)?;
        job.wait_line("ready")?;
        job.send(Signal::TERM)?;
        job.end()?.expect_code(85)?;
        fs::rename(&old, &new)?;
        let had = read(&new.join("data/out.txt")).lines().count();
        let mut job = start(&new)?;
        until(&new.join("data/out.txt"), |text| text.lines().count() > had + 5)?;
        fs::write(new.join("go"), "")?;
        let ended = job.end()?;
        ensure!(ended.code() == Some(0) && ended.out.contains("execute.2\n"), "{ended:#?}");
        let said = ended
            .err
            .lines()
            .any(|line| line.contains("execute.1: is not there any more: what lay there is taken from "));
        ensure!(said, "{ended:#?}");
        expect_row(&read(&new.join("data/out.txt")), "out").map(drop)
    })
}

/// A new pipe, as a scheduler or a shell makes one for each run.
#[test]
fn a_new_pipe_takes_the_old_ones_place() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let log = Log::Appended.open(&place.file("log"), true)?;
        let mut first = python(&place, &[], LINES)?;
        let child = first.stdout(log.try_clone()?).stderr(log).spawn()?;
        until(&place.file("log"), |text| text.contains("err 5\n"))?;
        send(&child, Signal::TERM)?;
        end(child, 85)?;
        fs::remove_file(place.file("log"))?;
        let (mut reader, writer) = std::io::pipe()?;
        let mut again = python(&place, &[], LINES)?;
        let child = again.stdout(OwnedFd::from(writer.try_clone()?)).stderr(OwnedFd::from(writer)).spawn()?;
        drop(again);
        place.go()?;
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        end(child, 0)?;
        ensure!(text.ends_with("out last\n"), "{text:?}");
        Ok(())
    })
}
