//! What cannot be carried is refused by name: the save fails with one line on standard error, the program goes on, the old
//! image is as it was, and no temporary file is left. The same for every other reason why a save fails.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ckpt_tests::image::beginning;
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::tool;
use ckpt_tests::table::{self, Outcome};
use ckpt_tests::{Job, Place, READY, User, left_out};
use rustix::process::Signal;

#[path = "refusals/foretold.rs"]
mod foretold;
#[path = "refusals/frozen.rs"]
mod frozen;
#[path = "refusals/rings.rs"]
mod rings;
#[path = "refusals/uncarried.rs"]
mod uncarried;

/// Sets `N` to what the message must name; runs before `ready`.
const PRELUDE: &str = r#"
import ctypes, mmap, os, select, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def must(result):
    if result == -1 or result == 2**64 - 1:
        print("SKIP", os.strerror(ctypes.get_errno()), flush=True); sys.exit(0)
    return result
child = 0
"#;

const EPILOGUE: &str = r#"
print("number", N)
print("ready", flush=True)
while not os.path.exists("go"): time.sleep(0.001)
if child: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
print("PASS", flush=True)
os._exit(0)
"#;

/// Starts python with the set-up, asks for a save, and expects a refusal with these words (one of each group).
fn refused(name: &str, set_up: &str, words: &[&[&str]]) -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let script = format!("{PRELUDE}{set_up}{EPILOGUE}");
        let mut python = place.command(tool("python3", "python3")?);
        python.args(["-c", &script]);
        let result = expect_refusal(&place, python, words, foretold::is_told(name));
        let outcome = if let Ok(false) = result { Outcome::Skipped } else { Outcome::Refused };
        table::enter(name, "refused", user, outcome.or_fail(&result));
        result.map(drop)
    })
}

/// Names and inodes of all files in the directory.
fn listing(dir: &Path) -> Result<BTreeSet<(PathBuf, u64)>> {
    fs::read_dir(dir)?
        .map(|entry| entry.and_then(|e| Ok((e.path(), e.metadata()?.ino()))).map_err(Into::into))
        .collect()
}

/// False: this kernel cannot make what was to be refused.
fn expect_refusal(place: &Place, mut program: Command, words: &[&[&str]], told: bool) -> Result<bool> {
    let image = place.write("job.ckpt", beginning())?;
    let mut job = Job::start(place.arm(&mut program, &image))?;
    if job.wait_line(READY).is_err() && job.out().contains("SKIP") {
        left_out::in_part(Needs::Machine, format!("{:?}", job.out().trim()));
        return job.end().map(|_| false);
    }
    let number = job.out().lines().find_map(|line| line.strip_prefix("number ").map(str::to_owned));
    job.wait_armed()?;
    if told {
        foretold::by_check(place, &job)?;
    }
    let before = listing(&place.work())?;
    job.send(Signal::USR1)?;
    job.wait_err("\n")?;
    ensure!(listing(&place.work())? == before, "files: {:?}, were {before:?}", listing(&place.work())?);
    ensure!(fs::read(&image)? == beginning(), "the old image changed");
    place.go()?;
    let ended = job.end()?;
    ended.expect_pass()?;
    let err = ended.err.strip_suffix('\n').unwrap_or(&ended.err);
    ensure!(
        err.starts_with("ckpt: save failed: ") && !err.contains('\n'),
        "not one line of the right form: {ended:#?}"
    );
    for any in words {
        ensure!(any.iter().any(|word| err.contains(word)), "none of {any:?} in: {err}");
    }
    if let Some(number) = number.filter(|n| n != "None") {
        let named = err.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == number);
        ensure!(named, "'{number}' is not named in: {err}");
    }
    Ok(true)
}

macro_rules! refusals {
    ($($name:ident: $set_up:literal, $words:expr;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            refused(stringify!($name), $set_up, $words)
        }
    )* };
}

