//! Real programs, saved in the middle of their work, killed, restarted: the results are those of an undisturbed run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::programs::tool;
use ckpt_tests::{Ended, Job, Place, READY, User, left_out};
use rustix::process::Signal;

/// Exit code of a program that saved itself and ended, as asked.
const SAVED_AND_EXITED: i32 = 85;

fn last_line(ended: &Ended) -> Result<String> {
    ensure!(ended.status.success(), "{ended:#?}");
    Ok(ended.out.lines().last().context("no output")?.to_owned())
}

/// Restarts as `ckpt run` does: what was written after the save is cut off and kept aside.
fn roll_back(place: &Place, image: &Path) -> Result<Job> {
    Job::start(place.stub(image).args(["--files", "rollback"]))
}

const CHAIN_PY: &str = r#"
import hashlib
log = open("log.txt", "a")
source = open("source.bin", "rb")
digest = b"seed"
for i in range(82000):
    chunk = source.read(61)
    if len(chunk) < 61:
        source.seek(0)
    digest = hashlib.sha256(digest + chunk).digest()
    if i % 2000 == 0:
        log.write(f"{i} {digest.hex()}\n")
        log.flush()
        print("at", i // 2000, flush=True)
print(digest.hex(), flush=True)
"#;

struct Chain {
    place: Place,
    python: PathBuf,
}

impl Chain {
    fn new(user: User) -> Result<Self> {
        let place = Place::new(user)?;
        place.write("chain.py", CHAIN_PY)?;
        let source: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        place.write("source.bin", source)?;
        Ok(Self { place, python: tool("python3", "python3")? })
    }

    /// Digest and file of a run that nothing disturbs.
    fn undisturbed(&self) -> Result<(String, String)> {
        let ended = Job::start(self.place.command(&self.python).arg("chain.py"))?.end()?;
        Ok((last_line(&ended)?, self.take_log()?))
    }

    /// The file, which makes room for the next run.
    fn take_log(&self) -> Result<String> {
        let path = self.place.file("log.txt");
        let text = fs::read_to_string(&path)?;
        fs::remove_file(path)?;
        Ok(text)
    }

    /// Saved after step `save` and killed after step `kill`, then restarted.
    fn disturbed(&self, save: u32, kill: u32) -> Result<(String, String)> {
        let image = self.place.file("job.ckpt");
        let job = Job::start(self.place.armed(&self.python, &image).arg("chain.py"))?;
        job.wait_line(&format!("at {save}"))?;
        job.save(&image)?;
        job.wait_line(&format!("at {kill}"))?;
        job.kill()?;
        let ended = roll_back(&self.place, &image)?.end()?;
        Ok((last_line(&ended)?, self.take_log()?))
    }
}

fn python_at_twenty_moments(user: User) -> Result<()> {
    let chain = Chain::new(user)?;
    let expected = chain.undisturbed()?;
    for moment in 0..20 {
        let save = moment * 2;
        // Sometimes at once, sometimes after more was written to the file.
        let got = chain.disturbed(save, save + moment % 3 / 2)?;
        ensure!(got == expected, "saved at step {save}: digest {} instead of {}", got.0, expected.0);
    }
    Ok(())
}

#[test]
fn python_computes_on_at_twenty_moments() -> Result<()> {
    python_at_twenty_moments(User::Own)
}

#[test]
fn python_computes_on_at_twenty_moments_as_nobody() -> Result<()> {
    left_out::unless_root("only root can become nobody")?;
    python_at_twenty_moments(User::Nobody)
}

/// Saves a program after it printed `line`, kills it, restarts it, and compares the last line with an undisturbed run's.
fn interrupted(user: User, program: &Path, files: &[(&str, String)], arguments: &[&str], line: &str) -> Result<()> {
    let place = Place::new(user)?;
    for (name, contents) in files {
        place.write(name, contents)?;
    }
    let expected = last_line(&Job::start(place.command(program).args(arguments))?.end()?)?;
    let left = place.file("log.txt");
    let log = fs::read_to_string(&left).ok();
    if log.is_some() {
        fs::remove_file(&left)?;
    }
    let image = place.file("job.ckpt");
    let job = Job::start(place.armed(program, &image).args(arguments))?;
    job.wait_line(line)?;
    job.save_and_kill(&image)?;
    let got = last_line(&roll_back(&place, &image)?.end()?)?;
    ensure!(got == expected, "'{got}' instead of '{expected}'");
    ensure!(fs::read_to_string(&left).ok() == log, "the file that it wrote differs");
    Ok(())
}

#[test]
fn perl() -> Result<()> {
    let script = r#"
        $| = 1; my (%seen, @list); my $x = 1;
        open(my $log, '>>', 'log.txt') or die; $log->autoflush(1);
        for my $i (1 .. 200000) {
            $x = ($x * 1103515245 + 12345) % 2147483648;
            $seen{"key" . $x % 5000} .= chr(65 + $x % 26); push @list, $x if $x % 100 == 0;
            if ($i % 10000 == 0) { print "at $i\n"; print $log "$i $x\n"; }
        }
        my $sum = 0; $sum = ($sum * 31 + length($seen{$_}) + ord($seen{$_})) % 1000000007 for sort keys %seen;
        print "sum $sum ", scalar(@list), "\n";
    "#;
    let program = tool("perl", "perl")?;
    User::each(|user| {
        interrupted(user, &program, &[("job.pl", format!("use IO::Handle;{script}"))], &["job.pl"], "at 60000")
    })
}

#[test]
fn bash_with_a_script_from_a_file() -> Result<()> {
    // `read -u` and a long way between two writes: while a builtin runs with a redirection, bash keeps the pipe that is
    // its standard output on another number, which a restart does not have.
    let script = r#"
exec 3< data.txt 4>> log.txt
sum=0 n=0
while read -r -u 3 word number; do
    (( n++, sum = (sum * 31 + number + ${#word}) % 1000000007 ))
    if (( n % 4000 == 0 )); then echo "$n $sum" >&4; echo "at $n"; fi
done
echo "sum $sum of $n"
"#;
    let data: String = (0..24000).map(|i| format!("w{} {}\n", "x".repeat(i % 40), i * 7919 % 10007)).collect();
    let program = tool("bash", "bash")?;
    let files = [("job.sh", script.to_owned()), ("data.txt", data)];
    User::each(|user| interrupted(user, &program, &files, &["job.sh"], "at 8000"))
}

fn sqlite(user: User) -> Result<()> {
    const ROWS: u32 = 400_000;
    let place = Place::new(user)?;
    let program = tool("sqlite3", "sqlite3")?;
    let insert = format!(
        "PRAGMA cache_size = 50; CREATE TABLE t (n INTEGER PRIMARY KEY, square INTEGER, text TEXT); BEGIN; \
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) \
         INSERT INTO t SELECT n, n * n, printf('%032d', n) FROM c; COMMIT; SELECT 'done';"
    );
    let (image, data) = (place.file("job.ckpt"), place.file("big.db"));
    let mut command = place.armed(&program, &image);
    // It must not write on after the save: the pages of a database are changed in place, not only appended.
    command.env("CKPT_EXIT_SIGNAL", "TERM").env("CKPT_EXIT_CODE", "85").arg("big.db").arg(insert);
    let mut job = Job::start(&mut command)?;
    job.wait_armed()?;
    let grown = || Ok(fs::metadata(&data).is_ok_and(|m| m.len() > 4 << 20).then_some(()));
    ckpt_tests::wait::until(grown, || format!("the database does not grow: {}", job.story()))?;
    job.send(Signal::TERM)?;
    job.end()?.expect_code(SAVED_AND_EXITED)?;
    ensure!(!job.out().contains("done"), "the test came too late: the insert was over");
    let ended = Job::start(&mut place.stub(&image))?.end()?;
    ensure!(ended.status.success() && ended.out.trim() == "done", "{ended:#?}");
    let query = "PRAGMA integrity_check; SELECT count(*), sum(square) FROM t;";
    let checked = Job::start(place.command(&program).args(["big.db", query]))?.end()?;
    let squares: u64 = (1..=u64::from(ROWS)).map(|n| n * n).sum();
    ensure!(checked.out == format!("ok\n{ROWS}|{squares}\n"), "{checked:#?}");
    Ok(())
}

#[test]
fn sqlite_in_the_middle_of_an_insert() -> Result<()> {
    User::each(sqlite)
}

fn threads(user: User, guest: &str) -> Result<()> {
    let place = Place::new(user)?;
    let image = place.file("job.ckpt");
    let mut job = Job::start(&mut place.armed(place.guest(guest)?, &image))?;
    job.wait_line(READY)?;
    for _ in 0..3 {
        job.save_and_kill(&image)?;
        job = Job::start(&mut place.stub(&image))?;
    }
    place.go()?;
    job.end()?.expect_pass()
}

#[test]
fn eight_threads_in_c() -> Result<()> {
    User::each(|user| threads(user, "threads8"))
}

#[test]
fn eight_threads_in_rust() -> Result<()> {
    User::each(|user| threads(user, "threads8.rs"))
}

#[test]
fn a_robust_mutex_tells_of_its_holders_end() -> Result<()> {
    User::each(|user| threads(user, "robust"))
}

/// Starts the recursion and saves and kills it at each of these lines; returns how the last generation ended.
fn recursion(place: &Place, lines: &[String]) -> Result<Ended> {
    let image = place.file("job.ckpt");
    let mut job = Job::start(&mut place.armed(place.guest("recursion")?, &image))?;
    for line in lines {
        job.wait_line(line)?;
        job.save_and_kill(&image)?;
        job = Job::start(&mut place.stub(&image))?;
    }
    job.end()
}

fn undisturbed_sums(place: &Place) -> Result<String> {
    last_line(&Job::start(&mut place.command(place.guest("recursion")?))?.end()?)
}

#[test]
fn recursion_goes_on() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let sums = undisturbed_sums(&place)?;
        ensure!(sums.starts_with("sums: stack "), "{sums}");
        for line in ["down 3000", "down 9000", "up 7000"] {
            let ended = recursion(&place, &[line.to_owned()])?;
            ensure!(last_line(&ended)? == sums, "saved at '{line}': {ended:#?}, undisturbed: {sums}");
        }
        Ok(())
    })
}

#[test]
fn ten_generations_keep_their_sums() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let lines: Vec<String> = (1..=10).map(|i| format!("down {}", i * 1000)).collect();
        let (sums, ended) = (undisturbed_sums(&place)?, recursion(&place, &lines)?);
        ensure!(last_line(&ended)? == sums, "{ended:#?}, undisturbed: {sums}");
        Ok(())
    })
}

