//! When `ckpt run` saves its program: on signals, every so often, and at the end. One save at a time, one more in line.
//!
//! Must never say that an image is there which is not, nor end as if all were over while a job can go on.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use image_format::ExitCode;
use loader::supervise::{Duty, News, Place};
use sys::abi::Timespec;
use sys::abi::signal::{SIGKILL, SIGTERM};
use sys::child::Change;

use super::attempt::{After, Attempt, How};
use super::hooks::Hook;
use super::images;
use super::rollback::Rollback;
use super::speaker::Speaker;
use super::trouble::Trouble;
use super::witness::Witness;
use crate::failure::{Failure, reason};
use crate::image::ImageFile;
use crate::ipc;
use crate::signal::Signal;
use crate::supervise::Child;
use crate::text;

/// When the program is saved, and what else is done then.
#[derive(Debug)]
pub struct Plan {
    /// How.
    pub how: How,
    /// Signals that ask for a save.
    pub signals: Vec<Signal>,
    /// How often it is saved.
    pub every: Option<Duration>,
    /// The status after a save on SIGTERM.
    pub exit_code: u8,
    /// When it was saved, if there is an image.
    pub saved: Option<SystemTime>,
    /// What is said once it goes on from that image.
    pub resumed: Option<(Vec<String>, Rollback)>,
    /// There are older images.
    pub has_older: bool,
    /// After a save.
    pub on_save: Option<Hook>,
    /// When one has failed.
    pub on_failure: Option<Hook>,
    /// When the program has ended as this command was asked to, and the job is not over.
    pub on_end: Option<Hook>,
}

/// The saves of one program.
#[derive(Debug)]
pub struct Saves {
    program: Child,
    plan: Plan,
    speaker: Speaker,
    /// None before the program has taken over.
    next: Option<Instant>,
    running: bool,
    now: Option<Attempt>,
    queued: Option<After>,
    trouble: Trouble,
    saved_and_ended: bool,
    /// The restart has found its image damaged, and there is an older one.
    damaged: bool,
    /// Gets what is sent to all.
    witness: Witness,
    /// When this command was asked to end it all: the program's processes of that moment.
    ending: Option<Vec<i32>>,
    /// The restart was ended before the program went on: its image is as it was.
    given_up: bool,
}

impl Saves {
    /// Of this program.
    pub fn new(program: Child, plan: Plan, speaker: Speaker) -> Self {
        Self {
            program,
            plan,
            speaker,
            next: None,
            running: false,
            now: None,
            queued: None,
            trouble: Trouble::default(),
            saved_and_ended: false,
            damaged: false,
            witness: Witness::default(),
            ending: None,
            given_up: false,
        }
    }

    /// The program's process, its group, and the pipe that tells of its start.
    pub fn child(&self) -> (i32, Place, i32) {
        (self.program.pid, self.program.place, self.program.pipe())
    }

    /// Why the program did not start.
    pub fn failure(&mut self) -> Failure {
        self.program.failure.take().unwrap_or_else(|| Failure::status(ExitCode::Restore as u8))
    }

    /// Whether the program is to go on from an older image: this one is damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// What it goes on with when it tries an older one.
    pub fn into_speaker(self) -> Speaker {
        self.speaker
    }

    /// Asks for a save; what is asked for while one is under way is one more, whatever the number.
    fn ask(&mut self, after: After) {
        let ending = self.now.as_ref().is_some_and(|attempt| attempt.after == After::End);
        if ending {
            return;
        }
        self.queued = self.queued.max(Some(after));
        self.begin();
    }

    fn begin(&mut self) {
        if !self.running || self.now.is_some() {
            return;
        }
        let Some(after) = self.queued.take() else { return };
        match Attempt::begin(self.program.pid, &self.plan.how, after, self.ending.as_deref()) {
            Ok(attempt) => {
                self.now = Some(attempt);
                self.speaker.save_begins();
            }
            Err(failure) => self.failed(after, &failure.into_parts().1),
        }
    }

