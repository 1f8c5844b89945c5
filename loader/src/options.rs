//! The stub's command line: few options, by hand, as there is no libc and no allocator.

use state::FilesPolicy;
use sys::text::{choice, cut, decimal};

use crate::identity::Wish;
use crate::supervise::Place;

/// Most `--fd` options, and most `--map-path` options.
pub const FDS_MAX: usize = 32;

/// What `--help` prints.
pub const HELP: &str = "\
Usage: restart-stub [OPTIONS] IMAGE, see restart-stub(1)
--files --cpu --fd --map-path --pid --namespace --clock --pidfile --retry
--trust --as-root -v --help --version
";

/// What `--version` prints.
const VERSION: &str = concat!("restart-stub ", env!("CARGO_PKG_VERSION"), "\n");

/// Whose clocks the program gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The saved ones where this machine's stand lower, else this machine's.
    #[default]
    Auto,
    /// The saved ones, which go on.
    Keep,
    /// This machine's.
    New,
}

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
    /// `--cpu ignore`.
    pub any_cpu: bool,
    /// `--pid` and `--namespace`.
    pub wish: Wish,
    /// `--clock`.
    pub clock: Clock,
    /// `--pidfile`; empty: none.
    pub pidfile: &'a [u8],
    /// `--retry`: for so many seconds at most a port or a lock that another process has is waited for.
    pub retry: i32,
    /// `--trust`.
    pub trust: bool,
    /// `--as-root`.
    pub as_root: bool,
    /// `-v`.
    pub verbose: bool,
    /// `--ready`, for programs that start this one and supervise the program themselves: the descriptor of a pipe that gets the program's pid,
    /// and a byte when it has taken over; or -1. The program is a child of that other program.
    pub ready: i32,
    /// `--place`, with `--ready`: the program's group and session.
    pub place: Place,
    /// `--lent`: the capability to choose ids is the caller's, and not for the program.
    pub lent: bool,
}

/// A command line that is wrong: the reason and the argument.
pub type Wrong<'a> = (&'static str, &'a [u8]);

/// What is said of the 33rd `--fd`.
const MANY: &str = "one too many";

/// Options without a value, in pairs of one meaning, known by their places.
const PLAIN: &[u8] = b"help -h version -V -v verbose trust trust as-root as-root lent lent namespace namespace";

/// Options with a value, known by their places: first those of [`CHOICES`].
const VALUED: &[u8] = b"files cpu pid clock place fd map-path pidfile ready retry";

/// The values of an option, the default one first, as the message that lists them: its first three words are no values.
const CHOICES: [&str; 5] = [
    "not one of: verify rollback ignore",
    "not one of: verify ignore",
    "not one of: auto keep new",
    "not one of: auto keep new",
    "not one of: group with session",
];

/// Parses the arguments behind the program's name; returns a text when that is all that is asked for. An image that the options name already
/// is the only one.
///
/// `--ckpt-files` is `--files`: so it is written where the image is behind the stub, and the command is the saved program.
///
/// # Errors
/// The first argument that is wrong.
pub fn parse<'a>(
    options: &mut Options<'a>,
    mut args: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<&'static str>, Wrong<'a>> {
    let (mut only_names, mut namespace) = (false, false);
    while let Some(arg) = args.next() {
        if only_names || !arg.starts_with(b"-") || arg == b"-" {
            if !options.image.is_empty() {
                return Err(("more than one image", arg));
            }
            options.image = arg;
            continue;
        }
        if arg == b"--" {
            only_names = true;
            continue;
        }
        // Both `--option value` and `--option=value`.
        let (name, attached) = match arg.strip_prefix(b"--ckpt-").or_else(|| arg.strip_prefix(b"--")) {
            Some(long) => cut(long, b'=').map_or((long, None), |(name, value)| (name, Some(value))),
            None => (arg, None),
        };
        match choice(name, PLAIN).map(|place| place / 2) {
            Some(0) => return Ok(Some(HELP)),
            Some(1) => return Ok(Some(VERSION)),
            Some(2) => options.verbose = true,
            Some(3) => options.trust = true,
            Some(4) => options.as_root = true,
            Some(5) => options.lent = true,
            Some(_) => namespace = true,
            None => {
                let option = choice(name, VALUED).ok_or(("unknown option", arg))?;
                let value = attached.or_else(|| args.next()).ok_or(("a value is missing behind", arg))?;
                options.set(option, value).map_err(|why| (why, value))?;
            }
        }
    }
    if namespace && options.wish == Wish::New {
        return Err(("keeps the ids: it excludes --pid new", b"--namespace"));
    }
    if namespace && options.clock == Clock::New {
        return Err(("lets the clocks go on: it excludes --clock new", b"--namespace"));
    }
    if namespace {
        options.wish = Wish::Namespace;
    }
    if options.image.is_empty() {
        return Err(("no image named", b""));
    }
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
            any_cpu: false,
            wish: Wish::Auto,
            clock: Clock::Auto,
            pidfile: b"",
            retry: 0,
            trust: false,
            as_root: false,
            verbose: false,
            ready: -1,
            place: Place::OwnGroup,
            lent: false,
        }
    }

    /// Takes the value of an option of [`VALUED`].
    #[inline(never)] // A smaller frame has shorter addresses.
    fn set(&mut self, option: usize, value: &'a [u8]) -> Result<(), &'static str> {
        if let Some(list) = CHOICES.get(option) {
            let chosen = choice(value, list.as_bytes()).and_then(|place| place.checked_sub(3)).ok_or(*list)?;
            match option {
                0 => self.files = FilesPolicy::from_number(chosen),
                1 => self.any_cpu = chosen == 1,
                2 => self.wish = one_of([Wish::Auto, Wish::Keep, Wish::New], chosen),
                3 => self.clock = one_of([Clock::Auto, Clock::Keep, Clock::New], chosen),
                _ => self.place = one_of([Place::OwnGroup, Place::WithUs, Place::OwnSession], chosen),
            }
            return Ok(());
        }
        match option - CHOICES.len() {
            0 => {
                let entry = cut(value, b'=').and_then(|(n, path)| Some((u32::try_from(decimal(n)?).ok()?, path)));
                let entry = entry.filter(|(_, path)| !path.is_empty()).ok_or("not of the form N=PATH")?;
                *self.fds.iter_mut().find(|slot| slot.is_none()).ok_or(MANY)? = Some(entry);
            }
            1 => {
                let entry = cut(value, b'=').ok_or("not of the form OLD=NEW")?;
                *self.maps.iter_mut().find(|slot| slot.is_none()).ok_or(MANY)? = Some(entry);
            }
            2 if value.is_empty() => return Err("no name of a file"),
            2 => self.pidfile = value,
            which => {
                let number = decimal(value.strip_suffix(b"s").unwrap_or(value));
                let number = number.and_then(|number| i32::try_from(number).ok()).ok_or("not a number")?;
                *if which == 3 { &mut self.ready } else { &mut self.retry } = number;
            }
        }
        Ok(())
    }
}

