//! Other kernels: what is saved here goes on in a virtual machine, what is saved there goes on here, and from each to each.
//!
//! A kernel that cannot be had is said and counted; without 6.1 and another one the suite fails.

use std::path::PathBuf;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::Link;
use ckpt_tests::vms::{Guest, KERNELS, Kernel, Kind, Machine, Options, fetch, kinds};
use ckpt_tests::{Job, Place, User, job, left_out};

/// All kernels that can be had.
fn kernels() -> Vec<Kernel> {
    let had = |name: &'static str| match fetch(name) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            left_out::in_part(Needs::Machine, format!("kernel {name}: {error:#}"));
            None
        }
    };
    KERNELS.iter().filter_map(|(name, ..)| had(name)).collect()
}

#[test]
fn there_are_two_other_kernels() -> Result<()> {
    let names: Vec<_> = kernels().iter().map(|k| k.name).collect();
    println!("{} of {} kernels: {}", names.len(), KERNELS.len(), names.join(", "));
    ensure!(names.contains(&"6.1") && names.len() > 1, "6.1 and another one are needed, there are {names:?}");
    Ok(())
}

/// A program that was saved here.
struct Traveller {
    name: String,
    user: User,
    place: Place,
    /// What it had written.
    said: String,
    /// All that it writes undisturbed.
    expected: String,
    image: Vec<u8>,
}

impl Traveller {
    /// Go keeps moments of the monotonic clock in its own memory: it needs that clock to go on where it would go back, as `ckpt` sees to.
    fn needs_clock(&self) -> bool {
        self.name.starts_with("go-")
    }

