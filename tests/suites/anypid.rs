//! Programs that know nothing of us, saved by their pid: at random moments, killed, restarted, twenty times over, they must
//! print what an undisturbed run prints. `CKPT_TEST_MOMENTS=200` does that until each has been restarted so often.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::{Link, part, tool};
use ckpt_tests::remote::{chain, ends_within, random, undisturbed};
use ckpt_tests::{Job, Place, READY, User, left_out, programs};

/// How often a run of a program is saved, killed and restarted, if it does not end before.
const MOMENTS: u32 = 20;

/// How often each program is to be restarted in all.
const LEAST: u32 = 5;

/// The same, or what `CKPT_TEST_MOMENTS` says.
fn wanted() -> Result<u32> {
    match std::env::var("CKPT_TEST_MOMENTS") {
        Ok(number) => number.parse().with_context(|| format!("CKPT_TEST_MOMENTS={number}")),
        Err(_) => Ok(LEAST),
    }
}

/// Runs a program undisturbed, then in twenty generations, as often as it takes: all output of a run together must be the same.
fn twenty(place: &Place, make: &dyn Fn() -> Result<Command>) -> Result<()> {
    let (expected, time) = undisturbed(&mut make()?)?;
    let (mut runs, mut restarts) = (0, 0);
    while restarts < wanted()? {
        runs += 1;
        let chain = chain(place, &mut make()?, time, MOMENTS).with_context(|| format!("run {runs}"))?;
        // Some runtimes tell of their end on standard output.
        let status = chain.ended.status;
        ensure!(status.success(), "run {runs}: {status:?} {} {}", chain.ended.err, tail(&chain.out));
        ensure!(chain.generations != 0, "run {runs}: ended before it was saved: it is too short");
        let show = |bytes: &[u8]| format!("{} bytes that end with {:?}", bytes.len(), tail(bytes));
        ensure!(chain.out == expected, "run {runs}: {} instead of {}", show(&chain.out), show(&expected));
        restarts += chain.generations;
    }
    println!("{:?}: {restarts} restarts in {runs} runs", place.user());
    Ok(())
}

/// The end of what a program wrote.
fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(600)..]).into_owned()
}

/// As each user that the tests can be.
fn each(make: impl Fn(&Place) -> Result<Command>) -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        twenty(&place, &|| make(&place))
    })
}

#[test]
fn c_dynamic() -> Result<()> {
    each(|place| Ok(place.command(place.guest("chain")?)))
}

#[test]
fn c_static_glibc() -> Result<()> {
    each(|place| Ok(place.command(place.linked_guest("chain", Link::Static)?)))
}

#[test]
fn c_static_musl() -> Result<()> {
    each(|place| Ok(place.command(place.linked_guest("chain", Link::StaticMusl)?)))
}

#[test]
fn go() -> Result<()> {
    each(|place| Ok(place.command(place.guest("work.go")?)))
}

/// A file of `tests/programs` where every user can read it.
fn source(place: &Place, name: &str) -> Result<PathBuf> {
    place.write(name, std::fs::read(programs::sources().join(name))?)
}

#[test]
fn node() -> Result<()> {
    each(|place| {
        let mut command = place.command(tool("node", "nodejs")?);
        command.arg(source(place, "work.js")?);
        Ok(command)
    })
}

#[test]
fn java() -> Result<()> {
    each(|place| {
        let (javac, java) = (tool("javac", "openjdk-17-jdk-headless")?, tool("java", "openjdk-17-jdk-headless")?);
        let mut compile = place.command(javac);
        undisturbed(compile.arg("-d").arg(place.work()).arg(source(place, "Work.java")?))?;
        let mut command = place.command(java);
        command.args(["-XX:+UseG1GC", "-Xmx256m", "-cp"]).arg(place.work()).arg("Work");
        Ok(command)
    })
}

#[test]
fn python_with_threads_and_numpy() -> Result<()> {
    part(Path::new("/usr/lib/python3/dist-packages/numpy/__init__.py"), "python3-numpy")?;
    each(|place| {
        let mut command = place.command(tool("python3", "python3")?);
        command.arg(source(place, "work.py")?);
        Ok(command)
    })
}

#[test]
fn python_inside_an_import() -> Result<()> {
    each(|place| {
        let mut command = place.command(tool("python3", "python3")?);
        command.arg(source(place, "imports.py")?).arg("modules");
        Ok(command)
    })
}

#[test]
fn ruby() -> Result<()> {
    each(|place| {
        let mut command = place.command(tool("ruby", "ruby")?);
        command.arg(source(place, "work.rb")?);
        Ok(command)
    })
}

