//! Entry, arguments, messages, exit codes.

use core::ffi::CStr;

use image_format::ExitCode;
use loader::options::{Options, parse};
use state::process::restarting::{self, Mark};
use state::restart::Result;
use sys::abi::signal::SIGXFSZ;
use sys::text::Line;

use crate::launch::launch;
use crate::prepare::{self, Plan, kernel};

sys::entry_point!(main);

/// What this process does; first in the data, where those who save look for it.
#[used]
#[unsafe(link_section = ".mark")]
pub static MARK: Mark = Mark::new();

/// What the entry point calls with the kernel's initial stack.
unsafe extern "C" fn main(sp: *const usize) -> ! {
    // SAFETY: first, once.
    unsafe { crate::heap::init() };
    // Whoever saves this process by its id waits until it is the program.
    sys::thread::set_name(&restarting::NAME);
    // A limit on the size of files is an error of a write.
    let _ = sys::signal::ignore(SIGXFSZ);
    // SAFETY: the kernel's layout: argc, then as many pointers to strings.
    let arg = |i: usize| unsafe { CStr::from_ptr(*sp.add(1 + i) as *const _) }.to_bytes();
    // SAFETY: as above.
    let args = (1..unsafe { *sp }).map(arg);
    let mut options = Options::new();
    if prepare::image_start() != 0 {
        options.image = b"/proc/self/exe";
    }
    match parse(&mut options, args) {
        Ok(Some(text)) => {
            let _ = sys::fs::write_all(1, Line::filled(text, 0, b"", 0).as_bytes());
            sys::process::exit(0)
        }
        Ok(None) => match restart(&options, is_privileged(sp)) {
            Ok(plan) => crate::commit::commit(plan),
            Err(error) => error.never(),
        },
        Err((why, argument)) => {
            let mut line = Line::filled("argument @ (see --help): ", 0, argument, 0);
            line.fill(why, 0, b"", 0);
            restart_failed(ExitCode::Usage as u8, &line)
        }
    }
}

/// Says why the restart cannot go on, to the other processes of its tree, too, and ends this one; see [`state::restart`].
#[unsafe(no_mangle)]
extern "Rust" fn restart_failed(code: u8, line: &Line) -> ! {
    tell(2, "@", 0, line.as_bytes(), 0);
    crate::prepare::tree::fail(i32::from(code));
    sys::process::exit(i32::from(code))
}

/// From the command line to a plan, in the process that is to be the program.
fn restart(options: &Options<'static>, privileged: bool) -> Result<&'static Plan> {
    let mut input = prepare::open(options, privileged)?;
    let image = *input.image();
    kernel::raise_limits();
    kernel::check(&image, options)?;
    let launched = launch(options, &image, &mut input)?;
    prepare::prepare(options, input, &launched)
}

/// Says a line, which begins with this program's name.
/// `what` is a pattern, see [`Text::fill`].
pub fn tell(fd: sys::fs::Fd, what: &'static str, number: u64, bytes: &[u8], errno: i32) {
    let mut line = Line::filled("restart-stub: ", 0, b"", 0);
    line.fill(what, number, bytes, errno);
    line.push(b"\n");
    let _ = sys::fs::write_all(fd, line.as_bytes());
}

/// Whether the kernel says that this program's file gives it rights (`AT_SECURE`: set-uid, set-gid, capabilities).
fn is_privileged(sp: *const usize) -> bool {
    const AT_SECURE: usize = 23;
    // SAFETY: the kernel's layout: argc, arguments, null, environment, null, then pairs that end with a zero key.
    unsafe {
        let mut at = sp.add(*sp + 2);
        while *at != 0 {
            at = at.add(1);
        }
        at = at.add(1);
        while *at != 0 {
            if *at == AT_SECURE {
                return *at.add(1) != 0;
            }
            at = at.add(2);
        }
    }
    false
}

/// A bug in the stub: say where, start nothing.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("", 0), |place| (place.file(), place.line()));
    tell(crate::commit::error_fd(), "internal error: @:#", line.into(), file.as_bytes(), 0);
    sys::process::exit(i32::from(ExitCode::Restore as u8))
}

/// Named by the precompiled core library; never called, as panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::process::exit(i32::from(ExitCode::Restore as u8))
}