    /// How it is let go on in a virtual machine.
    fn command(&self, usual: &'static str) -> &'static str {
        if self.needs_clock() { "ckpt restart" } else { usual }
    }
}

/// A file beside `go` without which it makes no more than half of its way.
const HALF: &str = "half";

/// Starts a program so that it runs on other CPUs too, as `ckpt run --portable` does, and saves it in the middle.
fn depart(name: &str, program: &PathBuf, arguments: &[String], user: User) -> Result<Traveller> {
    let place = Place::new(user)?;
    let half = place.file(HALF);
    let command = |portable: bool| {
        let mut command = if portable { place.ckpt() } else { place.command(program) };
        if portable {
            command.args(["run", "--portable", "-o"]).arg(place.file("job.ckpt")).arg("--").arg(program);
        }
        // A directory that every virtual machine has.
        command.args(arguments).current_dir("/tmp").env("GUEST_HALF", &half);
        job::with_no_other_descriptors(&mut command);
        command
    };
    place.go()?;
    place.write(HALF, "")?;
    let whole = Job::start(&mut command(false))?.end()?;
    whole.expect_pass()?;
    place.halt()?;
    std::fs::remove_file(&half)?;
    let mut job = Job::start(&mut command(true))?;
    job.wait_line("at 30")?;
    job.send(rustix::process::Signal::TERM)?;
    let ended = job.end()?;
    ended.expect_code(85)?;
    let image = std::fs::read(place.file("job.ckpt"))?;
    let name = format!("{name}-{}", if user == User::Nobody { "nobody" } else { "root" });
    Ok(Traveller { name, user, place, said: ended.out, expected: whole.out, image })
}

/// Lets a program go on here, to its end.
fn at_home(traveller: &Traveller, image: &[u8], label: &str) -> Result<String> {
    let path = traveller.place.write(&format!("{label}.ckpt"), image)?;
    traveller.place.go()?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    let mut command = if traveller.needs_clock() { traveller.place.ckpt() } else { traveller.place.stub(&path) };
    if traveller.needs_clock() {
        // A busy virtual machine's clock may have gone faster than ours: moments that it has set would be far away here.
        command.arg("restart").arg(&path);
    }
    job::with_no_other_descriptors(&mut command);
    let ended = Job::start(&mut command)?.end()?;
    ensure!(ended.status.success() && ended.err.is_empty(), "{ended:#?}");
    Ok(ended.out)
}

/// The traveller's number, the way that it went, and what it wrote altogether.
type Journey = (usize, String, String);

/// Where a traveller was saved, its number, the image, and what it had written by then.
type Saved = (&'static str, usize, Vec<u8>, String);

/// All may go on in a virtual machine until they have made half of their ways, or to their ends.
fn may_go(machine: &mut Machine, travellers: &[Traveller], file: &str) -> Result<()> {
    travellers.iter().try_for_each(|traveller| {
        let (dir, file) = (traveller.place.work(), traveller.place.file(file));
        machine.must(&format!("mkdir -p {0}; chmod -R 755 {0}; touch {1}", dir.display(), file.display())).map(drop)
    })
}

/// What one virtual machine does: lets all programs go on, saves them on their way, and later lets go on what was saved in the others.
fn one_box(
    kernel: &Kernel,
    travellers: &[Traveller],
    met: &Barrier,
    saved: &Mutex<Vec<Saved>>,
    journeys: &Mutex<Vec<Journey>>,
) -> Result<()> {
    let arrive = || -> Result<Machine> {
        let mut machine = Machine::boot(kernel, &Options { memory: 1024, ..Options::default() })?;
        let command = |t: &Traveller| t.command("restart-stub");
        let guests = travellers.iter();
        let guests = guests.map(|t| Guest { name: t.name.clone(), user: t.user, image: &t.image, command: command(t) });
        let guests: Vec<_> = guests.collect();
        may_go(&mut machine, travellers, HALF)?;
        machine.go_on(&guests)?;
        for (i, traveller) in travellers.iter().enumerate() {
            let (image, said) = machine.save_there(&traveller.name, traveller.user, "at 60")?;
            let said = format!("{}{said}", traveller.said);
            saved.lock().unwrap_or_else(PoisonError::into_inner).push((kernel.name, i, image, said));
        }
        Ok(machine)
    };
    // Whatever happens, the others are not kept waiting.
    let arrived = arrive();
    met.wait();
    let mut machine = arrived?;
    let all = saved.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let others: Vec<_> = all.iter().filter(|(from, ..)| *from != kernel.name).collect();
    let name = |from: &str, i: usize| format!("{}-from-{from}", travellers[i].name);
    let guests: Vec<_> = others
        .iter()
        .map(|(from, i, image, _)| {
            // Either way is enough.
            let command = travellers[*i].command(if *i % 2 == 0 { "restart-stub" } else { "ckpt restart" });
            Guest { name: name(from, *i), user: travellers[*i].user, image, command }
        })
        .collect();
    may_go(&mut machine, travellers, "go")?;
    machine.go_on(&guests)?;
    for (from, i, _, before) in others {
        let said = machine.end(&name(from, *i))?;
        let way = format!("here, {from}, {}", kernel.name);
        journeys.lock().unwrap_or_else(PoisonError::into_inner).push((*i, way, format!("{before}{said}")));
    }
    Ok(())
}

#[test]
fn programs_travel_from_each_to_each() -> Result<()> {
    let kernels = kernels();
    let workshop = Place::new(User::Own)?;
    let mut travellers = Vec::new();
    for Kind { name, program, arguments } in kinds(&workshop)? {
        for user in User::all() {
            let one = depart(name, &program, &arguments, user).with_context(|| format!("{name} as {user:?}"))?;
            travellers.push(one);
        }
    }
    let (met, saved, journeys) = (Barrier::new(kernels.len()), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let (travellers, met, saved, journeys) = (&travellers, &met, &saved, &journeys);
        let start = |kernel| scope.spawn(move || one_box(kernel, travellers, met, saved, journeys));
        let machines: Vec<_> = kernels.iter().map(start).collect();
        let end =
            |b: thread::ScopedJoinHandle<'_, Result<()>>| b.join().map_err(|_| anyhow!("a virtual machine panicked"));
        machines.into_iter().map(|b| end(b).and_then(|r| r)).collect()
    });
    let mut journeys = journeys.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (from, i, image, before) in saved.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let label = format!("{}-from-{from}", travellers[i].name);
        let said = at_home(&travellers[i], &image, &label).with_context(|| label)?;
        journeys.push((i, format!("here, {from}, here"), format!("{before}{said}")));
    }
    for (i, way, said) in &journeys {
        let traveller = &travellers[*i];
        ensure!(said == &traveller.expected, "{} ({way}):\n{said}\ninstead of\n{}", traveller.name, traveller.expected);
    }
    for result in results {
        result?;
    }
    println!("{} programs and users, {} journeys of two restarts", travellers.len(), journeys.len());
    let machines = kernels.len();
    ensure!(journeys.len() == travellers.len() * machines * machines, "{} journeys", journeys.len());
    Ok(())
}