    /// A save has failed: the old image, if there is one, is whole. Who wants the end gets it, without a new image.
    fn failed(&mut self, after: After, why: &str) {
        let then = if after == After::End { "SIGTERM is passed on to the program" } else { "the program goes on" };
        let is_news = self.trouble.failed(why, Instant::now());
        if is_news || after == After::End {
            let last = match self.age() {
                Some(age) => format!("the last image is {age} old"),
                None => "there is no image yet".to_owned(),
            };
            self.speaker.trouble(format_args!("not saved: {why}: {then}; {last}"));
        }
        if let Some(hook) = &mut self.plan.on_failure {
            hook.start(why, &mut self.speaker);
        }
        if after == After::End {
            let _ = sys::process::kill(self.program.pid, SIGTERM);
        }
    }

    fn succeeded(&mut self, after: After, report: &str) {
        self.plan.saved = Some(SystemTime::now());
        self.saved_and_ended |= after == After::End;
        self.speaker.saved();
        if let Some(words) = self.trouble.ended(Instant::now()) {
            self.speaker.say(words);
        }
        let image = text::path(&self.plan.how.image);
        let ended = if after == After::End { ": the program was ended" } else { "" };
        self.speaker.detail(format_args!("{image}: saved: {report}{ended}"));
        if let Some(hook) = &mut self.plan.on_save {
            hook.start(if after == After::End { "end" } else { "save" }, &mut self.speaker);
        }
    }

    /// How old the image is, if there is one.
    fn age(&self) -> Option<String> {
        let saved = self.plan.saved.filter(|_| self.plan.how.image.exists())?;
        Some(text::age(saved.elapsed().unwrap_or_default()))
    }

    /// Whether the program has ended because somebody wants the end, without having been saved for it, so that it is to go on from an
    /// older image. What it made of SIGTERM nobody knows: it may have got it, too.
    fn is_interrupted(&mut self, end: Change) -> bool {
        if self.given_up {
            let age = self.age().unwrap_or_default();
            let image = text::path(&self.plan.how.image);
            self.speaker.trouble(format_args!(
                "{image}: ended by SIGTERM before the program went on: the next run goes on from its image, {age} old"
            ));
            return true;
        }
        let asked = self.running && self.ending.is_some();
        let Some(age) = self.age().filter(|_| asked || end == Change::Killed(SIGTERM)) else { return false };
        let image = text::path(&self.plan.how.image);
        self.speaker.trouble(format_args!(
            "{image}: the program has ended on SIGTERM before it could be saved: the next run goes on from its image, {age} old"
        ));
        true
    }

    /// The job has ended well: the next run of it begins anew.
    fn finished(&mut self) {
        let image = text::path(&self.plan.how.image);
        let job = &self.plan.how.job;
        let its = |older: &Path| ImageFile::describe(older).and_then(|file| job.compare(&file, |_| true)).is_ok();
        match images::finish(&self.plan.how.image, its) {
            Ok(Some(done)) => {
                self.speaker.detail(format_args!("{image}: the job is done: it is {} now", text::path(&done)));
            }
            Ok(None) => {}
            Err(e) => {
                let why = reason(&e);
                self.speaker
                    .trouble(format_args!("{image}: cannot be renamed, though the job is done: {why}: remove it"));
            }
        }
    }

    /// Ends a restart that may wait for long, as for a port: nothing is lost by that. One that has said that the program runs is none.
    fn give_up(&mut self) {
        let is_restart = !self.running && self.plan.resumed.is_some();
        let news = || sys::fs::wait_for_any([self.program.pipe(), -1], Some(Timespec { sec: 0, nsec: 0 }));
        if is_restart && news().is_ok_and(|[news, _]| !news) {
            self.given_up = sys::process::kill(self.program.pid, SIGKILL).is_ok();
        }
    }