refusals! {
    a_socket_to_another_process:
        "a, b = socket.socketpair(); N = a.fileno(); p = os.fork()\n\
         if p == 0:\n    if os.fork(): os._exit(0)\n    while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(0)\n\
         os.waitpid(p, 0); b.close()",
        &[&["socket unix"], &["another process"]];
    a_tcp_connection_to_another_process:
        "l = socket.create_server(('127.0.0.1', 0)); p = os.fork()\n\
         if p == 0:\n    if os.fork(): os._exit(0)\n    c = socket.create_connection(l.getsockname()); l.close()\n    \
         while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(0)\n\
         os.waitpid(p, 0); s, _ = l.accept(); N = s.fileno()",
        &[&["tcp 127.0.0.1"], &["another process"], &["--tcp close"]];
    a_socket_whose_file_was_renamed:
        "s = socket.socket(socket.AF_UNIX); s.bind('old.sock'); s.listen(); os.rename('old.sock', 'new.sock'); N = s.fileno()",
        &[&["old.sock"], &["another name"]];
    a_netlink_socket_with_messages:
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.send(struct.pack('IHHIIBxHiII', 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0)); N = s.fileno()",
        &[&["netlink"], &["messages waiting"]];
    a_vsock:
        "try: s = socket.socket(40, socket.SOCK_STREAM)\nexcept OSError as x: print('SKIP', x, flush=True); sys.exit(0)\nN = s.fileno()",
        &[&["vsock"]];
    an_inotify_with_events:
        "N = must(libc.inotify_init()); must(libc.inotify_add_watch(N, b'.', 0x100)); open('new', 'w').close(); os.unlink('new')",
        &[&["inotify"], &["events waiting"]];
    an_inotify_of_what_is_gone:
        "N = must(libc.inotify_init()); f = open('gone', 'w'); must(libc.inotify_add_watch(N, b'gone', 2)); os.unlink('gone'); N = None",
        &[&["inotify"], &["path cannot be found"]];
    a_pidfd_of_another: "N = os.pidfd_open(os.getppid())", &[&["pidfd"], &["is not saved"]];
    an_io_uring: "p = ctypes.create_string_buffer(120); N = must(libc.syscall(425, 4, p))", &[&["io_uring"], &["saves itself"]];
    an_epoll_for_busy_polling:
        "import fcntl; e = select.epoll(); N = e.fileno()\n\
         try: fcntl.ioctl(N, 0x40088a01, b'\\x0a\\0\\0\\0\\x08\\0\\0\\0')\n\
         except OSError as x: print('SKIP', x, flush=True); sys.exit(0)",
        &[&["epoll"], &["busy"]];
    an_epoll_of_what_another_keeps_open:
        "e = select.epoll(); r, w = os.pipe(); e.register(r, 1); N = e.fileno(); p = os.fork()\n\
         if p == 0:\n    if os.fork(): os._exit(0)\n    while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(0)\n\
         os.waitpid(p, 0); os.close(r); os.close(w)",
        &[&["epoll"], &["another process"]];
    a_pipe_with_packets_and_a_stream:
        "import fcntl; N, w = os.pipe(); os.write(w, b's' * 4096); fcntl.fcntl(w, 4, 0o40000); os.write(w, b'packet')",
        &[&["pipe"], &["mixed"]];
    a_file_of_proc_of_another: "f = open('/proc/%d/stat' % os.getppid()); N = f.fileno()", &[&["/proc"], &["another process"]];
    a_lease_that_somebody_waits_for:
        "import fcntl as c; signal.signal(29, signal.SIG_IGN); f = open('leased', 'w'); N = f.fileno(); c.fcntl(f, c.F_SETLEASE, 1); libc.open(b'leased', 2048)",
        &[&["lease that somebody waits for"]];
    a_terminal_with_its_master_elsewhere:
        "N, s = os.openpty(); p = os.fork()\n\
         if p == 0:\n    if os.fork(): os._exit(0)\n    os.close(N)\n    while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(0)\n\
         os.waitpid(p, 0); os.close(s)",
        &[&["ptmx"], &["master"], &["another process"]];
    a_terminal_with_a_message_of_packet_mode:
        "import fcntl, termios; N, s = os.openpty(); fcntl.ioctl(N, termios.TIOCPKT, b'\\1\\0\\0\\0'); termios.tcflush(s, 0)",
        &[&["ptmx"], &["packet mode"]];
    a_terminal_that_is_stopped: "import termios; N, s = os.openpty(); termios.tcflow(s, termios.TCOOFF); os.write(N, b'x')", &[&["tcflow"]];
    // The kernel moves what was written to the other end in its own time.
    a_terminal_with_much_typed:
        "import fcntl, termios, tty; N, s = os.openpty(); tty.setraw(s); os.write(N, b'x' * 4095)\n\
         while int.from_bytes(fcntl.ioctl(s, termios.FIONREAD, bytes(4)), 'little') < 4095: time.sleep(0.001)",
        &[&["typed"]];
    a_memfd_of_huge_pages: "N = must(libc.memfd_create(b'scratch', 4))", &[&["memfd"], &["huge"]];
    shared_huge_pages: "must(libc.mmap(None, 2 << 20, 3, 0x44021, -1, 0)); N = None", &[&["huge"]];
    a_deleted_file_with_a_name_elsewhere:
        "f = open('gone', 'w+'); os.mkdir('dir'); os.link('gone', 'dir/kept'); os.unlink('gone'); N = f.fileno()",
        &[&["gone"], &["another name"]];
    a_mapping_of_a_deleted_file_with_another_name:
        "f = open('gone', 'w+b'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); os.mkdir('d'); os.link('gone', 'd/kept'); \
         os.unlink('gone'); f.close(); del f; N = None",
        &[&["gone"], &["deleted"]];
    sysv_memory_of_another:
        "i = must(libc.shmget(0, 4096, 0o1600)); a = must(libc.shmat(i, None, 0)); libc.shmctl(i, 0, None); N = None; p = os.fork()\n\
         if p == 0:\n    if os.fork(): os._exit(0)\n    while not os.path.exists('go'): time.sleep(0.01)\n    os._exit(0)\n\
         os.waitpid(p, 0)",
        &[&["System V"], &["another process"]];
    huge_pages: "must(libc.mmap(None, 2 << 20, 3, 0x44022, -1, 0)); N = None", &[&["huge"]];
    amx_tiles:
        "must(libc.syscall(158, 0x1023, 18)); N = None",
        &[&["AMX"]];
    a_child:
        "child = os.fork()\nif child == 0:\n    while True: time.sleep(0.01)\nN = child",
        &[&["child"]];
    a_seccomp_filter:
        "class F(ctypes.Structure): _fields_ = [('c', ctypes.c_uint16), ('t', ctypes.c_uint8), ('f', ctypes.c_uint8), ('k', ctypes.c_uint32)]\n\
         class P(ctypes.Structure): _fields_ = [('len', ctypes.c_uint16), ('f', ctypes.POINTER(F))]\n\
         f = F(6, 0, 0, 0x7fff0000); p = P(1, ctypes.pointer(f)); must(libc.prctl(38, 1, 0, 0, 0))\n\
         must(libc.prctl(22, 2, ctypes.byref(p), 0, 0)); N = None",
        &[&["seccomp"]];
}

