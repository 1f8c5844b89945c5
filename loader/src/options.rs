//! The stub's command line: few options, by hand, as there is no libc and no allocator.

use state::FilesPolicy;
use sys::packed;
use sys::text::{Packed, choice, cut, decimal};

/// Most `--fd` options, and most `--map-path` options.
pub const FDS_MAX: usize = 32;

/// What `--help` prints.
pub const HELP: Packed = packed!(
    "\
Usage: restart-stub [OPTIONS] IMAGE

Becomes the process saved to IMAGE. `ckpt restart --help` explains:
--files verify|rollback|ignore --cpu verify|ignore --pid new|keep
--fd N=PATH --map-path OLD=NEW --trust -v --help --version
"
);

/// What `--version` prints.
const VERSION: Packed = packed!(concat!("restart-stub ", env!("CARGO_PKG_VERSION"), "\n"));

/// The options.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The image's path.
    pub image: &'a [u8],
    /// `--files`.
    pub files: FilesPolicy,
    /// `--fd`: number and path.
    pub fds: [Option<(u32, &'a [u8])>; FDS_MAX],
    /// `--map-path`: old and new beginnings of paths.
    pub maps: [Option<(&'a [u8], &'a [u8])>; FDS_MAX],
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

/// A command line that is wrong: the reason and the argument.
pub type Wrong<'a> = (Packed, &'a [u8]);

/// The options' names, which [`parse`] knows by their places.
const NAMES: &[u8] = b"--help -h --version -V -- -v --verbose --trust --files --cpu --pid --fd --map-path --ready";

/// What is said of the 33rd `--fd`.
const MANY: Packed = packed!("one too many");

/// The values of those from `--files` to `--pid`, the default one first, as the message that lists them.
const VALUES: [&str; 3] = ["not one of: verify rollback ignore", "not one of: verify ignore", "not one of: new keep"];

/// Parses the arguments behind the program's name; returns a text when that is all that is asked for.
///
/// # Errors
/// The first argument that is wrong.
#[inline(never)] // A smaller frame has shorter addresses.
pub fn parse<'a>(
    options: &mut Options<'a>,
    mut args: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Packed>, Wrong<'a>> {
    let mut only_names = false;
    let mut image = None;
    while let Some(arg) = args.next() {
        if only_names || !arg.starts_with(b"-") || arg == b"-" {
            if image.replace(arg).is_some() {
                return Err((packed!("more than one image"), arg));
            }
            continue;
        }
        // Both `--option value` and `--option=value`.
        let (name, attached) = match cut(arg, b'=') {
            Some((name, value)) if name.starts_with(b"--") => (name, Some(value)),
            _ => (arg, None),
        };
        let place = choice(name, NAMES).unwrap_or(usize::MAX);
        match place {
            0 | 1 => return Ok(Some(HELP)),
            2 | 3 => return Ok(Some(VERSION)),
            4 => only_names = true,
            5 | 6 => options.verbose = true,
            7 => options.trust = true,
            8..=13 => {
                let value = attached.or_else(|| args.next()).ok_or((packed!("a value is missing behind"), arg))?;
                options.set(place - 8, value).map_err(|why| (why, value))?;
            }
            _ => return Err((packed!("unknown option"), arg)),
        }
    }
    options.image = image.ok_or((packed!("no image named"), b"" as &[u8]))?;
    Ok(None)
}

impl<'a> Options<'a> {
    /// What holds without any.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            image: b"",
            files: FilesPolicy::Verify,
            fds: [None; FDS_MAX],
            maps: [None; FDS_MAX],
            ready: -1,
            any_cpu: false,
            keep_pid: false,
            trust: false,
            verbose: false,
        }
    }

    /// Takes the value of an option, counted from `--files` on.
    fn set(&mut self, option: usize, value: &'a [u8]) -> Result<(), Packed> {
        if let Some(list) = VALUES.get(option) {
            // The first three words are no values.
            let chosen =
                choice(value, list.as_bytes()).and_then(|place| place.checked_sub(3)).ok_or(Packed::plain(list))?;
            match option {
                0 => self.files = FilesPolicy::from_number(chosen),
                1 => self.any_cpu = chosen == 1,
                _ => self.keep_pid = chosen == 1,
            }
        } else if option == VALUES.len() {
            let entry = cut(value, b'=').and_then(|(n, path)| Some((u32::try_from(decimal(n)?).ok()?, path)));
            let entry = entry.filter(|(_, path)| !path.is_empty()).ok_or(packed!("not of the form N=PATH"))?;
            *self.fds.iter_mut().find(|slot| slot.is_none()).ok_or(MANY)? = Some(entry);
        } else if option == VALUES.len() + 1 {
            let entry = cut(value, b'=').ok_or(packed!("not of the form OLD=NEW"))?;
            *self.maps.iter_mut().find(|slot| slot.is_none()).ok_or(MANY)? = Some(entry);
        } else {
            self.ready = decimal(value).map_or(-1, |n| n as i32);
        }
        Ok(())
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self::new()
    }
}
