//! Shared contents beyond the guest's own checks: real programs, large ones, damaged ones, and a directory that is gone.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Bytes;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User};
use image_format::ExitCode;

/// Starts a program, saves it by its pid, kills it, restarts it, and expects it to pass; what the saver said.
fn again(place: &Place, command: &mut Command, options: &[&str]) -> Result<(String, Job)> {
    let image = place.file("job.ckpt");
    let job = Job::start(command)?;
    job.wait_line(READY)?;
    let said = place.save(job.pid(), &image, options)?;
    job.kill()?;
    let job = Job::start(place.stub(&image).arg("-v"))?;
    place.go()?;
    Ok((said.out + &said.err, job))
}

const PYTHON: &str = r#"
import hashlib, mmap, os, tempfile, time
from multiprocessing import RawArray
plain = tempfile.TemporaryFile(); plain.write(os.urandom(300000)); plain.flush(); plain.seek(0)
one = hashlib.md5(plain.read()).hexdigest(); plain.seek(1000)
spooled = tempfile.SpooledTemporaryFile(max_size=10); spooled.write(b'x' * 100000)
shared = mmap.mmap(-1, SIZE); shared[:300000] = os.urandom(300000); shared[SIZE - 1] = 9
if FULL:
    for at in range(0, SIZE, 4096): shared[at] = 1
two = hashlib.md5(shared).hexdigest()
fd = os.memfd_create('buffer'); os.ftruncate(fd, 1 << 20); mapped = mmap.mmap(fd, 1 << 20); mapped[5:10] = b'hello'
array = RawArray('i', 1000); array[7] = 42
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.001)
assert plain.tell() == 1000; plain.seek(0); assert hashlib.md5(plain.read()).hexdigest() == one
assert hashlib.md5(shared).hexdigest() == two and os.pread(fd, 5, 5) == b'hello' and array[7] == 42 and array[8] == 0
spooled.write(b'y'); spooled.seek(0); assert len(spooled.read()) == 100001
print('PASS', flush=True)
"#;

fn python(size: usize, full: bool, expect: &str) -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let script = PYTHON.replace("SIZE", &size.to_string()).replace("FULL", if full { "True" } else { "False" });
        let mut command = place.command(tool("python3", "python3")?);
        let (said, mut job) = again(&place, command.args(["-c", &script]), &["-v"])?;
        ensure!(said.contains(expect), "not '{expect}': {said}");
        let ended = job.end()?;
        ensure!(ended.out.lines().any(|line| line == "PASS"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn python_with_temporary_files_and_shared_memory() -> Result<()> {
    python(1 << 20, false, "")
}

#[test]
fn much_shared_memory_keeps_the_process_standing() -> Result<()> {
    python(80 << 20, true, "too much shared memory")
}

#[test]
fn a_here_document_of_bash() -> Result<()> {
    const SCRIPT: &str = "i=0\nwhile read -r line; do i=$((i+1)); last=$line\n\
        [ $i = 10 ] && { echo ready; while [ ! -e go ]; do :; done; }\ndone <<END\n$(seq 1 40000)\nEND\n\
        [ $i = 40000 ] && [ \"$last\" = 40000 ] && echo PASS || echo \"FAIL $i $last\"\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let script = place.write("script", SCRIPT)?;
        let (_, mut job) = again(&place, place.command(tool("bash", "bash")?).arg(script), &[])?;
        let ended = job.end()?;
        ensure!(ended.out.lines().any(|line| line == "PASS"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn a_deleted_file_whose_directory_is_gone_too() -> Result<()> {
    const SCRIPT: &str = "import os, time\nos.mkdir('dir'); f = open('dir/gone', 'w+b', buffering=0); f.write(b'contents')\n\
        os.unlink('dir/gone'); os.rmdir('dir')\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.001)\n\
        assert f.tell() == 8; f.write(b'!'); f.seek(0); assert f.read() == b'contents!'\nprint('PASS', flush=True)\n";
    User::each(|user| {
        let place = Place::new(user)?;
        let (_, mut job) = again(&place, place.command(tool("python3", "python3")?).args(["-c", SCRIPT]), &[])?;
        let ended = job.end()?;
        let told = ended.err.contains("dir/gone") && ended.err.contains("in memory now");
        ensure!(told && ended.out.lines().any(|line| line == "PASS"), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn through_a_pipe() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let job = Job::start(&mut place.command(place.guest("content")?))?;
        job.wait_line(READY)?;
        let image = place.file("job.ckpt");
        let mut save = place.ckpt();
        save.args(["save", "-q", "-o", "-"]).arg(job.pid().to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut saver = save.spawn()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut saver.stdout.take().context("no pipe")?, &mut bytes)?;
        ensure!(saver.wait()?.success(), "the save failed");
        job.kill()?;
        place.write("job.ckpt", &bytes)?;
        place.go()?;
        Job::start(place.stub(&image).arg("--trust"))?.end()?.expect_pass()
    })
}

#[test]
fn damage_is_found_before_anything_is_started() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = place.file("job.ckpt");
    let job = Job::start(&mut place.command(place.guest("content")?))?;
    job.wait_line(READY)?;
    place.save(job.pid(), &image, &[])?;
    job.kill()?;
    let mut bytes = fs::read(&image)?;
    let parts: Vec<u64> = Bytes::new(&bytes).image()?.content_segments().map(|part| part.offset).collect();
    ensure!(parts.len() > 3, "{parts:?}");
    place.go()?;
    for part in [parts[0], parts[parts.len() / 2], parts[parts.len() - 1]] {
        let at = usize::try_from(part)? + 5;
        bytes[at] ^= 1;
        let damaged = place.write("damaged.ckpt", &bytes)?;
        bytes[at] ^= 1;
        let verify = Job::start(place.ckpt().arg("verify").arg(&damaged))?.end()?;
        let restart = Job::start(place.stub(&damaged).arg("--trust"))?.end()?;
        // Whose they are is for `ckpt verify` to say.
        for (ended, word) in [(verify, "shared contents"), (restart, "damaged")] {
            ended.expect_code(ExitCode::DamagedMemory as i32)?;
            ensure!(ended.err.contains(word) && ended.out.is_empty(), "{ended:#?}");
        }
    }
    Ok(())
}

/// A live save lets the process go on before its mappings are read, from the copy: what it has deleted by then had its name in the pause. Where
/// that is not enough the save is made again, and at last with the process standing still: the user sees none of this.
#[test]
fn files_that_are_deleted_while_a_live_save_reads_on() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let job = Job::start(&mut place.command(place.guest("fleeting")?))?;
        job.wait_line(READY)?;
        let image = place.file("job.ckpt");
        for _ in 0..60 {
            place.save(job.pid(), &image, &[])?;
            let verify = Job::start(place.ckpt().arg("verify").arg(&image))?.end()?;
            ensure!(verify.code() == Some(0), "{verify:#?}");
        }
        job.kill()?;
        Ok(())
    })
}