    fn hooks(&mut self) -> (impl Iterator<Item = &mut Hook>, &mut Speaker) {
        let Plan { on_save, on_failure, on_end, .. } = &mut self.plan;
        (on_save.iter_mut().chain(on_failure).chain(on_end), &mut self.speaker)
    }
}

/// A process and all that descend from it and live.
fn living(pid: i32) -> Vec<i32> {
    let lives = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    };
    ipc::tree(pid).into_iter().filter(lives).collect()
}

impl Duty for Saves {
    fn news(&mut self) -> News {
        self.program.news()
    }

    fn running(&mut self) -> bool {
        self.running = true;
        self.witness.start(self.program.pid);
        self.next = self.plan.every.map(|every| Instant::now() + every);
        self.speaker.notify.ready();
        if let Some((words, rollback)) = self.plan.resumed.take() {
            // Only now: what was said before the restart may have been cut off.
            if rollback.has_cut_our_words() {
                self.speaker.say_again();
            }
            words.into_iter().chain(rollback.words()).for_each(|words| self.speaker.say(words));
        }
        self.begin();
        true
    }

    fn takes(&mut self, signal: i32) -> bool {
        let saves = self.plan.signals.iter().any(|own| i32::try_from(own.number()) == Ok(signal));
        match (signal, saves) {
            (SIGTERM, _) => {
                // First of all: whoever has sent it may be sending it to all of them.
                self.ending.get_or_insert_with(|| living(self.program.pid));
                self.give_up();
                self.ask(After::End);
                self.speaker.notify.ends();
            }
            (_, true) => {
                self.witness.start(self.program.pid);
                self.ask(After::GoOn);
            }
            _ => return false,
        }
        true
    }

    fn due(&self) -> Option<Duration> {
        let next = self.next.into_iter().chain(self.speaker.notify.due()).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.speaker.notify.due().is_some_and(|due| due <= now) {
            self.speaker.notify.tick();
        }
        if self.next.is_some_and(|next| next <= now) {
            // From now on, not from when it was due: after a stop of hours one save is enough.
            self.next = self.plan.every.map(|every| now + every);
            self.witness.start(self.program.pid);
            self.ask(After::GoOn);
        }
    }

    fn child(&mut self, pid: i32, change: Change) {
        if !matches!(change, Change::Exited(_) | Change::Killed(_)) {
            return;
        }
        let Some(attempt) = self.now.take_if(|attempt| attempt.pid == pid) else {
            self.witness.has_ended(pid);
            let (mut hooks, speaker) = self.hooks();
            hooks.any(|hook| hook.has_ended(pid, change != Change::Exited(0), speaker));
            return;
        };
        let after = attempt.after;
        match attempt.outcome(change) {
            Ok(report) => self.succeeded(after, &report),
            Err(why) => self.failed(after, &why),
        }
        self.begin();
    }

    fn status(&mut self, end: Change) -> Option<u8> {
        self.damaged =
            !self.running && self.plan.has_older && matches!(end, Change::Exited(code) if images::is_damage(code));
        if self.damaged {
            return None;
        }
        // A save under way is completed: it may have all that it needs, or have ended the program as it was told to.
        if let Some(attempt) = self.now.take() {
            let after = attempt.after;
            if let Ok(report) = attempt.finish() {
                self.succeeded(after, &report);
            }
        }
        let goes_on = self.saved_and_ended || self.is_interrupted(end);
        let done = self.running && !goes_on && end == Change::Exited(0);
        if done {
            self.finished();
        }
        self.witness.end();
        // Where the program has ended by itself, nobody can say that it would not do so again, and again.
        if goes_on
            && self.ending.is_some()
            && let Some(hook) = &mut self.plan.on_end
        {
            hook.start("end", &mut self.speaker);
        }
        let (hooks, speaker) = self.hooks();
        hooks.for_each(|hook| hook.finish(speaker));
        // This command may end by a signal, without another word.
        self.speaker.leave(done);
        goes_on.then_some(self.plan.exit_code)
    }
}