/// A program that was started here to run on other CPUs too, saved when it had said a line, and ended.
fn saved_here(place: &Place, guest: &str, portable: bool, line: &str) -> Result<Vec<u8>> {
    let program = place.linked_guest(guest, Link::Static)?;
    let image = place.file(format!("{guest}-{portable}.ckpt"));
    let mut command = place.ckpt();
    command.args(["run", "-o"]).arg(&image).args(portable.then_some("--portable")).arg("--").arg(program);
    job::with_no_other_descriptors(command.current_dir("/tmp"));
    let mut job = Job::start(&mut command)?;
    job.wait_line(line)?;
    job.send(rustix::process::Signal::TERM)?;
    job.end()?.expect_code(85)?;
    Ok(std::fs::read(&image)?)
}

fn guest<'i>(name: &str, user: User, image: &'i [u8], command: &'i str) -> Guest<'i> {
    Guest { name: name.to_owned(), user, image, command }
}

/// Three kernels in a row, and home again: all entries of the vdso, called by four threads all the time.
#[test]
fn clocks_are_right_under_each_kernel() -> Result<()> {
    let place = Place::new(User::Own)?;
    let mut image = saved_here(&place, "clocks", true, "called")?;
    for kernel in kernels() {
        let mut machine = Machine::boot(&kernel, &Options::default())?;
        machine.go_on(&[guest("clocks", User::Own, &image, "restart-stub")])?;
        let (next, said) = machine.save_there("clocks", User::Own, "called")?;
        ensure!(said.lines().all(|line| line == "called"), "under {}: {said}", kernel.name);
        image = next;
    }
    let path = place.write("back.ckpt", &image)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    let mut job = Job::start(&mut place.stub(&path))?;
    job.wait_line("called")?;
    place.go()?;
    job.end()?.expect_pass()
}

/// The same, of a process that saved itself: no thread of it comes back in the midst of a vdso that is no more, and the handlers that
/// saved it return on another CPU.
#[test]
fn what_saved_itself_goes_on_under_another_kernel() -> Result<()> {
    let kernel = fetch("6.1")?;
    let place = Place::new(User::Own)?;
    let image = place.file("self.ckpt");
    // What `ckpt run --portable` sets, without its being the parent.
    let unused = place.file("unused.ckpt");
    let told =
        Job::start(place.ckpt().args(["run", "--portable", "-o"]).arg(unused).args(["--", "/usr/bin/env"]))?.end()?;
    let portable = told
        .out
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.contains("_TUNABLES") || *name == "CKPT_PORTABLE");
    let mut command = place.armed(place.guest("clocks")?, &image);
    job::with_no_other_descriptors(command.envs(portable).current_dir("/tmp"));
    let job = Job::start(&mut command)?;
    job.wait_line("called")?;
    let image = std::fs::read(job.save(&image).map(|()| image)?)?;
    let mut machine = Machine::boot(&kernel, &Options::default())?;
    machine.go_on(&[
        guest("self", User::Own, &image, "restart-stub"),
        guest("nobody", User::Nobody, &image, "restart-stub"),
    ])?;
    for name in ["self", "nobody"] {
        machine.await_line(name, "called")?;
    }
    machine.must(&format!("mkdir -p {0}; chmod 755 {0}; touch {0}/go", place.work().display()))?;
    for name in ["self", "nobody"] {
        let said = machine.end(name)?;
        ensure!(said.replace("called\n", "") == "PASS\n", "{name}: {said}");
    }
    Ok(())
}

