//! The stub's command line: few options, by hand, as there is no libc and no allocator.

use state::FilesPolicy;
use sys::text::{cut, decimal};

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
        match name {
            b"--help" | b"-h" => return Ok(Request::Help),
            b"--version" | b"-V" => return Ok(Request::Version),
            b"--" => only_names = true,
            b"-v" | b"--verbose" => options.verbose = true,
            b"--trust" => options.trust = true,
            b"--files" => {
                let value = value()?;
                options.files = FilesPolicy::from_name(value).ok_or(("not one of verify, rollback, ignore", value))?;
            }
            b"--cpu" => match value()? {
                b"verify" => options.any_cpu = false,
                b"ignore" => options.any_cpu = true,
                other => return Err(("not one of verify, ignore", other)),
            },
            b"--ready" => {
                options.ready = decimal(value()?).map_or(-1, |n| n as i32);
            }
            b"--fd" => {
                let value = value()?;
                let entry = cut(value, b'=').and_then(|(n, path)| Some((u32::try_from(decimal(n)?).ok()?, path)));
                let entry = entry.filter(|(_, path)| !path.is_empty()).ok_or(("not of the form N=PATH", value))?;
                let slot = options.fds.iter_mut().find(|s| s.is_none()).ok_or(("too many --fd options", value))?;
                *slot = Some(entry);
            }
            _ => return Err(("unknown option", arg)),
        }
    }
    options.image = image.ok_or(("no image named", b"" as &[u8]))?;
    Ok(Request::Restart(options))
}
