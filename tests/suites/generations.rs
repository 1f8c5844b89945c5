//! Several images of a job: kept, found whole or damaged, counted, listed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::{Bytes, Mark, expect_sound};
use ckpt_tests::{Job, Place, User, wait};
use rustix::process::Signal;

/// Damages the bytes of an image.
type Damage = fn(&mut Vec<u8>) -> Result<()>;

/// `ckpt run -o job.ckpt OPTIONS -- counter LAST out.txt 10`.
fn run(place: &Place, options: &[&str], last: &str) -> Result<Command> {
    let mut command = place.ckpt();
    command.args(["run", "-o", "job.ckpt"]).args(options).arg("--").arg(place.guest("counter")?);
    command.args([last, "out.txt", "10"]);
    Ok(command)
}

fn save(job: &Job, image: &Path) -> Result<()> {
    let before = Mark::of(image);
    job.send(Signal::USR1)?;
    let look = || {
        // At no moment is there none.
        ensure!(!before.is_there() || image.exists(), "the image is gone");
        Ok((Mark::of(image) != before).then_some(()))
    };
    wait::until(look, || format!("no image: {}", job.story()))
}

fn counted(last: u32) -> String {
    (1..=last).map(|i| format!("count {i}\n")).collect()
}

fn names(place: &Place) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(place.work())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        all.extend(name.starts_with("job.ckpt").then_some(name));
    }
    all.sort();
    Ok(all)
}

fn shown(place: &Place, image: &str) -> Result<serde_json::Value> {
    let shown = place.ckpt().args(["show", "--json", image]).output()?;
    ensure!(shown.status.success(), "{shown:?}");
    Ok(serde_json::from_slice(&shown.stdout)?)
}

#[test]
fn as_many_are_kept_as_is_asked_for() -> Result<()> {
    User::each(|user| {
        for (options, kept) in [
            (&[][..], &["job.ckpt", "job.ckpt.1"][..]),
            (&["--keep", "1"], &["job.ckpt"]),
            (&["--keep", "4"], &["job.ckpt", "job.ckpt.1", "job.ckpt.2", "job.ckpt.3"]),
        ] {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let job = Job::start(&mut run(&place, options, "100000")?)?;
            job.wait_line("count 3")?;
            for _ in 0..5 {
                save(&job, &image)?;
            }
            job.kill_process()?;
            fs::remove_file(place.file("job.ckpt.lock"))?;
            ensure!(names(&place)? == kept, "{options:?}: {:?}", names(&place)?);
            // Each is whole, and the older the earlier.
            let times = kept.iter().map(|name| {
                expect_sound(&place.file(name))?;
                fs::metadata(place.file(name))?.modified().map_err(Into::into)
            });
            let times = times.collect::<Result<Vec<_>>>()?;
            ensure!(times.is_sorted_by(|a, b| a > b), "{times:?}");
        }
        Ok(())
    })
}

