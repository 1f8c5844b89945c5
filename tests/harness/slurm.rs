//! A Slurm of a test's own on loopback: munged, slurmctld and slurmd with one node, ports, keys and a configuration of their own; no file of
//! the system's is touched.
//!
//! As root its jobs are of any user; as anybody else, whose daemons they are then, of that one. Must never leave a job behind: what is in the
//! queue at the end is cancelled, and awaited.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::Mark;
use crate::net::free_port;
use crate::programs::tool;
use crate::{Job, Place, User, wait};

/// It runs as long as the value lives.
#[derive(Debug)]
pub struct Slurm {
    conf: PathBuf,
    // In the order of their ends.
    daemons: Vec<Job>,
    // Theirs: each directory above munged's socket must be root's or its own.
    _place: Place,
}

/// A job that was submitted.
#[derive(Debug)]
pub struct Batch<'a> {
    slurm: &'a Slurm,
    place: &'a Place,
    id: u32,
}

/// Two partitions of one node; jobs of `high` take the place of those of `low`, which are requeued.
fn configuration(at: &str, user: &str, ports: [u16; 2]) -> String {
    let [controller, node] = ports;
    format!(
        "ClusterName=test\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
         CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\nSlurmUser={user}\nSlurmdUser={user}\n\
         AuthType=auth/munge\nAuthInfo=socket={at}/munge.sock,cred_expire=5\n\
         StateSaveLocation={at}/state\nSlurmdSpoolDir={at}/spool\nSlurmctldPidFile={at}/slurmctld.pid\nSlurmdPidFile={at}/slurmd.pid\n\
         SlurmdParameters=config_overrides\nReturnToService=2\nMailProg=/bin/true\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nPreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n\
         SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0\n\
         NodeName=localhost CPUs=32 State=UNKNOWN\n\
         PartitionName=low Nodes=localhost Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE\n\
         PartitionName=high Nodes=localhost MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF\n"
    )
}

impl Slurm {
    /// Starts one, and waits until its node takes jobs.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start() -> Result<Self> {
        let munged = tool("munged", "munge")?;
        let (controller, node) = (tool("slurmctld", "slurmctld")?, tool("slurmd", "slurmd")?);
        tool("sbatch", "slurm-client")?;
        let place = Place::new(User::Own)?;
        let at = place.work().display().to_string();
        let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?;
        for dir in ["state", "spool"] {
            fs::create_dir(place.file(dir))?;
        }
        let mut key = [0; 128];
        fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        let key = place.write("munge.key", key)?;
        fs::set_permissions(key, fs::Permissions::from_mode(0o400))?;
        let conf = place.write("slurm.conf", configuration(&at, user.trim(), [free_port()?, free_port()?]))?;
        let mut munge = place.command(munged);
        // As root it is not who it should be: forced.
        munge.args(["--foreground", "--force"]);
        for (option, file) in [
            ("key-file", "munge.key"),
            ("socket", "munge.sock"),
            ("pid-file", "munge.pid"),
            ("seed-file", "munge.seed"),
            ("log-file", "munge.log"),
        ] {
            munge.arg(format!("--{option}={at}/{file}"));
        }
        let munge = Job::start(&mut munge)?;
        munge.wait_err("Created socket").or_else(|_| munge.wait_text("Created socket"))?;
        let mut this = Self { conf, daemons: vec![munge], _place: place };
        for (program, options) in [(controller, &["-D"][..]), (node, &["-D", "-N", "localhost"])] {
            let job = Job::start(this._place.command(program).args(options).env("SLURM_CONF", &this.conf))?;
            this.daemons.insert(0, job);
        }
        let idle = || Ok(this.ask(&["sinfo", "-h", "-p", "low", "-o", "%T"])?.trim().eq("idle").then_some(()));
        let story = || this.daemons.iter().map(Job::story).collect::<String>();
        wait::until(idle, story)?;
        Ok(this)
    }

    /// A command of Slurm's, as whoever runs the daemons; what it prints, also when it fails.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let said = Command::new(words[0]).args(&words[1..]).env("SLURM_CONF", &self.conf).output()?;
        Ok(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
    }

    /// Submits a script of this directory, as its user; `ckpt` is in the job's path.
    ///
    /// # Errors
    /// Slurm does not take it.
    pub fn submit<'a>(&'a self, place: &'a Place, options: &[&str], script: &str) -> Result<Batch<'a>> {
        let mut command = place.command(tool("sbatch", "slurm-client")?);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", place.bin().display());
        command.env("SLURM_CONF", &self.conf).env("PATH", path).arg("--parsable").args(options).arg(script);
        let ended = Job::start(&mut command)?.end()?;
        ensure!(ended.code() == Some(0), "{ended:#?}");
        Ok(Batch { slurm: self, place, id: ended.out.trim().parse()? })
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if let Ok(queue) = self.ask(&["squeue", "-h", "-o", "%i"]) {
            for id in queue.split_whitespace().filter(|word| word.parse::<u32>().is_ok()) {
                drop(self.ask(&["scancel", "--signal=KILL", "--full", id]));
                drop(self.ask(&["scancel", id]));
            }
        }
        let empty = || Ok(self.ask(&["squeue", "-h"])?.is_empty().then_some(()));
        drop(wait::until(empty, || "jobs remain".to_owned()));
    }
}

