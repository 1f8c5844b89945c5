//! Through one pipe from here into a virtual machine, where the program goes on, and out of a virtual machine, to go on here; of what is started there, too.

use std::fs::File;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::Link;
use ckpt_tests::remote::random;
use ckpt_tests::vms::{Guest, Machine, Options, fetch, kinds, needs};
use ckpt_tests::{Job, Place, User, job};

/// Both ways of sending an image.
const METHODS: [(&str, &str); 2] = [("plain", ""), ("zstd", "--compress zstd")];

/// A static program that goes on in the virtual machine, too, and the process that runs it; it waits before step 100 for [`Place::go`].
fn start(place: &Place) -> Result<(Job, u32)> {
    let program = place.linked_guest("travel", Link::Static)?;
    let mut command = place.ckpt();
    command.args(["run", "-q", "--portable", "-o"]).arg(place.file("job.ckpt")).arg("--").arg(program);
    job::with_no_other_descriptors(command.current_dir("/tmp"));
    let job = Job::start(&mut command)?;
    job.wait_line("at 30")?;
    let program = job.pid();
    Ok((job, program))
}

/// All that the program writes undisturbed.
fn undisturbed(place: &Place, program: &mut Command) -> Result<String> {
    place.go()?;
    let whole = Job::start(program.current_dir("/tmp"))?.end()?;
    place.halt()?;
    whole.expect_pass()?;
    Ok(whole.out)
}

/// Makes what `Place::go` makes here in the virtual machine, too.
fn go_there(machine: &mut Machine, place: &Place) -> Result<()> {
    let work = place.work();
    let top = work.parent().unwrap_or(&work).display();
    machine.must(&format!("mkdir -p {0}; touch {0}/go; chmod -R 755 {top}", work.display())).map(drop)
}

/// A program that starts here and goes into the virtual machine: `ckpt save PID -o - | (the port) | ckpt restart -`; here it goes on, too.
fn into_the_box(machine: &mut Machine, place: &Place, name: &str, options: &str) -> Result<Job> {
    // The virtual machine first, which is slow: the program does not wait for it.
    let stream = machine.stream()?;
    machine.go_on_from(&stream, name, place.user())?;
    let (job, pid) = start(place)?;
    let mut save = place.command("/bin/bash");
    save.env("CKPT", place.bin().join("ckpt"));
    save.args(["-o", "pipefail", "-c", &format!("\"$CKPT\" save {pid} -q -o - {options} | cat")]);
    let errors = place.write("errors", "")?;
    save.stdin(Stdio::null()).stdout(stream.writer()?).stderr(File::options().append(true).open(&errors)?);
    let status = save.status()?;
    stream.end();
    let errors = std::fs::read_to_string(errors)?;
    ensure!(status.success() && errors.is_empty(), "{status}: {errors}");
    machine.await_line(name, "at 90")?;
    Ok(job)
}

/// The same there to here; how it ended here.
fn out_of_the_box(machine: &mut Machine, place: &Place, name: &str, options: &str) -> Result<String> {
    let mut restart = place.ckpt();
    restart.args(["restart", "-"]);
    job::with_no_other_descriptors(restart.current_dir("/tmp"));
    let mut here = Job::start(&mut restart)?;
    let stdin = here.take_stdin().context("a pipe")?;
    let bytes = machine.save_into_stream(name, place.user(), options, stdin);
    let bytes = bytes.with_context(|| here.story())?;
    println!("{name} {options}: {bytes} bytes");
    place.go()?;
    let ended = here.end()?;
    ended.expect_pass()?;
    ensure!(ended.err.is_empty(), "{ended:#?}");
    Ok(ended.out)
}

#[test]
fn a_program_goes_in_and_out_through_a_pipe() -> Result<()> {
    let mut machine = Machine::boot(&fetch("6.1")?, &Options::default())?;
    for user in User::all() {
        for (method, options) in METHODS {
            there_and_back(&mut machine, user, method, options).with_context(|| format!("{method} as {user:?}"))?;
        }
    }
    streams_that_do_not_arrive(&mut machine)
}