#[test]
fn bash_and_its_own_id() -> Result<()> {
    each(|place| {
        let mut command = place.command(tool("bash", "bash")?);
        command.arg(source(place, "work.sh")?);
        Ok(command)
    })
}

#[test]
fn locks_that_are_held() -> Result<()> {
    each(|place| Ok(place.command(place.guest("holder")?)))
}

#[test]
fn locks_that_are_held_with_static_glibc() -> Result<()> {
    each(|place| Ok(place.command(place.linked_guest("holder", Link::Static)?)))
}

#[test]
fn locks_that_are_held_with_musl() -> Result<()> {
    each(|place| Ok(place.command(place.linked_guest("holder", Link::StaticMusl)?)))
}

/// Text that compresses, but not too well.
fn text(lines: u64) -> String {
    let mut x = 88_172_645_463_325_252u64;
    let mut line = |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        format!("{x:016x} line {n} {}\n", "word ".repeat((x % 9) as usize))
    };
    (0..lines).map(&mut line).collect()
}

/// A program that turns the file `input` into another text on its standard output.
fn filter(program: &str, package: &'static str, arguments: &str, lines: u64) -> Result<()> {
    each(|place| {
        if !place.file("input").exists() {
            place.write("input", text(lines))?;
        }
        let mut command = place.command(tool(program, package)?);
        command.args(arguments.split(' '));
        Ok(command)
    })
}

#[test]
fn xz_with_two_threads() -> Result<()> {
    filter("xz", "xz-utils", "-T2 -3 --keep --stdout input", 120_000)
}

#[test]
fn zstd_with_two_threads() -> Result<()> {
    filter("zstd", "zstd", "-q -T2 -15 --stdout input", 160_000)
}

#[test]
fn sort_of_a_large_file() -> Result<()> {
    filter("sort", "coreutils", "--parallel=2 -S 6M -T . input", 250_000)
}

#[test]
fn sqlite3() -> Result<()> {
    each(|place| {
        let database = place.file("big.db");
        if database.exists() {
            std::fs::remove_file(&database)?;
        }
        let mut command = place.command(tool("sqlite3", "sqlite3")?);
        let sql = "PRAGMA cache_size = 50; PRAGMA temp_store = MEMORY; CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT); \
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 400000) \
             INSERT INTO t SELECT n, printf('%032d', n * 7919) FROM c; CREATE INDEX i ON t (text); \
             PRAGMA integrity_check; SELECT count(*), sum(n), max(text) FROM t;";
        command.arg("big.db").arg(sql);
        Ok(command)
    })
}

/// The same image twice, from several moments of a run that goes on to its end itself.
#[test]
fn live_images_restart_twice() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let program = place.guest("chain")?;
        let (expected, time) = undisturbed(&mut place.command(&program))?;
        let mut job = Job::start(&mut place.command(&program))?;
        let mut images = Vec::new();
        for i in 0..6 {
            if ends_within(job.pid(), time.mul_f64(random() / 5.0))? {
                break;
            }
            let image = place.file(format!("{i}.ckpt"));
            if place.try_save(job.pid(), &image, &[])?.code() == Some(0) {
                images.push(image);
            }
        }
        let ended = job.end()?;
        let expected = String::from_utf8(expected)?;
        ensure!(ended.out == expected && ended.err.is_empty(), "disturbed by a live save: {ended:#?}");
        ensure!(images.len() > 1, "the program was too fast");
        for image in images.iter().chain(&images) {
            let restarted = Job::start(&mut place.stub(image))?.end()?;
            restarted.expect_pass()?;
            ensure!(expected.ends_with(&restarted.out), "{restarted:#?}");
        }
        Ok(())
    })
}

#[test]
fn no_blocking_call_notices() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        for link in [Link::Dynamic, Link::Static] {
            let mut job = Job::start(&mut place.command(place.linked_guest("blocked", link)?))?;
            job.wait_line(READY)?;
            for options in [&[][..], &["--freeze"], &[]] {
                place.save(job.pid(), &image, options)?;
            }
            for _ in 0..3 {
                place.save(job.pid(), &image, &["--kill"])?;
                drop(job.end()?);
                job = Job::start(&mut place.stub(&image))?;
                // Restarted when its threads are inside their calls again.
                ckpt_tests::proc::wait_threads_sleep(job.pid(), 13)?;
            }
            place.go()?;
            job.end()?.expect_pass()?;
            place.halt()?;
        }
        Ok(())
    })
}