#[test]
fn a_damaged_one_gives_its_place_to_the_one_before() -> Result<()> {
    User::each(|user| {
        let damages: [(&str, Damage); 4] = [
            ("cut", |bytes| {
                bytes.truncate(bytes.len() / 2);
                Ok(())
            }),
            ("empty", |bytes| {
                bytes.clear();
                Ok(())
            }),
            ("a note", |bytes| {
                let at = bytes.len().min(3000);
                bytes[at] ^= 1;
                Ok(())
            }),
            ("memory", |bytes| {
                let image = Bytes::new(bytes);
                let last = image.image()?.segments().last().context("no memory")?;
                bytes[usize::try_from(last.offset)? + 100] ^= 1;
                Ok(())
            }),
        ];
        for (what, damage) in damages {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let job = Job::start(&mut run(&place, &["-q"], "120")?)?;
            job.wait_line("count 3")?;
            save(&job, &image)?;
            job.wait_line("count 12")?;
            save(&job, &image)?;
            job.kill_process()?;
            let good = fs::read(place.file("job.ckpt.1"))?;
            let mut bytes = fs::read(&image)?;
            damage(&mut bytes)?;
            fs::remove_file(&image)?;
            place.write("job.ckpt", &bytes)?;
            fs::set_permissions(&image, fs::Permissions::from_mode(0o400))?;
            let mut again = Job::start(&mut run(&place, &[], "120")?)?;
            let ended = again.end().with_context(|| what)?;
            ended.expect_pass().with_context(|| what)?;
            let said: Vec<&str> = ended.err.lines().filter(|line| line.starts_with("ckpt: ")).collect();
            ensure!(said[0].contains("job.ckpt.damaged.1") && said[0].contains("the one before"), "{what}: {ended:#?}");
            ensure!(said[1].contains("job.ckpt.1: `") && said[1].contains("goes on from it"), "{what}: {ended:#?}");
            ensure!(fs::read_to_string(place.file("out.txt"))? == counted(120), "{what}: out.txt");
            ensure!(fs::read(place.file("job.ckpt.damaged.1"))? == bytes, "{what}: not kept");
            ensure!(fs::read(place.file("job.ckpt.done"))? == good, "{what}: {:?}", names(&place)?);
        }
        Ok(())
    })
}

#[test]
fn where_none_is_whole_nothing_starts() -> Result<()> {
    let place = Place::new(User::Own)?;
    for (names, code) in [(&["job.ckpt"][..], 73), (&["job.ckpt", "job.ckpt.1"], 73)] {
        let image = place.file("job.ckpt");
        let job = Job::start(&mut run(&place, &["-q"], "120")?)?;
        job.wait_line("count 3")?;
        save(&job, &image)?;
        save(&job, &image)?;
        job.kill_process()?;
        if names.len() == 1 {
            fs::remove_file(place.file("job.ckpt.1"))?;
        }
        for name in names {
            let mut bytes = fs::read(place.file(name))?;
            bytes.truncate(10_000);
            fs::remove_file(place.file(name))?;
            place.write(name, bytes)?;
        }
        let ended = Job::start(&mut run(&place, &["-q"], "120")?)?.end()?;
        ended.expect_code(code)?;
        ensure!(ended.out.is_empty(), "it was started anew: {ended:#?}");
        // Nothing of it is lost; the lock's file keeps what was said.
        let _ = fs::remove_file(place.file("job.ckpt.lock"));
        ensure!(self::names(&place)?.len() == names.len(), "{:?}", self::names(&place)?);
        for name in self::names(&place)? {
            fs::remove_file(place.file(name))?;
        }
    }
    Ok(())
}

/// What has the name of an older image, and is none of the job's, stays when the job is done.
#[test]
fn other_files_stay() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(&mut run(&place, &["-q", "--keep", "2"], "60")?)?;
    job.wait_line("count 3")?;
    save(&job, &image)?;
    save(&job, &image)?;
    place.write("job.ckpt.7", "a thesis")?;
    job.end()?.expect_pass()?;
    ensure!(names(&place)? == ["job.ckpt.7", "job.ckpt.done"], "{:?}", names(&place)?);
    Ok(())
}

/// Six generations by `ckpt run`: the output is as if nothing had happened, and each image tells how many lie behind it.
#[test]
fn six_generations() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let mut command = run(&place, &[], "100")?;
        for generation in 0..6 {
            let mut job = Job::start(&mut command)?;
            job.wait_text(&format!("count {}\n", 10 * (generation + 1)))?;
            job.send(Signal::TERM)?;
            job.end()?.expect_code(85)?;
            let shown = shown(&place, "job.ckpt")?;
            ensure!(shown["image"]["generation"] == generation, "{shown:#}");
        }
        let ended = Job::start(&mut command)?.end()?;
        ended.expect_pass()?;
        ensure!(ended.err.contains("after 5 restarts"), "{ended:#?}");
        ensure!(fs::read_to_string(place.file("out.txt"))? == counted(100));
        Ok(())
    })
}