/// The program here, its copy in the virtual machine and that one's copy here again all come to the right end.
fn there_and_back(machine: &mut Machine, user: User, method: &str, options: &str) -> Result<()> {
    let place = Place::new(user)?;
    let expected = undisturbed(&place, &mut place.command(place.linked_guest("travel", Link::Static)?))?;
    let name = format!("{method}-{user:?}");
    let mut job = into_the_box(machine, &place, &name, options)?;
    let home = out_of_the_box(machine, &place, &name, options)?;
    go_there(machine, &place)?;
    let there = machine.end(&name)?;
    let first = job.end()?;
    ensure!(first.out == expected && first.err.is_empty(), "the first one was disturbed: {first:#?}");
    ensure!(expected.ends_with(&there) && there.starts_with("at "), "in the virtual machine:\n{there}");
    ensure!(expected.ends_with(&home) && home.starts_with("at 100\n"), "here again:\n{home}");
    Ok(())
}

/// Cut anywhere, or changed anywhere, on its way into the virtual machine: nothing starts there, and standard error says why.
fn streams_that_do_not_arrive(machine: &mut Machine) -> Result<()> {
    let place = Place::new(User::Own)?;
    let (job, pid) = start(&place)?;
    for (method, options) in METHODS {
        let image = place.file(method);
        place.save(pid, &image, &options.split_whitespace().collect::<Vec<_>>())?;
        let good = std::fs::read(&image)?;
        for user in User::all() {
            for damaged in [false, true] {
                let at = (good.len() as f64 * random()) as usize;
                let mut bytes = good.clone();
                let expected: &[i32] = if damaged {
                    bytes[at] ^= 0x55;
                    &[70, 71, 72, 73, 74, 75, 76, 77, 78, 89]
                } else {
                    bytes.truncate(at);
                    &[70, 71, 73]
                };
                let stream = machine.stream()?;
                let restart = format!("stream from {} | ckpt restart -", stream.number);
                let done = thread::scope(|scope| {
                    scope.spawn(|| stream.send(&bytes));
                    let done = machine.run_as(user, &restart);
                    stream.break_off();
                    done
                })?;
                let what = format!("{method} as {user:?}, {} at {at}", if damaged { "changed" } else { "cut" });
                ensure!(expected.contains(&done.code) && done.out.is_empty(), "{what}: {done:?}");
                ensure!(done.err.lines().count() == 1 && done.err.contains("standard input"), "{what}: {done:?}");
                println!("{what}: {}", done.err.trim_end());
            }
        }
    }
    job.kill().map(drop)
}

/// One program of each kind, as each user: started there, saved into the pipe, and here at its right end.
#[test]
fn programs_that_start_in_a_box_come_here() -> Result<()> {
    let workshop = Place::new(User::Own)?;
    let kinds = kinds(&workshop)?;
    let there = |name: &str| format!("/opt/{name}");
    let mut files: Vec<_> = kinds.iter().map(|kind| (there(kind.name), kind.program.clone())).collect();
    // Python knows where it lies.
    let python = kinds.iter().find(|kind| kind.name == "python").context("a kind")?;
    for kind in &kinds {
        files.extend(needs(kind)?.into_iter().map(|path| (path.display().to_string(), path)));
    }
    let script = workshop.write("travel.py", python.arguments.last().context("a script")?)?;
    files.push((there("travel.py"), script));
    // One CPU: QEMU 7.2 was seen to lose an interrupt's frame between two under this load (the virtual machine's kernel died of it).
    let options = Options { cpus: 1, memory: 1024, files: &files, ..Options::default() };
    let mut machine = Machine::boot(&fetch("6.12")?, &options)?;

    let mut started = Vec::new();
    for user in User::all() {
        for kind in &kinds {
            let place = Place::new(user)?;
            let expected = undisturbed(&place, place.command(&kind.program).args(&kind.arguments))?;
            let program = match kind.name {
                "python" => format!("{} {}", kind.program.display(), there("travel.py")),
                name => there(name),
            };
            let name = format!("{}-{user:?}", kind.name);
            let go = place.file("go").display().to_string();
            let command = format!("env GUEST_GO={go} ckpt run -q --portable -o /tmp/{name}.job -- {program}");
            started.push((name, place, expected, command));
        }
    }
    let guests = started.iter().map(|(name, place, _, command)| Guest {
        name: name.clone(),
        user: place.user(),
        image: b"",
        command,
    });
    machine.go_on(&guests.collect::<Vec<_>>())?;
    for ((name, place, expected, _), (_, options)) in started.iter().zip(METHODS.iter().cycle()) {
        machine.await_line(name, "at 90")?;
        let home = out_of_the_box(&mut machine, place, name, &format!("--kill {options}"))?;
        let said = machine.end(name)? + &home;
        ensure!(&said == expected, "{name}: from there to here:\n{said}\ninstead of\n{expected}");
    }
    Ok(())
}