/// A restarted process can be debugged like any other.
#[test]
fn gdb_attaches_to_a_restarted_process() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.command(place.guest("blocked")?))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        let job = Job::start(&mut place.stub(&image))?;
        ckpt_tests::proc::wait_threads_sleep(job.pid(), 13)?;
        let mut gdb = place.command(tool("gdb", "gdb")?);
        // It may live in namespaces of its own, which an ordinary user's debugger cannot enter to find its libraries.
        gdb.args(["-nx", "-batch", "-iex", "set sysroot /", "-ex", "thread apply all bt", "-p"])
            .arg(job.pid().to_string());
        let seen = Job::start(gdb.arg("-ex").arg("detach"))?.end()?;
        // The program's own names need the link to its executable, which only some users may set at a restart.
        let own = if user.is_root() { &["in_read", "in_sigsuspend", "in_clock_sleep", "main"][..] } else { &[] };
        for function in own.iter().chain(&["read", "sigsuspend", "clock_nanosleep"]) {
            ensure!(seen.out.contains(function), "no {function} in {seen:#?}");
        }
        // Some of the guest's calls end early when a debugger comes: that is the kernel's way, and not under test here.
        ensure!(!ends_within(job.pid(), Duration::ZERO)?, "{}", job.story());
        job.kill()?;
        Ok(())
    })
}

/// `mlockall(MCL_FUTURE)`: in the process that was saved, and in the restarted one.
#[test]
fn what_is_mapped_later_is_locked() -> Result<()> {
    User::each(|user| {
        for how in ["all", "onfault"] {
            let place = Place::new(user)?;
            let image = place.file("job.ckpt");
            let mut job = Job::start(place.command(place.guest("lockall")?).arg(how))?;
            job.wait_line(READY)?;
            place.save(job.pid(), &image, &[])?;
            place.go()?;
            job.end()?.expect_pass()?;
            Job::start(&mut place.stub(&image))?.end()?.expect_pass()?;
        }
        Ok(())
    })
}

/// What the kernel may drop, a libc's random state, comes back empty and does not hold up a live save.
#[test]
fn droppable_memory_comes_back_empty() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.command(place.guest("droppable")?))?;
        job.wait_line(READY)?;
        let said = place.save(job.pid(), &image, &["-v"])?;
        ensure!(!said.out.contains("frozen"), "{said:#?}");
        place.go()?;
        let ended = job.end()?;
        ended.expect_pass()?;
        if ended.out.contains("unknown") {
            left_out::in_part(Needs::Machine, "this kernel has no MAP_DROPPABLE (Linux 6.11)");
        }
        // It knows that it was restarted by its new id.
        Job::start(place.stub(&image).args(["--pid", "new"]))?.end()?.expect_pass()
    })
}

/// MariaDB has such threads: the kernel made them, and no call can be made on them.
#[test]
fn a_thread_of_io_uring_is_named() -> Result<()> {
    const SCRIPT: &str = "import ctypes, os, time\np = ctypes.create_string_buffer(120); p[8] = b'\\2'\n\
        assert ctypes.CDLL(None).syscall(425, 4, p) >= 0\nprint('ready', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\nprint('PASS')\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(place.command(tool("python3", "python3")?).args(["-c", SCRIPT]))?;
        job.wait_line(READY)?;
        let refused = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        ensure!(refused.code() == Some(88) && refused.err.contains("io_uring"), "{refused:#?}");
        place.go()?;
        job.end()?.expect_pass()
    })
}

/// What a process has forbidden itself is in no image: the save says so, and only then.
#[test]
fn a_landlock_domain_is_named() -> Result<()> {
    User::each(|user| {
        for (arguments, restricted) in [(&[][..], true), (&["free"][..], false)] {
            let place = Place::new(user)?;
            let mut job = Job::start(place.command(place.guest("landlock")?).args(arguments))?;
            job.wait_text("\n")?;
            if job.out().starts_with("unknown") {
                println!("left out: this kernel has no Landlock");
                return Ok(());
            }
            let saved = place.save(job.pid(), &place.file("job.ckpt"), &[])?;
            ensure!(saved.err.contains("Landlock") == restricted, "{arguments:?}: {saved:#?}");
            let saved = place.save(job.pid(), &place.file("job.ckpt"), &["--quiet"])?;
            ensure!(saved.err.is_empty(), "{arguments:?}: {saved:#?}");
            place.go()?;
            job.end()?.expect_pass()?;
        }
        Ok(())
    })
}
