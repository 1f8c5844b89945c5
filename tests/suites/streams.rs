//! Images on their way: compressed or not, into files and through pipes; what comes whole goes on, what does not is named.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::job::in_own_session;
use ckpt_tests::remote::{ends_within, random, undisturbed};
use ckpt_tests::{Job, Place, Pty, READY, User};

/// The first bytes of a zstd stream.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A guest that waits, saved through this pipeline of a shell, ended, restarted, checks itself.
fn through(place: &Place, pipeline: &str) -> Result<()> {
    let mut job = Job::start(&mut place.command(place.guest("memory")?))?;
    job.wait_line(READY)?;
    let mut sh = place.command("/bin/bash");
    sh.env("CKPT", place.bin().join("ckpt")).env("GUEST", job.pid().to_string());
    let mut sh = Job::start(sh.args(["-o", "pipefail", "-c", pipeline]))?;
    drop(job.end()?);
    place.go()?;
    let ended = sh.end()?;
    ensure!(ended.code() == Some(0) && ended.out.lines().last() == Some("PASS"), "{pipeline}: {ended:#?}");
    place.halt()
}

#[test]
fn pipes() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o - | "$CKPT" restart -"#)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o - --compress zstd | "$CKPT" restart -"#)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o - --compress zstd:19 | cat | "$CKPT" restart -"#)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o - | zstd -q -T2 | "$CKPT" restart -"#)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o - --compress zstd | zstd -q -d | "$CKPT" restart -"#)?;
        through(&place, r#""$CKPT" save "$GUEST" --kill -q -o job.zst --compress zstd; "$CKPT" restart job.zst"#)
    })
}

/// At any moment of a program's work, live and frozen.
#[test]
fn random_moments() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let program = place.guest("chain")?;
        let (expected, time) = undisturbed(&mut place.command(&program))?;
        let expected = String::from_utf8(expected)?;
        let mut job = Job::start(&mut place.command(&program))?;
        let mut images = Vec::new();
        for options in [&["--compress", "zstd"][..], &["--freeze", "--compress", "zstd:1"]] {
            ensure!(!ends_within(job.pid(), time.mul_f64(random() / 4.0))?, "it was too fast");
            let image = place.file(format!("{}.zst", images.len()));
            place.save(job.pid(), &image, options)?;
            let mode = fs::metadata(&image)?.permissions().mode();
            ensure!(mode & 0o7777 == 0o400 && fs::read(&image)?.starts_with(&ZSTD), "mode {mode:o}");
            images.push(image);
        }
        let ended = job.end()?;
        ensure!(ended.out == expected && ended.err.is_empty(), "disturbed by a live save: {ended:#?}");
        for image in images {
            let restarted = Job::start(place.ckpt().arg("restart").arg(&image))?.end()?;
            restarted.expect_pass()?;
            ensure!(expected.ends_with(&restarted.out), "{restarted:#?}");
        }
        no_temporary_files(&place)
    })
}

fn no_temporary_files(place: &Place) -> Result<()> {
    for entry in fs::read_dir(place.work())? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().starts_with(".ckpt-"), "{name:?} was left behind");
    }
    Ok(())
}

/// `restart-stub` says what it is; `ckpt run` goes on from one, and makes one.
#[test]
fn stub_and_run() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.zst");
        let start = |place: &Place| {
            let mut run = place.ckpt();
            run.args(["run", "--compress", "zstd", "-o"]).arg(&image).arg("--").arg(place.bin().join("memory"));
            Job::start(&mut run)
        };
        place.guest("memory")?;
        let mut job = start(&place)?;
        job.wait_line(READY)?;
        job.send(rustix::process::Signal::TERM)?;
        job.end()?.expect_code(85)?;
        ensure!(fs::read(&image)?.starts_with(&ZSTD), "not compressed");
        let stub = Job::start(&mut place.stub(&image))?.end()?;
        stub.expect_code(71)?;
        ensure!(stub.err.contains("compressed with zstd: `ckpt restart` reads it"), "{stub:#?}");
        place.go()?;
        let ended = start(&place)?.end()?;
        ended.expect_pass()
    })
}