/// Asks a guest for a save to `image`, which must fail with one of these words; the guest passes afterwards.
fn save_fails(place: &Place, mut program: Command, image: &Path, words: &[&str]) -> Result<String> {
    let mut job = Job::start(place.arm(&mut program, image))?;
    job.wait_line(READY)?;
    job.wait_armed()?;
    job.send(Signal::USR1)?;
    job.wait_err("\n")?;
    place.go()?;
    let ended = job.end()?;
    ended.expect_pass()?;
    let fine = ended.err.starts_with("ckpt: save failed: ") && ended.err.lines().count() == 1;
    ensure!(fine && words.iter().any(|word| ended.err.contains(word)), "none of {words:?}: {ended:#?}");
    Ok(ended.err)
}

#[test]
fn a_directory_that_may_not_be_written() -> Result<()> {
    left_out::unless_root("only root can become nobody")?;
    let place = Place::new(User::Nobody)?;
    let dir = place.file("closed");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    let program = place.command(place.guest("umask")?);
    save_fails(&place, program, &dir.join("job.ckpt"), &["EACCES", "ermission denied", "13"])?;
    ensure!(fs::read_dir(dir)?.next().is_none(), "something was left");
    Ok(())
}

#[test]
fn a_directory_that_is_not_there() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let program = place.command(place.guest("umask")?);
        save_fails(&place, program, &place.file("nowhere/job.ckpt"), &["ENOENT", "No such file", "no such file"])
            .map(drop)
    })
}

/// A small file system that is full soon; unmounted with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=777", "ckpt-test"]).arg(&at).output()?;
        if !done.status.success() {
            bail!("mount: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It stays mounted only where something still lies in it, and then the test has failed already.
        drop(Command::new("umount").arg(&self.0).output());
    }
}

/// Tries saves to a disk that is too small. `saves` is given the image's path, and what to ask after each of them: whether the old
/// image is whole and alone.
fn on_a_full_disk(saves: impl Fn(&Place, &Path, &dyn Fn() -> Result<()>) -> Result<()>) -> Result<()> {
    left_out::unless_root("only root can mount a small file system")?;
    User::each(|user| {
        let place = Place::new(user)?;
        let disk = SmallDisk::mount(place.file("disk")).context("a container without CAP_SYS_ADMIN?")?;
        let image = disk.0.join("job.ckpt");
        fs::write(&image, beginning())?;
        place.give(&image)?;
        saves(&place, &image, &|| {
            let there = listing(&disk.0)?;
            ensure!(fs::read(&image)? == beginning() && there.len() == 1, "left: {there:?}");
            Ok(())
        })
    })
}

