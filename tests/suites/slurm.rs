//! Jobs of a real Slurm by the very text of `examples/slurm/`: requeued, ended by their time limit, preempted, cancelled. Their results are those of an
//! undisturbed run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::{sources, tool};
use ckpt_tests::slurm::{Batch, Slurm};
use ckpt_tests::steps;
use ckpt_tests::{Job, Place, User, wait};

const SCRIPT: &str = include_str!("../../examples/slurm/job.sh");

/// How often a job is requeued.
const REQUEUES: usize = 3;

/// Steps of a job.
const STEPS: usize = 60;

/// Steps that it makes before something happens to it, and that it has to make again or not.
const SOME: usize = 8;

/// What `./job input.dat` is. Before each step it waits until the file `pass` has as many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OneProcess,
    Pipeline,
    Make,
    Mpich,
    /// It removes its files in `/tmp` on SIGTERM, so that an older image is of no use: only `ckpt` may get it.
    OpenMpi,
}

const ONE_PROCESS: &str = "#!/usr/bin/python3
import os, sys, time
sum = int(open(sys.argv[1]).read())
for step in range(1, 61):
    while step > os.stat('pass').st_size: time.sleep(0.02)
    sum = (sum * 31 + step) % 1000003
    print('step', step, sum, flush=True)
";

const PIPELINE: &str = "#!/bin/bash
for step in $(seq 60); do
    while [ $step -gt $(stat -c %s pass) ]; do sleep 0.05; done
    echo $step
done | while read step; do
    echo step $step $((sum += step * step + $(cat $1)))
done | tee sums
";

const MAKE: &str = "#!/bin/sh\nexec make -s -j2\n";

const MAKEFILE: &str = "PARTS := $(shell seq 60)
all: $(PARTS:%=part.%)
part.%:
\t@while [ $* -gt $$(stat -c %s pass) ]; do sleep 0.05; done
\t@echo $* | awk '{ print \"part\", $$1, $$1 * $$1 }' > $@; cat $@
";

const MPICH: &str = "#!/bin/sh\nexport HYDRA_LAUNCHER=fork\nexec mpirun.mpich -np 2 ./ranks 60 sums pass\n";

const OPEN_MPI: &str =
    "#!/bin/sh\nexec mpirun.openmpi --allow-run-as-root --oversubscribe -np 2 ./ranks 60 sums pass\n";

impl Kind {
    const ALL: [Self; 5] = [Self::OneProcess, Self::Pipeline, Self::Make, Self::Mpich, Self::OpenMpi];

    /// Whether it can be run here.
    fn needs(self) -> Result<()> {
        match self {
            Self::OneProcess => tool("python3", "python3"),
            Self::Pipeline => tool("bash", "bash"),
            Self::Make => tool("make", "make"),
            Self::Mpich => tool("mpirun.mpich", "mpich").and_then(|_| tool("mpicc.mpich", "libmpich-dev")),
            Self::OpenMpi => {
                tool("mpirun.openmpi", "openmpi-bin").and_then(|_| tool("mpicc.openmpi", "libopenmpi-dev"))
            }
        }
        .map(drop)
    }

    /// How the names of its results begin; each line is a step.
    fn names(self) -> &'static str {
        match self {
            Self::OneProcess => "job.out",
            Self::Pipeline | Self::Mpich | Self::OpenMpi => "sums",
            Self::Make => "part.",
        }
    }

    /// How many steps it has made.
    fn steps(self, place: &Place) -> Result<usize> {
        Ok(self.results(place)?.values().map(|text| text.lines().count()).sum())
    }

    /// A directory with all that the example's script asks for.
    fn place(self, user: User) -> Result<Place> {
        let place = Place::new(user)?;
        place.write("job.sh", SCRIPT)?;
        place.write("input.dat", "4711\n")?;
        let program = match self {
            Self::OneProcess => ONE_PROCESS.to_owned(),
            Self::Pipeline => PIPELINE.to_owned(),
            Self::Make => {
                place.write("Makefile", MAKEFILE)?;
                MAKE.to_owned()
            }
            Self::Mpich | Self::OpenMpi => {
                let (compiler, script) =
                    if self == Self::Mpich { ("mpicc.mpich", MPICH) } else { ("mpicc.openmpi", OPEN_MPI) };
                let (source, ranks) = (sources().join("ranks.c"), place.file("ranks"));
                let built = Command::new(compiler).arg("-O1").arg("-o").arg(ranks).arg(source).output()?;
                ensure!(built.status.success(), "{built:?}");
                script.to_owned()
            }
        };
        steps::allow(&place, SOME as u64)?;
        let job = place.write("job", program)?;
        fs::set_permissions(job, fs::Permissions::from_mode(0o755))?;
        Ok(place)
    }

    /// Its results: names and contents.
    fn results(self, place: &Place) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(place.work())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // What a restart has cut off is kept beside.
            if name.starts_with(self.names()) && !name.contains(".after-restart.") {
                // While a restart cuts it back it may have no name.
                all.insert(name.clone(), fs::read_to_string(place.file(&name)).unwrap_or_default());
            }
        }
        Ok(all)
    }

    /// Of a run without Slurm and `ckpt`.
    fn undisturbed(self) -> Result<BTreeMap<String, String>> {
        let place = self.place(User::Own)?;
        steps::allow(&place, STEPS as u64)?;
        let ended = Job::start(place.command(place.file("job")).arg("input.dat"))?.end()?;
        ensure!(ended.code() == Some(0), "{ended:#?}");
        place.write("job.out", &ended.out)?;
        self.results(&place)
    }
}