/// Bytes into `ckpt restart -`: its code, and what it said.
fn fed(place: &Place, bytes: &[u8]) -> Result<(Option<i32>, String)> {
    fs::write(place.file("stream"), bytes)?;
    let mut sh = place.command("/bin/sh");
    sh.env("CKPT", place.bin().join("ckpt")).args(["-c", r#"cat stream | "$CKPT" restart -"#]);
    let ended = Job::start(&mut sh)?.end()?;
    Ok((ended.code(), ended.err))
}

/// Cut at any byte, or with any byte changed, nothing starts, and the code says why.
#[test]
fn cut_and_damaged_streams() -> Result<()> {
    let place = Place::new(User::Own)?;
    let job = Job::start(&mut place.command(place.guest("memory")?))?;
    job.wait_line(READY)?;
    for (name, options) in [("plain", &[][..]), ("zstd", &["--compress", "zstd"])] {
        let image = place.file(name);
        place.save(job.pid(), &image, options)?;
        let good = fs::read(&image)?;
        for _ in 0..12 {
            let at = (good.len() as f64 * random()) as usize;
            let (code, said) = fed(&place, &good[..at])?;
            ensure!(matches!(code, Some(70 | 71 | 73)), "{name} cut at {at}: {code:?} {said}");
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            let (code, said) = fed(&place, &bad)?;
            ensure!(matches!(code, Some(70..=78 | 89)), "{name} changed at {at}: {code:?} {said}");
        }
    }
    job.kill().map(drop)
}

/// Whatever stops the stream, the program goes on, and an older image is whole.
#[test]
fn a_save_that_cannot_write() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.zst");
        let mut job = Job::start(&mut place.command(place.guest("memory")?))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--compress", "zstd"])?;
        let before = fs::read(&image)?;
        for options in ["", "--kill", "--freeze"] {
            // A reader that leaves, and a limit that a disk's end is like.
            let mut sh = place.command("/bin/bash");
            sh.env("CKPT", place.bin().join("ckpt")).env("GUEST", job.pid().to_string()).env("MORE", options);
            let lines = r#"trap '' XFSZ
                "$CKPT" save "$GUEST" $MORE -q -o - --compress zstd | true; echo "stream ${PIPESTATUS[0]}"
                ulimit -f 8; "$CKPT" save "$GUEST" $MORE -q -o job.zst --compress zstd; echo "file $?""#;
            let ended = Job::start(sh.args(["-c", lines]))?.end()?;
            ensure!(ended.out == "stream 88\nfile 88\n", "{options} {ended:#?}");
            ensure!(
                ended.err.lines().all(|l| l.contains("cannot be written")) && ended.err.lines().count() == 2,
                "{ended:#?}"
            );
            ensure!(fs::read(&image)? == before, "the old image has changed");
        }
        no_temporary_files(&place)?;
        ensure!(!ends_within(job.pid(), Duration::ZERO)?, "{}", job.story());
        place.go()?;
        job.end()?.expect_pass()
    })
}

/// A FIFO in the place of the image.
#[test]
fn a_fifo() -> Result<()> {
    let place = Place::new(User::Own)?;
    let fifo: &Path = &place.file("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    through(&place, r#"("$CKPT" save "$GUEST" --kill -q -o - --compress zstd >fifo) & "$CKPT" restart fifo"#)
}

/// Long work says on a terminal how far it is. Anywhere else its last line is the only one. What makes it long here is the reader of the image.
#[test]
fn progress_is_for_terminals() -> Result<()> {
    let place = Place::new(User::Own)?;
    let guest = place.guest("umask")?;
    let start = || Job::start(&mut place.command(&guest));
    let jobs = [start()?, start()?];
    let save = |job: &Job| {
        let mut save = place.bare(place.bin().join("ckpt"));
        save.args(["save", "-o", "-", &job.pid().to_string()]).stdout(Stdio::piped());
        save
    };
    for job in &jobs {
        job.wait_line(READY)?;
    }
    let mut begun = [0];
    let mut silent = save(&jobs[0]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut image = silent.stdout.take().context("a pipe")?;
    image.read_exact(&mut begun)?;

    // It begins later; so when it shows something, the other one takes long enough to show something, too.
    let pty = Pty::new(User::Own, 24, 80)?;
    let mut shown = save(&jobs[1]);
    in_own_session(&mut shown, true);
    let mut shown = shown.stdin(pty.other_end()?).stderr(pty.other_end()?).spawn()?;
    let mut other = shown.stdout.take().context("a pipe")?;
    let screen = pty.screen();
    other.read_exact(&mut begun)?;
    let says = |text: &str| text.contains("saving: ") && text.contains("/s, ") && text.contains(" left");
    ensure!(screen.wait(says), "no progress: {:?}", screen.text());
    let text = screen.text().replace("\u{1b}[2K", "");
    ensure!(text.split(['\r', '\n']).all(|line| line.chars().count() <= 80), "wider than the terminal: {text:?}");

    for (from, child) in [(&mut image, &mut silent), (&mut other, &mut shown)] {
        std::io::copy(from, &mut std::io::sink())?;
        ensure!(child.wait()?.success(), "{child:?}");
    }
    let last = |line: &str| line.starts_with("standard output: ") && line.contains(", paused ");
    let mut said = String::new();
    silent.stderr.take().context("a pipe")?.read_to_string(&mut said)?;
    ensure!(said.lines().count() == 1 && last(&said), "more than its line: {said:?}");
    // What was drawn is wiped away.
    let wiped = |text: &str| text.rsplit("\u{1b}[2K").next().is_some_and(|rest| last(rest.trim_start_matches('\r')));
    ensure!(screen.wait(wiped), "{:?}", screen.text());
    place.go()?;
    jobs.into_iter().try_for_each(|mut job| job.end()?.expect_pass())
}
