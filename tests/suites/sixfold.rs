//! `ckpt run` over six generations of jobs with several processes: ended by SIGTERM and by kill -9 of everything in turn, or by kill -9 at any
//! moment between and during the saves of `--every`, their results are those of an undisturbed run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::{sources, tool};
use ckpt_tests::remote::{ends_within, random};
use ckpt_tests::steps::allow;
use ckpt_tests::{Job, Place, User, wait};
use rustix::process::Signal;

/// How often a job is ended and goes on.
const GENERATIONS: usize = 6;

/// A job: its command, its steps, the file that tells how far it is, and what the names of its results begin with. It makes no step before the test has
/// allowed it, see [`allow`]: it has never ended before the test ends it, however slow the machine is.
struct Long {
    command: Vec<String>,
    steps: u64,
    log: &'static str,
    results: &'static str,
    /// Whether kill -9 of everything leaves its ports taken for a minute, as its sockets do without `SO_REUSEADDR`: once is enough then.
    waits: bool,
}

impl Long {
    fn of(words: &[&str], steps: u64, log: &'static str) -> Self {
        Self { command: words.iter().map(|word| (*word).to_owned()).collect(), steps, log, results: log, waits: false }
    }

    /// Lines that its log has.
    fn lines(&self, place: &Place) -> usize {
        fs::read_to_string(place.file(self.log)).map_or(0, |text| text.lines().count())
    }

    /// Lets it go on, and waits until it has come some lines further than `from`.
    fn goes_on(&self, place: &Place, job: &Job, from: usize) -> Result<usize> {
        /// Of a log that a rollback has cut first.
        const FURTHER: usize = 3;
        /// So that it is at work when it is ended.
        const ALLOWED: u64 = 8;
        let allowed = u64::try_from(from)? + ALLOWED;
        ensure!(allowed < self.steps, "it has too few steps");
        allow(place, allowed)?;
        let look = || {
            let lines = self.lines(place);
            Ok((lines >= from + FURTHER).then_some(lines))
        };
        wait::until(look, || format!("no further than {from} lines: {}", job.story()))
    }

    /// Its results: names and contents.
    fn written(&self, place: &Place) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(place.work())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // What a restart has cut off is kept beside.
            if name.starts_with(self.results) && !name.contains(".after-restart.") {
                all.insert(name.clone(), fs::read_to_string(place.file(&name))?);
            }
        }
        Ok(all)
    }

    fn undisturbed(&self, user: User, prepare: &dyn Fn(&Place) -> Result<()>) -> Result<BTreeMap<String, String>> {
        let place = Place::new(user)?;
        prepare(&place)?;
        allow(&place, self.steps)?;
        let mut command = place.command(&self.command[0]);
        Job::start(command.args(&self.command[1..]))?.end()?.expect_code(0)?;
        self.written(&place)
    }
}

fn run(place: &Place, long: &Long, options: &[&str]) -> Command {
    let mut command = place.ckpt();
    command.args(["run", "-o", "job.ckpt"]).args(options).arg("--").args(&long.command);
    command
}

/// Waits until a job says that it goes on from its image, for its ports if need be.
fn wait_goes_on(long: &Long, job: &Job) -> Result<()> {
    let mut waited = 0..if long.waits { 3 } else { 1 };
    ensure!(waited.any(|_| job.wait_err("goes on from it").is_ok()), "{}", job.story());
    Ok(())
}

/// The last one: to its end, with the results of an undisturbed run.
fn finish(place: &Place, long: &Long, expected: &BTreeMap<String, String>) -> Result<()> {
    allow(place, long.steps)?;
    let mut job = Job::start(&mut run(place, long, &[]))?;
    wait_goes_on(long, &job)?;
    let last = job.end()?;
    last.expect_code(0)?;
    let found = long.written(place)?;
    ensure!(found == *expected, "{found:#?}\ninstead of\n{expected:#?}");
    let is_done = !place.file("job.ckpt").exists() && place.file("job.ckpt.done").exists();
    ensure!(is_done, "it is not done: {last:#?}");
    Ok(())
}