impl Batch<'_> {
    /// A field of what Slurm knows of it.
    ///
    /// # Errors
    /// Slurm does not know it.
    pub fn field(&self, name: &str) -> Result<String> {
        let told = self.slurm.ask(&["scontrol", "show", "job", &self.id.to_string()])?;
        let start = format!("{name}=");
        let word = told.split_whitespace().find_map(|word| word.strip_prefix(&start));
        Ok(word.with_context(|| format!("no {name}: {told}"))?.to_owned())
    }

    /// All that is known, for messages.
    #[must_use]
    pub fn story(&self) -> String {
        let read = |name| fs::read_to_string(self.place.file(name)).unwrap_or_default();
        let told = self.slurm.ask(&["scontrol", "show", "job", &self.id.to_string()]).unwrap_or_default();
        format!("{told}\nstdout: {}\nstderr: {}", read("job.out"), read("job.err"))
    }

    /// Waits until it runs for the nth time, counted from 0.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_run(&self, restarts: usize) -> Result<()> {
        let look = || {
            let runs = self.field("JobState")? == "RUNNING" && self.field("Restarts")?.parse::<usize>()? >= restarts;
            Ok(runs.then_some(()))
        };
        wait::until(look, || format!("it does not run for the {restarts}th time: {}", self.story()))
    }

    /// Waits for its end, and checks that it ended well.
    ///
    /// # Errors
    /// It did not.
    pub fn expect_completed(&self) -> Result<()> {
        let ended = || {
            let state = self.field("JobState")?;
            Ok((!["PENDING", "RUNNING", "COMPLETING"].contains(&&*state)).then_some(state))
        };
        let state = wait::until(ended, || format!("it does not end: {}", self.story()))?;
        ensure!(state == "COMPLETED", "{}", self.story());
        Ok(())
    }

    /// Has it saved, by a signal to `ckpt` alone as a user sends it, and waits for the image.
    ///
    /// # Errors
    /// There is none.
    pub fn save(&self) -> Result<()> {
        let image = self.place.file(format!("job-{}.ckpt", self.id));
        let before = Mark::of(&image);
        self.slurm.ask(&["scancel", "--batch", "--signal=USR1", &self.id.to_string()])?;
        wait::until(|| Ok((Mark::of(&image) != before).then_some(())), || format!("no image: {}", self.story()))
    }

    /// A command of Slurm's about it.
    ///
    /// # Errors
    /// It prints something, as those do that fail.
    pub fn tell(&self, words: &[&str]) -> Result<()> {
        let said = self.slurm.ask(&[words, &[&self.id.to_string()]].concat())?;
        ensure!(said.is_empty(), "{words:?}: {said}");
        Ok(())
    }
}
