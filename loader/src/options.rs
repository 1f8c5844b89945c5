//! The stub's command line: few options, by hand, as there is no libc and no allocator.

use state::FilesPolicy;
use sys::text::{choice, cut, decimal};

/// Most `--fd` options.
pub const FDS_MAX: usize = 32;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: restart-stub [OPTIONS] IMAGE

Becomes the process that was saved to IMAGE.

Options:
  --files verify|rollback|ignore  what to do with files that changed since the save [default: verify]
  --fd N=PATH                     open PATH for the program's descriptor N (repeatable)
  --cpu verify|ignore             refuse a CPU that lacks what the program may use [default: verify]
  --pid new|keep                  the ids of process and threads: new ones, or the saved ones [default: new]
  --trust                         restart an image that others may have written
  -v                              say what is decided
  --help, --version

Exit codes: 64 usage, 66 no image, 70-77 bad image, 78 not trusted, 79 CPU, 80 kernel or limits,
81-83 files, 84 descriptors, 86 no room, 87 failed while restoring, 89 damaged memory; else the program's own.
";

/// The options.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The image's path.
    pub image: &'a [u8],
    /// `--files`.
    pub files: FilesPolicy,
    /// `--fd`: number and path.
    pub fds: [Option<(u32, &'a [u8])>; FDS_MAX],
    /// `--ready`, for programs that start this one: a descriptor that gets a byte when the process has taken over; or -1.
    pub ready: i32,
    /// `--cpu ignore`.
    pub any_cpu: bool,
    /// `--pid keep`.
    pub keep_pid: bool,
    /// `--trust`.
    pub trust: bool,
    /// `-v`.
    pub verbose: bool,
}

/// What a command line asks for.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "exists once, on the stack, without an allocator")]
pub enum Request<'a> {
    /// A restart.
    Restart(Options<'a>),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// A command line that is wrong: the reason and the argument.
pub type Wrong<'a> = (&'static str, &'a [u8]);

/// The options' names, which [`parse`] knows by their places.
const NAMES: &[u8] = b"--help -h --version -V -- -v --verbose --trust --files --cpu --fd --pid --ready";

/// Parses the arguments behind the program's name.
///
/// # Errors
/// The first argument that is wrong.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn parse<'a>(mut args: impl Iterator<Item = &'a [u8]>) -> Result<Request<'a>, Wrong<'a>> {
    let mut options = Options {
        image: b"",
        files: FilesPolicy::Verify,
        fds: [None; FDS_MAX],
        ready: -1,
        any_cpu: false,
        keep_pid: false,
        trust: false,
        verbose: false,
    };
    let mut only_names = false;
    let mut image = None;
    while let Some(arg) = args.next() {
        if only_names || !arg.starts_with(b"-") || arg == b"-" {
            if image.replace(arg).is_some() {
                return Err(("more than one image", arg));
            }
            continue;
        }
        // Both `--option value` and `--option=value`.
        let (name, attached) = match cut(arg, b'=') {
            Some((name, value)) if name.starts_with(b"--") => (name, Some(value)),
            _ => (arg, None),
        };
        let mut value = || attached.or_else(|| args.next()).ok_or(("a value is missing behind", arg));
        match choice(name, NAMES) {
            Some(0 | 1) => return Ok(Request::Help),
            Some(2 | 3) => return Ok(Request::Version),
            Some(4) => only_names = true,
            Some(5 | 6) => options.verbose = true,
            Some(7) => options.trust = true,
            Some(8) => {
                let value = value()?;
                options.files = FilesPolicy::from_name(value).ok_or(("not one of verify, rollback, ignore", value))?;
            }
            Some(9) => {
                let value = value()?;
                options.any_cpu = choice(value, b"verify ignore").ok_or(("not one of verify, ignore", value))? == 1;
            }
            Some(10) => {
                let value = value()?;
                let entry = cut(value, b'=').and_then(|(n, path)| Some((u32::try_from(decimal(n)?).ok()?, path)));
                let entry = entry.filter(|(_, path)| !path.is_empty()).ok_or(("not of the form N=PATH", value))?;
                let slot = options.fds.iter_mut().find(|s| s.is_none()).ok_or(("too many --fd options", value))?;
                *slot = Some(entry);
            }
            Some(11) => {
                let value = value()?;
                options.keep_pid = choice(value, b"new keep").ok_or(("not one of new, keep", value))? == 1;
            }
            Some(12) => options.ready = decimal(value()?).map_or(-1, |n| n as i32),
            _ => return Err(("unknown option", arg)),
        }
    }
    options.image = image.ok_or(("no image named", b"" as &[u8]))?;
    Ok(Request::Restart(options))
}