fn six(long: &Long, prepare: impl Fn(&Place) -> Result<()>) -> Result<()> {
    User::each(|user| {
        let expected = long.undisturbed(user, &prepare)?;
        let place = Place::new(user)?;
        prepare(&place)?;
        allow(&place, 0)?;
        let image = place.file("job.ckpt");
        let mut at = 0;
        for generation in 0..GENERATIONS {
            let mut job = Job::start(&mut run(&place, long, &[]))?;
            if generation != 0 {
                wait_goes_on(long, &job).with_context(|| format!("generation {generation}"))?;
                at = long.lines(&place);
            }
            at = long.goes_on(&place, &job, at)?;
            let ends = (|| {
                if generation % 2 == 0 || long.waits && generation != 1 {
                    job.send(Signal::TERM)?;
                    return job.end()?.expect_code(85);
                }
                let before = Mark::of(&image);
                job.send(Signal::USR1)?;
                wait::until(
                    || Ok((Mark::of(&image) != before).then_some(())),
                    || format!("no image: {}", job.story()),
                )?;
                // What it does after that is lost.
                long.goes_on(&place, &job, at)?;
                job.send(Signal::KILL)?;
                job.end().map(drop)
            })();
            ends.with_context(|| format!("generation {generation}"))?;
        }
        finish(&place, long, &expected)
    })
}

/// Killed (kill -9 of everything) at any moment between two saves of `--every`, or during one.
fn every(long: &Long, prepare: impl Fn(&Place) -> Result<()>) -> Result<()> {
    /// What `--every 1s` leaves between two saves, and the next save.
    const BETWEEN: Duration = Duration::from_millis(1200);
    User::each(|user| {
        let expected = long.undisturbed(user, &prepare)?;
        let place = Place::new(user)?;
        prepare(&place)?;
        allow(&place, long.steps - 1)?;
        let image = place.file("job.ckpt");
        for generation in 0..if long.waits { 1 } else { GENERATIONS } {
            let before = Mark::of(&image);
            let mut job = Job::start(&mut run(&place, long, &["--every", "1s"]))?;
            if generation != 0 {
                wait_goes_on(long, &job).with_context(|| format!("generation {generation}"))?;
            }
            // Without one of its own, a generation has done nothing.
            wait::until(
                || Ok((Mark::of(&image) != before).then_some(())),
                || format!("generation {generation}: no image: {}", job.story()),
            )?;
            let has_ended = ends_within(job.process(), BETWEEN.mul_f64(random()))?;
            ensure!(!has_ended, "generation {generation} is the last one: {}", job.story());
            job.send(Signal::KILL)?;
            job.end().with_context(|| format!("generation {generation}"))?;
        }
        finish(&place, long, &expected)?;
        let names = fs::read_dir(place.work())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>>>()?;
        // What a save was writing when it was killed has no name, and so leaves none.
        ensure!(!names.iter().any(|name| name.starts_with('.')), "left: {names:?}");
        Ok(())
    })
}

/// A script of so many steps.
fn script(steps: u64) -> Result<Long> {
    let bash = tool("bash", "bash")?;
    // Its log is open for as long as it runs: one that each line opens anew nobody could cut back.
    let script = format!(
        "exec >> log
for i in $(seq {steps}); do
    until [ $(stat -c %s pass) -ge $i ]; do sleep 0.02; done
    double=$(echo $i | awk '{{ print 2 * $1 }}')
    echo \"step $i $double $(printf '%s\\n' c a b | sort | tr -d '\\n')\"
    sleep 0.03
done"
    );
    Ok(Long::of(&[&bash.to_string_lossy(), "-c", &script], steps, "log"))
}

#[test]
fn a_shell_script() -> Result<()> {
    six(&script(90)?, |_| Ok(()))
}

#[test]
fn a_shell_script_saved_every_second() -> Result<()> {
    every(&script(300)?, |_| Ok(()))
}

