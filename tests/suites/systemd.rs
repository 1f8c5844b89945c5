//! A job under a booted systemd, by the very text of `examples/systemd/`: stopped, rebooted, cut off. Its output is that of an undisturbed run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::steps::{JOB, STEPS, allow, expected};
use ckpt_tests::systemd::Systemd;
use ckpt_tests::{Place, User, wait};

const UNIT: &str = include_str!("../../examples/systemd/job.service");

/// Lets the job make its steps up to this one, and waits until it has.
fn go_on(place: &Place, machine: &Systemd, step: u64) -> Result<()> {
    allow(place, step)?;
    let done = || Ok((fs::read_to_string(place.file("job.out"))? == expected(step)).then_some(()));
    wait::until(done, || {
        let out = fs::read_to_string(place.file("job.out")).unwrap_or_default();
        let err = fs::read_to_string(place.file("job.err")).unwrap_or_default();
        format!("not at step {step}:\n{out}\n{err}\n{}", machine.story())
    })
}

fn place(user: User) -> Result<Place> {
    tool("python3", "python3")?;
    let place = Place::new(user)?;
    let job = place.write("job", JOB)?;
    fs::set_permissions(job, fs::Permissions::from_mode(0o755))?;
    place.write("input.dat", "4711\n")?;
    place.write("pass", "")?;
    Systemd::enable(&place, "job.service", UNIT)?;
    Ok(place)
}

#[test]
fn it_goes_on_after_each_boot() -> Result<()> {
    User::each(|user| {
        let place = place(user)?;
        let machine = Systemd::boot(&place)?;
        go_on(&place, &machine, 3)?;
        machine.control(&["restart", "job"])?;
        go_on(&place, &machine, 6)?;
        machine.shut_down()?;
        let image = place.file("job.ckpt");
        ensure!(image.exists(), "no image");

        let machine = Systemd::boot(&place)?;
        go_on(&place, &machine, 9)?;
        let before = fs::metadata(&image)?.modified()?;
        machine.control(&["kill", "--kill-who=main", "--signal=USR1", "job"])?;
        let saved = || Ok((fs::metadata(&image)?.modified()? != before).then_some(()));
        wait::until(saved, || machine.story())?;
        // These it has to make again.
        go_on(&place, &machine, 12)?;
        machine.fail()?;

        let machine = Systemd::boot(&place)?;
        go_on(&place, &machine, 15)?;
        let before = machine.control(&["show", "-P", "MainPID", "job"])?;
        // As the OOM killer does.
        machine.control(&["kill", "--kill-who=all", "--signal=KILL", "job"])?;
        let again = || Ok((machine.control(&["show", "-P", "MainPID", "job"])? != before).then_some(()));
        wait::until(again, || machine.story())?;
        go_on(&place, &machine, STEPS)?;
        let done = || Ok(place.file("job.ckpt.done").exists().then_some(()));
        wait::until(done, || machine.story())?;
        machine.shut_down()?;

        // What has ended is not run again.
        let machine = Systemd::boot(&place)?;
        let condition = machine.control(&["show", "-P", "ConditionResult", "job"])?;
        ensure!(condition.trim() == "no", "{}", machine.story());
        ensure!(fs::read_to_string(place.file("job.out"))? == expected(STEPS), "it ran again");
        machine.shut_down()
    })
}