/// A job in the queue and what it is.
struct Submitted<'a> {
    kind: Kind,
    place: &'a Place,
    batch: Batch<'a>,
}

impl Submitted<'_> {
    /// Waits until it has made its steps up to this one.
    fn has_come(&self, step: usize) -> Result<()> {
        let look = || Ok((self.kind.steps(self.place)? >= step).then_some(()));
        wait::until(look, || format!("not at step {step}: {}", self.batch.story()))
    }

    /// Lets it go on to this step, and waits until it has come so far.
    fn go_on(&self, step: usize) -> Result<()> {
        steps::allow(self.place, step as u64)?;
        self.has_come(step)
    }
}

/// Plays with a job of each kind and user in one queue, then lets them end, and compares.
fn each(kinds: &[Kind], options: &[&str], play: impl Fn(&Slurm, &[Submitted<'_>]) -> Result<()>) -> Result<()> {
    kinds.iter().try_for_each(|kind| kind.needs())?;
    let slurm = Slurm::start()?;
    let mut places = Vec::new();
    for user in User::all() {
        for kind in kinds {
            places.push((*kind, kind.place(user)?));
        }
    }
    let mut jobs = Vec::new();
    for (kind, place) in &places {
        jobs.push(Submitted { kind: *kind, place, batch: slurm.submit(place, options, "job.sh")? });
    }
    for job in &jobs {
        job.has_come(SOME)?;
    }
    play(&slurm, &jobs)?;
    for job in &jobs {
        steps::allow(job.place, STEPS as u64)?;
    }
    for job in &jobs {
        let what = || format!("{:?} as {:?}", job.kind, job.place.user());
        job.batch.expect_completed().with_context(what)?;
        let (found, expected) = (job.kind.results(job.place)?, job.kind.undisturbed()?);
        ensure!(found == expected, "{}: {found:#?}\ninstead of\n{expected:#?}\n{}", what(), job.batch.story());
    }
    Ok(())
}

/// From a save before: whether a program can be saved on a SIGTERM that it gets, too, is for nobody to say.
#[test]
fn requeued_three_times() -> Result<()> {
    each(&Kind::ALL, &[], |_, jobs| {
        for requeue in 0..REQUEUES {
            let step = SOME * (requeue + 1);
            for job in jobs {
                job.batch.save()?;
                job.go_on(step + SOME)?;
                match job.kind {
                    Kind::OpenMpi => job.batch.tell(&["scancel", "--batch", "--signal=TERM"])?,
                    _ => job.batch.tell(&["scontrol", "requeue"])?,
                }
            }
            for job in jobs {
                job.batch.wait_run(requeue + 1)?;
                // It runs: that step it has not made before.
                job.go_on(step + SOME + 1)?;
            }
        }
        Ok(())
    })
}

/// Slurm looks at limits twice a minute.
fn saved_by_the_limit(job: &Submitted<'_>) -> Result<()> {
    job.batch.wait_run(1).or_else(|_| job.batch.wait_run(1))?;
    // By the signal, and not because the time was up.
    let said = fs::read_to_string(job.place.file("job.err"))?;
    ensure!(!said.contains("TIME LIMIT") && !said.contains("before it could be saved"), "{}", job.batch.story());
    Ok(())
}

/// `--signal=B:TERM@120` reaches `ckpt` alone, which saves the job and has it requeued.
#[test]
fn ended_by_the_time_limit() -> Result<()> {
    each(&Kind::ALL, &["--time=2"], |_, jobs| jobs.iter().try_for_each(saved_by_the_limit))
}

#[test]
fn preempted_by_another_partition() -> Result<()> {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::OpenMpi).collect::<Vec<_>>();
    each(&kinds, &[], |slurm, jobs| {
        for job in jobs {
            job.batch.save()?;
            job.go_on(2 * SOME)?;
        }
        let place = Place::new(User::Own)?;
        place.write("short.sh", "#!/bin/sh\necho short\n")?;
        slurm.submit(&place, &["-p", "high", "--exclusive", "-o", "job.out"], "short.sh")?.expect_completed()?;
        jobs.iter().try_for_each(|job| job.batch.wait_run(1))
    })
}

/// Nothing brings back what somebody has ended for good, although `ckpt` ends with an image, and `--on-end` is called.
#[test]
fn cancelled_for_good() -> Result<()> {
    let kind = Kind::OneProcess;
    kind.needs()?;
    let slurm = Slurm::start()?;
    for user in User::all() {
        let place = kind.place(user)?;
        let job = Submitted { kind, place: &place, batch: slurm.submit(&place, &[], "job.sh")? };
        job.has_come(SOME)?;
        job.batch.save()?;
        job.batch.tell(&["scancel"])?;
        let over = || Ok((job.batch.field("JobState")? == "CANCELLED").then_some(()));
        wait::until(over, || job.batch.story())?;
        let gone = || Ok(slurm.ask(&["squeue", "-h", "-t", "all"])?.lines().all(|l| l.contains(" CA ")).then_some(()));
        wait::until(gone, || job.batch.story())?;
        ensure!(job.batch.field("Restarts")? == "0", "{}", job.batch.story());
    }
    Ok(())
}