/// The value at a place of a list, or the first one.
fn one_of<T: Copy>(list: [T; 3], place: usize) -> T {
    let [first, ..] = list;
    list.get(place).copied().unwrap_or(first)
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn parsed<'a>(line: &'a str) -> Result<Options<'a>, Wrong<'a>> {
        let mut options = Options::new();
        parse(&mut options, line.split(' ').map(str::as_bytes)).map(|_| options)
    }

    #[test]
    fn each_option_is_taken() -> Result<(), Wrong<'static>> {
        let line = "--files rollback --cpu=ignore --pid keep --clock keep --fd 3=/a --fd=4=/b=c --map-path /x=/y --pidfile p --ready 9 --retry 60s \
                    --place session --trust --as-root --lent -v -- -image";
        let o = parsed(line)?;
        assert_eq!((o.files, o.any_cpu, o.wish, o.clock), (FilesPolicy::Rollback, true, Wish::Keep, Clock::Keep));
        assert_eq!(o.fds.iter().flatten().collect::<Vec<_>>(), [&(3, &b"/a"[..]), &(4, b"/b=c")]);
        assert_eq!(o.maps.iter().flatten().collect::<Vec<_>>(), [&(&b"/x"[..], &b"/y"[..])]);
        assert_eq!((o.pidfile, o.ready, o.place, o.image), (&b"p"[..], 9, Place::OwnSession, &b"-image"[..]));
        assert!(o.trust && o.as_root && o.lent && o.verbose && o.retry == 60);
        assert_eq!(parsed("--place with i")?.place, Place::WithUs);
        assert_eq!(parsed("--namespace --pid keep i")?.wish, Wish::Namespace);
        assert_eq!(parsed("i")?.wish, Wish::Auto);
        let joined = parsed("--ckpt-files=ignore --ckpt-pid new --ckpt-verbose -- i")?;
        assert_eq!((joined.files, joined.wish, joined.verbose), (FilesPolicy::Ignore, Wish::New, true));
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, why) in [
            ("--pid old i", "not one of: auto keep new"),
            ("--pid not i", "not one of: auto keep new"),
            ("--fd x=/a i", "not of the form N=PATH"),
            ("--fd 3= i", "not of the form N=PATH"),
            ("--map-path /a i", "not of the form OLD=NEW"),
            ("--retry 1m i", "not a number"),
            ("--ready -1 i", "not a number"),
            ("--nope i", "unknown option"),
            ("-files i", "unknown option"),
            ("--=3 i", "unknown option"),
            ("-v=3 i", "unknown option"),
            ("i --files", "a value is missing behind"),
            ("i j", "more than one image"),
            ("-v", "no image named"),
            ("--pid new --namespace i", "keeps the ids: it excludes --pid new"),
            ("--namespace --clock new i", "lets the clocks go on: it excludes --clock new"),
        ] {
            assert_eq!(parsed(line).map(|_| ()).map_err(|(why, _)| why), Err(why), "{line}");
        }
    }
}