#[test]
fn two_restarts_of_one_image_at_once() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let sums = undisturbed_sums(&place)?;
        let image = place.file("job.ckpt");
        let job = Job::start(&mut place.armed(place.guest("recursion")?, &image))?;
        job.wait_line("down 4000")?;
        job.save_and_kill(&image)?;
        let mut both = Vec::new();
        for name in ["one", "two"] {
            let dir = place.file(name);
            fs::create_dir(&dir)?;
            fs::copy(&image, dir.join("job.ckpt"))?;
            place.give(&dir.join("job.ckpt"))?;
            let mut stub = place.stub(Path::new("job.ckpt"));
            both.push(Job::start(stub.current_dir(&dir))?);
        }
        for job in &mut both {
            let ended = job.end()?;
            ensure!(last_line(&ended)? == sums, "{ended:#?}, undisturbed: {sums}");
        }
        Ok(())
    })
}

/// Linked with the library, dynamic or static: the special branch in main, a save by a call, a hook.
fn saves_itself(user: User, link: ckpt_tests::programs::Link) -> Result<()> {
    let place = Place::new(user)?;
    let guest = place.linked_guest("selfsave", link)?;
    let first = Job::start(place.command(&guest).arg("own.ckpt"))?.end()?;
    ensure!(first.code() == Some(3) && first.out == "step 1\nstep 2\nstep 3\nsaved\n", "{first:#?}");
    let second = Job::start(place.command(&guest).arg("own.ckpt"))?.end()?;
    second.expect_pass()?;
    let expected = "hook: redrawn at 6\nrestarted\nstep 4\nstep 5\nstep 6\nPASS\n";
    // Its last save leads nowhere: one line.
    let refused = second.err.starts_with("ckpt: save failed: ") && second.err.lines().count() == 1;
    ensure!(second.out == expected && refused, "{second:#?}");
    Job::start(&mut place.stub(&place.file("own.ckpt")))?.end()?.expect_pass()
}

#[test]
fn a_program_saves_itself_with_the_shared_library() -> Result<()> {
    User::each(|user| saves_itself(user, ckpt_tests::programs::Link::SharedLibrary))
}

#[test]
fn a_static_program_saves_itself() -> Result<()> {
    User::each(|user| saves_itself(user, ckpt_tests::programs::Link::StaticLibrary))
}