/// The virtual machine's monotonic clock stands hours lower than this machine's, and this machine's hours higher.
#[test]
fn deadlines_move_with_the_clock() -> Result<()> {
    let kernel = fetch("6.12").or_else(|_| fetch("6.1"))?;
    let place = Place::new(User::Own)?;
    let image = saved_here(&place, "deadline", true, "ready")?;
    let mut machine = Machine::boot(&kernel, &Options::default())?;
    let ways = [("stub", User::Own, "restart-stub"), ("nobody", User::Nobody, "restart-stub")];
    let ways = [ways[0], ways[1], ("namespace", User::Own, "ckpt restart --namespace")];
    machine.go_on(&ways.map(|(name, user, command)| guest(name, user, &image, command)))?;
    for (name, ..) in ways {
        let said = machine.end(name)?;
        ensure!(said == "PASS\n", "{name}: {said}");
    }
    // The other way round: what waits there goes on here.
    machine.put("/tmp/deadline", &std::fs::read(place.linked_guest("deadline", Link::Static)?)?)?;
    machine.must("chmod 755 /tmp/deadline; touch /tmp/there.ckpt")?;
    machine.go_on(&[guest("there", User::Own, b"", "env CKPT_PORTABLE=x86-64-v3 /tmp/deadline")])?;
    let (image, _) = machine.save_there("there", User::Own, "ready")?;
    let path = place.write("there.ckpt", &image)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    Job::start(place.stub(&path).current_dir("/tmp"))?.end()?.expect_pass()
}

/// This machine's signal handlers return there, and that one's here: whatever the kernels' frames look like.
#[test]
fn signal_handlers_return_on_another_cpu() -> Result<()> {
    let kernel = fetch("6.1")?;
    let place = Place::new(User::Own)?;
    let image = saved_here(&place, "handler", true, "ready")?;
    // With MPX, which QEMU puts into each frame.
    let mut machine = Machine::boot(&kernel, &Options { cpu: "max", ..Options::default() })?;
    machine.go_on(&[
        guest("here", User::Own, &image, "restart-stub"),
        guest("nobody", User::Nobody, &image, "restart-stub"),
    ])?;
    machine.put("/tmp/handler", &std::fs::read(place.linked_guest("handler", Link::Static)?)?)?;
    let go = place.file("go");
    machine.must("chmod 755 /tmp/handler; touch /tmp/there.ckpt")?;
    let command = format!("env CKPT_PORTABLE=x86-64-v3 GUEST_GO={} /tmp/handler", go.display());
    machine.go_on(&[guest("there", User::Own, b"", &command)])?;
    let (there, _) = machine.save_there("there", User::Own, "ready")?;
    machine.must(&format!("mkdir -p {}; chmod 755 {0}; touch {}", place.work().display(), go.display()))?;
    for name in ["here", "nobody"] {
        let said = machine.end(name)?;
        ensure!(said == "PASS\n", "{name}: {said}");
    }
    let path = place.write("there.ckpt", &there)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    place.go()?;
    Job::start(place.stub(&path).current_dir("/tmp"))?.end()?.expect_pass()
}

/// Exit code of a restart on a CPU that lacks something.
const CPU: i32 = 79;

#[test]
fn a_cpu_that_lacks_something_is_refused_by_name() -> Result<()> {
    let kernel = fetch("6.1")?;
    let place = Place::new(User::Own)?;
    let portable = saved_here(&place, "travel", true, "at 30")?;
    let whole = saved_here(&place, "travel", false, "at 30")?;
    let mut machine = Machine::boot(&kernel, &Options { cpu: "qemu64", cpus: 1, ..Options::default() })?;
    for (name, image) in [("portable", &portable), ("whole", &whole)] {
        machine.put(&format!("/tmp/{name}"), image)?;
        for (command, names) in [("restart-stub", "CPU"), ("ckpt restart", "AVX2")] {
            let done = machine.run(&format!("chmod 400 {name}; {command} {name}"))?;
            let told = done.code == CPU && done.err.contains(names) && done.out.is_empty();
            ensure!(told, "{command} {name} on a CPU without AVX: {done:?}");
        }
    }
    let shown = machine.must("ckpt show portable")?;
    ensure!(shown.contains("AVX2") && !shown.contains("AVX512"), "{shown}");
    // What this machine itself does not have need not be there either.
    let more = machine.must("ckpt show whole")?;
    let here = std::fs::read_to_string("/proc/cpuinfo")?.contains("avx512f");
    ensure!(more.contains("AVX512F") == here, "{more}");
    Ok(())
}
