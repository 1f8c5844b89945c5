//! io_uring instances of which something cannot be read back: each is refused by what it is, by a save of its process, and foretold.

use anyhow::{Result, ensure};
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::tool;
use ckpt_tests::table::{self, Outcome};
use ckpt_tests::{Job, Place, READY, User, left_out};

use super::{EPILOGUE, PRELUDE, foretold};

/// Makes instances, and submits requests.
const RINGS: &str = r#"
import threading
def ring(flags=0, entries=4):
    global p, sq, sqes
    p = ctypes.create_string_buffer(120); struct.pack_into("II", p, 8, flags, 0)
    n = must(libc.syscall(425, entries, p))
    if not flags & 0x4000: sq, sqes = mmap.mmap(n, 4096), mmap.mmap(n, 4096, offset=0x10000000)
    return n
def submit(n, operation, fd=-1, address=0, length=0, more=0, flags=0):
    tail, array = struct.unpack_from("I", p, 44)[0], struct.unpack_from("I", p, 64)[0]
    at, = struct.unpack_from("I", sq, tail)
    struct.pack_into("I", sq, array + at % 4 * 4, at % 4)
    struct.pack_into("BBHiQQIIQ", sqes, at % 4 * 64, operation, flags, 0, fd, 0, address, length, more, 77)
    struct.pack_into("I", sq, tail, at + 1)
    if libc.syscall(426, n, 1, 0, 0, None, 0) != 1: must(-1)
def register(n, operation, array, count): must(libc.syscall(427, n, operation, array, count))
"#;

/// False: this kernel cannot make what was to be refused.
fn is_refused(place: &Place, set_up: &str, words: &[&str], told: bool) -> Result<bool> {
    let script = format!("{PRELUDE}{RINGS}{set_up}{EPILOGUE}");
    let mut job = Job::start(place.command(tool("python3", "python3")?).args(["-c", &script]))?;
    if job.wait_line(READY).is_err() && job.out().contains("SKIP") {
        left_out::in_part(Needs::Machine, format!("{:?}", job.out().trim()));
        return job.end().map(|_| false);
    }
    let image = place.file("job.ckpt");
    if told {
        foretold::by_check(place, &job)?;
    }
    for options in [&[][..], &["--kill"]] {
        let refused = place.try_save(job.pid(), &image, options)?;
        let names = |word: &&str| refused.err.contains(*word);
        ensure!(refused.code() == Some(88) && words.iter().all(names) && !image.exists(), "{words:?}: {refused:#?}");
    }
    place.go()?;
    job.end()?.expect_pass()?;
    Ok(true)
}

fn refused(name: &str, set_up: &str, words: &[&str], told: bool) -> Result<()> {
    User::each(|user| {
        let result = is_refused(&Place::new(user)?, set_up, words, told);
        let outcome = if let Ok(false) = result { Outcome::Skipped } else { Outcome::Refused };
        table::enter(name, "refused", user, outcome.or_fail(&result));
        result.map(drop)
    })
}

macro_rules! rings {
    ($($name:ident: $set_up:literal, $words:expr;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            refused(stringify!($name), $set_up, &$words, true)
        }
    )* };
}

rings! {
    a_poll_in_flight: "r, w = os.pipe(); N = ring(); submit(N, 6, r, more=1)", ["io_uring, POLL_ADD waits", "in flight"];
    a_read_in_flight:
        "r, w = os.pipe(); b = ctypes.create_string_buffer(8); N = ring(); submit(N, 22, r, ctypes.addressof(b), 8)",
        ["io_uring", "in flight"];
    a_timeout_in_flight:
        "t = ctypes.create_string_buffer(struct.pack('qq', 1000, 0)); N = ring(); submit(N, 11, -1, ctypes.addressof(t), 1)",
        ["io_uring", "in flight"];
    a_request_that_completed_never: "N = ring(); submit(N, 0, flags=64)", ["io_uring", "completed never"];
    an_eventfd_that_is_told: "e = os.eventfd(0); N = ring(); register(N, 4, struct.pack('i', e), 1)", ["io_uring", "eventfd"];
    one_that_is_not_enabled: "N = ring(64)", ["io_uring", "not enabled"];
    one_that_is_restricted:
        "N = ring(64); register(N, 11, struct.pack('HBBIQ', 1, 0, 0, 0, 0), 1); register(N, 12, None, 0)", ["io_uring", "restricted"];
    one_with_credentials:
        "N = ring(); libc.syscall(427, N, 9, None, 0)\n\
         if 'Personalities' not in open('/proc/self/fdinfo/%d' % N).read(): print('SKIP untold', flush=True); sys.exit(0)",
        ["io_uring", "credentials"];
    one_that_a_thread_polls: "N = ring(2)", ["io_uring", "thread of the kernel's"];
    a_registered_file: "f = open('file', 'w'); N = ring(); register(N, 2, struct.pack('i', f.fileno()), 1)", ["io_uring", "registered file 0", "/file"];
    a_registered_pipe: "r, w = os.pipe(); N = ring(); register(N, 2, struct.pack('i', w), 1)", ["io_uring", "registered file 0", "pipe:"];
    provided_buffers:
        "b = mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); N = ring()\n\
         register(N, 22, struct.pack('QIHHQQQ', ctypes.addressof(ctypes.c_char.from_buffer(b)), 4, 41234, 0, 0, 0, 0), 1)",
        ["io_uring", "provided buffers"];
    one_of_a_thread_among_others:
        "N = ring(0x1000); threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", ["io_uring", "SINGLE_ISSUER"];
    rings_in_memory_of_the_programs_own:
        "a = [mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for i in range(2)]; p = ctypes.create_string_buffer(120)\n\
         struct.pack_into('I', p, 8, 0x4000); b = [ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in a]\n\
         struct.pack_into('Q', p, 72, b[0]); struct.pack_into('Q', p, 112, b[1]); N = must(libc.syscall(425, 4, p))",
        ["io_uring", "program's own memory"];
    one_that_a_child_has_too: "N = ring(); os.set_inheritable(N, True); child = os.fork()\nif child == 0:\n    while True: time.sleep(0.01)", ["io_uring", "another process's"];
    memory_of_one_that_is_closed:
        "p = ctypes.create_string_buffer(120); n = must(libc.syscall(425, 4, p)); must(libc.mmap(None, 4096, 3, 1, n, 0)); os.close(n); N = None",
        ["io_uring", "no descriptor"];
}

/// Only its own thread can ask for the eventfd of such an instance, and `ckpt check` makes no call inside the process.
#[test]
fn an_eventfd_that_one_thread_is_told_of() -> Result<()> {
    let set_up = "e = os.eventfd(0); N = ring(0x1000); register(N, 4, struct.pack('i', e), 1)";
    refused("an_eventfd_that_one_thread_is_told_of", set_up, &["io_uring", "eventfd"], false)
}