/// As many parts, made by two jobs, with the file that says how.
fn make(parts: u64) -> Result<(Long, String)> {
    let make = tool("make", "make")?;
    // What is to be made is for make's memory to say: a file may be there that a killed recipe has opened, and not written.
    let makefile = format!(
        "PARTS := $(shell seq 1000 {})
all: $(PARTS:%=part.%)
.PHONY: all $(PARTS:%=part.%)
$(PARTS:%=part.%): part.%:
\t@until [ $$(stat -c %s pass) -ge $$(($* - 999)) ]; do sleep 0.02; done; sleep 0.04; echo $* | awk '{{ print \"part\", $$1, $$1 * $$1 }}' > $@; cat $@
",
        999 + parts
    );
    let line = format!("exec {} -s -j2 >> lines", make.display());
    Ok((Long { results: "part.", ..Long::of(&["/bin/sh", "-c", &line], parts, "lines") }, makefile))
}

#[test]
fn make_with_two_jobs() -> Result<()> {
    let (long, makefile) = make(90)?;
    six(&long, |place| place.write("Makefile", &makefile).map(drop))
}

#[test]
fn make_with_two_jobs_saved_every_second() -> Result<()> {
    let (long, makefile) = make(500)?;
    every(&long, |place| place.write("Makefile", &makefile).map(drop))
}

/// The guest, built by this compiler.
fn ranks(place: &Place, compiler: &Path) -> Result<PathBuf> {
    let program = place.file("ranks");
    let built = Command::new(compiler).arg("-O1").arg("-o").arg(&program).arg(sources().join("ranks.c")).output()?;
    ensure!(built.status.success(), "{built:?}");
    place.give(&program)?;
    Ok(program)
}

/// OpenMPI's, for so many steps.
fn of_openmpi(steps: u64, go: impl Fn(&Long, &dyn Fn(&Place) -> Result<()>) -> Result<()>) -> Result<()> {
    let (mpirun, compiler) = (tool("mpirun.openmpi", "openmpi-bin")?, tool("mpicc.openmpi", "libopenmpi-dev")?);
    let mpirun = mpirun.to_string_lossy();
    // What one leaves is not told from what another one has.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let words =
        [&*mpirun, "--allow-run-as-root", "--oversubscribe", "-np", "2", "./ranks", &steps.to_string(), "sums", "pass"];
    // Ranks that are killed leave their shared memory, and a restart keeps aside what was written there since.
    let left = || -> Result<BTreeSet<PathBuf>> {
        let all = fs::read_dir("/dev/shm")?.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<_>>>()?;
        Ok(all.into_iter().filter(|path| path.to_string_lossy().contains("/vader_segment.")).collect())
    };
    let before = left()?;
    let long = Long { waits: true, ..Long::of(&words, steps, "sums") };
    let done = go(&long, &|place| ranks(place, &compiler).map(drop));
    left()?.difference(&before).try_for_each(fs::remove_file)?;
    done
}

#[test]
fn openmpi() -> Result<()> {
    of_openmpi(90, |long, prepare| six(long, prepare))
}

#[test]
fn openmpi_saved_every_second() -> Result<()> {
    of_openmpi(250, |long, prepare| every(long, prepare))
}

/// MPICH's.
fn of_mpich(steps: u64, go: impl Fn(&Long, &dyn Fn(&Place) -> Result<()>) -> Result<()>) -> Result<()> {
    let (mpirun, compiler) = (tool("mpirun.mpich", "mpich")?, tool("mpicc.mpich", "libmpich-dev")?);
    let mpirun = mpirun.to_string_lossy();
    let command = [&*mpirun, "-np", "2", "./ranks", &steps.to_string(), "sums", "pass"];
    go(&Long::of(&command, steps, "sums"), &|place| ranks(place, &compiler).map(drop))
}

#[test]
fn mpich() -> Result<()> {
    of_mpich(90, |long, prepare| six(long, prepare))
}

#[test]
fn mpich_saved_every_second() -> Result<()> {
    of_mpich(500, |long, prepare| every(long, prepare))
}