/// The same by `ckpt save` and a restart, where nobody supervises: threads, and a tree.
#[test]
fn a_save_from_outside_counts_restarts() -> Result<()> {
    User::each(|user| {
        for (guest, arguments) in [("counter", &["100000", "out.txt", "10"][..]), ("process", &[])] {
            let place = Place::new(user)?;
            let job = Job::start(place.command(place.guest(guest)?).args(arguments))?;
            job.wait_text(if guest == "counter" { "count 3" } else { "ready" })?;
            place.save(job.pid(), &place.file("job.ckpt.0"), &["--kill"])?;
            drop(job);
            for generation in 1..4 {
                let image = place.file(format!("job.ckpt.{}", generation - 1));
                let pidfile = place.file("pid");
                let mut command = place.ckpt();
                command.args(["restart", "--files", "ignore", "--detach", "--pidfile"]).arg(&pidfile).arg(&image);
                let mut restart = Job::start(&mut command)?;
                let pid = wait::until(|| Ok(fs::read_to_string(&pidfile).ok()), || restart.story())?;
                let next = place.file(format!("job.ckpt.{generation}"));
                let mut saver = place.ckpt();
                saver.args(["save", "--kill", "-q", pid.trim(), "-o"]).arg(&next);
                Job::start(&mut saver)?.end()?.expect_code(0)?;
                fs::remove_file(&pidfile)?;
                restart.close_stdin();
                let shown = shown(&place, &format!("job.ckpt.{generation}"))?;
                ensure!(shown["image"]["generation"] == generation, "{guest}: {:#}", shown["image"]);
            }
        }
        Ok(())
    })
}

#[test]
fn images_are_listed() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let list = |options: &[&str]| -> Result<String> {
            let out = place.ckpt().arg("list").args(options).output()?;
            ensure!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            Ok(String::from_utf8(out.stdout)?)
        };
        ensure!(list(&[])? == ".: no images\n");
        let mut job = Job::start(&mut run(&place, &["-q"], "150")?)?;
        job.wait_line("count 3")?;
        save(&job, &image)?;
        save(&job, &image)?;
        let running = list(&[])?;
        ensure!(running.contains(&format!("newest: run by process {} on ", job.process())), "{running}");
        place.write("copy", fs::read(&image)?)?;
        let mut bytes = fs::read(&image)?;
        bytes.truncate(bytes.len() - 5);
        place.write("cut", bytes)?;
        place.write("thesis.ckpt", "no image")?;
        let compressed =
            place.ckpt().args(["save", "-q", "--compress", "zstd", "-o", "small", &job.pid().to_string()]).status()?;
        ensure!(!compressed.success() || place.file("small").exists());
        job.end()?.expect_pass()?;
        let json: serde_json::Value = serde_json::from_str(&list(&["--json", "."])?)?;
        let rows = json["images"].as_array().context("no rows")?;
        let row =
            |name: &str| rows.iter().find(|row| row["name"] == name).with_context(|| format!("no {name}: {json:#}"));
        ensure!(row("job.ckpt.done")?["state"] == "done" && row("copy")?["state"] == "newest");
        ensure!(
            row("copy")?["command"].as_str().is_some_and(|line| line.ends_with("counter 150 out.txt 10")),
            "{json:#}"
        );
        ensure!(
            row("cut")?["state"] == "damaged"
                && row("cut")?["note"].as_str().is_some_and(|note| note.contains("truncated"))
        );
        ensure!(row("copy")?["generation"] == 0 && row("copy")?["bytes"].as_u64() > Some(10_000));
        ensure!(row("thesis.ckpt").is_err());
        let table = list(&[&place.work().to_string_lossy()])?;
        ensure!(table.trim_start().starts_with("IMAGE") && table.contains("job.ckpt.done"), "{table}");
        Ok(())
    })
}