#[test]
fn a_full_disk() -> Result<()> {
    on_a_full_disk(|place, image, is_as_it_was| {
        let program = place.command(place.guest("umask")?);
        save_fails(place, program, image, &["ENOSPC", "No space", "no space"])?;
        is_as_it_was()
    })
}

/// Also where several threads write the image at once: the first error ends the save, and the program is as it was.
#[test]
fn a_full_disk_under_a_save_by_pid() -> Result<()> {
    on_a_full_disk(|place, image, is_as_it_was| {
        let mut python = place.command(tool("python3", "python3")?);
        let script = format!("{PRELUDE}x = b'x' * 20000000; N = None{EPILOGUE}");
        let mut job = Job::start(python.args(["-c", &script]))?;
        job.wait_line(READY)?;
        for options in [&[][..], &["--freeze"], &["--kill"]] {
            let refused = place.try_save(job.pid(), image, options)?;
            refused.expect_code(88)?;
            ensure!(refused.err.contains("ENOSPC") && refused.err.lines().count() == 1, "{options:?}: {refused:#?}");
            is_as_it_was().with_context(|| format!("{options:?}"))?;
            ensure!(ckpt_tests::proc::state(job.pid()).is_some_and(|state| "RS".contains(state)), "{}", job.story());
        }
        place.go()?;
        job.end()?.expect_pass()
    })
}

#[test]
fn a_limit_on_file_sizes() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.write("job.ckpt", beginning())?;
        // SIGXFSZ, which comes with it, would end the program.
        let mut program = place.command(tool("bash", "bash")?);
        program.args(["-c", "ulimit -f 64; exec \"$0\""]).arg(place.guest("umask")?);
        let mut job = Job::start(place.arm(&mut program, &image))?;
        job.wait_line(READY)?;
        ensure!(ckpt_tests::proc::comm(job.pid())? == "umask", "the shell is still there");
        let before = listing(&place.work())?;
        job.send(Signal::USR1)?;
        job.wait_err("\n")?;
        ensure!(listing(&place.work())? == before, "files: {:?}, were {before:?}", listing(&place.work())?);
        place.go()?;
        let ended = job.end()?;
        ended.expect_pass()?;
        ensure!(ended.err.starts_with("ckpt: save failed: ") && fs::read(&image)? == beginning(), "{ended:#?}");
        Ok(())
    })
}

#[test]
fn a_save_that_works_says_nothing_and_leaves_one_file() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(&mut place.armed(place.guest("rlimit")?, &image))?;
        job.wait_line(READY)?;
        for _ in 0..3 {
            job.save(&image)?;
            ckpt_tests::image::expect_sound(&image)?;
            let there = listing(&place.work())?;
            ensure!(there.len() == 1, "more than the image: {there:?}");
        }
        place.go()?;
        let ended = job.end()?;
        ensure!(ended.err.is_empty(), "{ended:#?}");
        ended.expect_pass()
    })
}

/// A process that a filter ends for a call which it does not make itself: refused before any call is made in it.
#[test]
fn whose_calls_are_watched_is_not_touched() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        for (how, word) in [("filter", "seccomp"), ("strict", "seccomp"), ("dispatch", "dispatch")] {
            let mut job = Job::start(place.command(place.guest("guarded")?).arg(how))?;
            job.wait_line(READY)?;
            let refused = ckpt_tests::wait::until(
                // Its guard comes after its word.
                || Ok(Some(place.try_save(job.pid(), &image, &[])?).filter(|ended| ended.code() != Some(0))),
                || format!("{how}: saved every time"),
            )?;
            refused.expect_code(88)?;
            ensure!(refused.err.contains(word), "{how}: {refused:#?}");
            ensure!(!ckpt_tests::remote::ends_within(job.pid(), Duration::from_millis(50))?, "{how}: {}", job.story());
            if how == "filter" {
                place.go()?;
                job.end()?.expect_pass()?;
                place.halt()?;
            } else {
                job.kill()?;
            }
        }
        Ok(())
    })
}

/// A process whose first thread has ended while another one goes on.
#[test]
fn without_a_first_thread() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(&mut place.command(place.guest("headless")?))?;
        job.wait_line(READY)?;
        let refused = place.try_save(job.pid(), &place.file("job.ckpt"), &[])?;
        refused.expect_code(88)?;
        ensure!(refused.err.contains("first thread"), "{refused:#?}");
        place.go()?;
        job.end()?.expect_pass()
    })
}
