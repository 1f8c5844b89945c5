//! The contents of an image as one object: the schema of `ckpt show --json`.
//!
//! docs/cli.md describes each field. Fields are only ever added; what changes meaning gets a new [`SCHEMA`].

use std::time::{Duration, UNIX_EPOCH};

use image_format::record;
use image_format::record::cwd::Cwd;
use image_format::record::header::{Features, Header, Traces};
use image_format::record::itimer::Itimer;
use image_format::record::mm::Mm;
use image_format::record::pending::Pending;
use image_format::record::rlimit::Rlimit;
use image_format::record::sigaction::Sigaction;
use image_format::record::umask::Umask;
use image_format::{Fault, Image, StrRef, note};
use serde::Serialize;

use super::credentials::Credentials;
use super::files::{self, Descriptor};
use super::memory::Memory;
use super::semaphore::Semaphores;
use super::setting::Setting;
use super::thread::Thread;
use crate::image::{Checked, ImageFile};
use crate::job::Job;
use crate::{signal, text};

/// Version of the schema.
pub const SCHEMA: u32 = 1;

/// Names of the `RLIMIT_*` resources, by number (getrlimit(2)).
const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// What is in an image.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The file.
    pub image: ImageInfo,
    /// Where and when it was made.
    pub saved: Saved,
    /// What `ckpt run` was asked for, if it has made the image.
    pub job: Option<Job>,
    /// The process tree, its root first.
    pub processes: Vec<Process>,
}

/// The file.
#[derive(Debug, Serialize)]
pub struct ImageInfo {
    /// Its path, as given.
    pub path: String,
    /// Its size, not compressed.
    pub bytes: u64,
    /// How it is compressed.
    pub compression: Option<&'static str>,
    /// Size of the file.
    pub stored: u64,
    /// Format version, `major.minor`.
    pub format: String,
    /// ELF's name of the machine.
    pub machine: &'static str,
    /// Features that a reader must know.
    pub requires: Vec<String>,
    /// Its random id.
    pub uuid: String,
    /// Restarts that lie behind the process.
    pub generation: u32,
    /// Runs of saved pages.
    pub segments: usize,
}

/// Where and when it was made.
#[derive(Debug, Serialize)]
pub struct Saved {
    /// RFC 3339, UTC.
    pub at: String,
    /// The same in seconds since 1970.
    pub unix_seconds: i64,
    /// `uname -r`.
    pub kernel: String,
    /// The boot's id.
    pub boot_id: String,
    /// Time since that boot, nanoseconds.
    pub boottime_ns: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: u64,
    /// Who owned the process.
    pub uid: u32,
    /// The CPU's feature words and XSAVE layout.
    pub cpu: Cpu,
}

/// What the CPU offered.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// CPUID words in the order of docs/image-format.md.
    pub words: Vec<String>,
    /// The names of what a restart looks for.
    pub requires: Vec<String>,
    /// State components.
    pub xcr0: String,
    /// Bytes of a full XSAVE area.
    pub xsave_bytes: u32,
}

/// A process.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its id at the save.
    pub pid: u32,
    /// Its parent's, when that is saved, too.
    pub parent: Option<u32>,
    /// What the save has found of its ids in its memory.
    pub ids: Ids,
    /// Its process group, in a tree.
    pub group: Option<u32>,
    /// Its session, in a tree.
    pub session: Option<u32>,
    /// Its users, groups and capabilities, in a tree of several users.
    pub credentials: Option<Credentials>,
    /// The executable's path.
    pub executable: String,
    /// The beginning of its command line (the kernel keeps 80 bytes in cores).
    pub command: String,
    /// Working directory.
    pub directory: String,
    /// Octal.
    pub umask: String,
    /// Its threads, the first one first.
    pub threads: Vec<Thread>,
    /// Its mappings.
    pub memory: Memory,
    /// System V semaphores, of a tree with its root.
    pub semaphores: Vec<Semaphores>,
    /// Its descriptors, ascending.
    pub descriptors: Vec<Descriptor>,
    /// Limits; `null` is none.
    pub limits: Vec<Limit>,
    /// What it has set for itself.
    pub settings: Vec<Setting>,
    /// Running interval timers.
    pub timers: Vec<Timer>,
    /// Signals with a handler.
    pub caught_signals: Vec<String>,
    /// Ignored signals.
    pub ignored_signals: Vec<String>,
    /// Sent and not delivered.
    pub pending_signals: Vec<PendingSignal>,
    /// What handlers that were running had interrupted.
    pub signal_frames: Vec<SignalFrame>,
}

/// Whether a process may keep its process or thread ids in its own memory, which decides how a restart gives it ids.
#[derive(Debug, Serialize)]
pub struct Ids {
    /// `none`, `found`, or `unknown`: nobody has looked.
    pub traces: &'static str,
    /// Where the first of what may be one lies.
    pub at: Option<String>,
}

/// What a signal had interrupted: its extended state in the program's memory.
#[derive(Debug, Serialize)]
pub struct SignalFrame {
    /// Where its XSAVE area lies.
    pub address: String,
    /// The area's size.
    pub bytes: u32,
    /// Numbers of the components that it holds.
    pub components: Vec<u32>,
}

/// A resource limit.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// As in getrlimit(2), in lower case.
    pub resource: String,
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// An interval timer.
#[derive(Debug, Serialize)]
pub struct Timer {
    /// `real`, `virtual` or `prof`.
    pub kind: &'static str,
    /// Microseconds to the next expiry.
    pub remaining_us: u64,
    /// Microseconds between expiries; 0 for a single one.
    pub interval_us: u64,
}

/// A pending signal.
#[derive(Debug, Serialize)]
pub struct PendingSignal {
    /// Its name.
    pub signal: String,
    /// The thread that it is for; `null` for the process.
    pub tid: Option<u32>,
}

impl Report {
    /// Collects all from a checked image.
    pub fn new(file: &ImageFile, others: &[Checked<'_>], image: &Image<'_>) -> Result<Self, Fault> {
        let images = core::iter::once(image).chain(others.iter().map(|other| &other.image));
        let relations = image.table::<record::process::Process>()?;
        let processes = images.enumerate().map(|(place, one)| Process::new(one, place, relations.get(place)));
        let header = image.header();
        Ok(Self {
            schema: SCHEMA,
            image: ImageInfo {
                path: text::path(file.path()),
                bytes: file.len(),
                compression: file.stored().map(|_| "zstd"),
                stored: file.stored().unwrap_or(file.len()),
                format: format!("{}.{}", header.major, header.minor),
                machine: "x86_64",
                requires: features(header.required.get()),
                uuid: hex_id(header.uuid),
                generation: header.generation.get(),
                segments: image.segments().len() + image.content_segments().len(),
            },
            saved: Saved::new(header),
            job: Job::of(image)?,
            processes: processes.collect::<Result<_, _>>()?,
        })
    }
}

/// `jmp-context`, `locks`, …
pub fn features(bits: u64) -> Vec<String> {
    Features::from_bits_truncate(bits)
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
        .collect()
}

/// Sixteen bytes as a uuid is written.
fn hex_id(bytes: [u8; 16]) -> String {
    let n = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: usize| format!("{:0digits$x}", (n >> shift) & ((1 << (4 * digits)) - 1));
    [part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12)].join("-")
}

/// Bytes up to the first NUL, as text.
pub fn until_nul(bytes: &[u8]) -> String {
    text::plain(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// The string of a reference, as text.
pub fn string(image: &Image<'_>, reference: StrRef) -> Result<String, Fault> {
    Ok(text::plain(image.string(reference)?))
}

impl Saved {
    fn new(header: &Header) -> Self {
        // Year 9999 is the last that RFC 3339 can write; a clock beyond it is a hostile image's.
        let seconds = u64::try_from(header.wall_sec.get()).unwrap_or(0).min(253_402_300_799);
        Self {
            at: humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(),
            unix_seconds: header.wall_sec.get(),
            kernel: until_nul(&header.release),
            boot_id: hex_id(header.boot_id),
            boottime_ns: header.boottime_nsec.get(),
            monotonic_ns: header.monotonic_nsec.get(),
            uid: header.uid.get(),
            cpu: Cpu {
                words: header.cpu.words.iter().map(|word| format!("{:#010x}", word.get())).collect(),
                requires: cpu_needs(&header.cpu),
                xcr0: format!("{:#x}", header.cpu.xcr0.get()),
                xsave_bytes: header.cpu.xsave_size.get(),
            },
        }
    }
}

/// What a CPU must have for this, by name.
fn cpu_needs(cpu: &record::header::Cpu) -> Vec<String> {
    let names = loader::cpu::lacking(cpu, &[0; 8], 0);
    names.as_str().split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Ids {
    fn new(header: &Header) -> Self {
        let (traces, at) = match header.traces() {
            Traces::None => ("none", None),
            Traces::Found => ("found", Some(format!("{:#x}", header.trace.get()))),
            Traces::Unknown => ("unknown", None),
        };
        Self { traces, at }
    }
}

impl Process {
    fn new(image: &Image<'_>, place: usize, relation: Option<&record::process::Process>) -> Result<Self, Fault> {
        let actions = image.table::<Sigaction>()?;
        let signals = |wanted: fn(u64) -> bool| {
            let matching = actions.iter().zip(1..).filter(|(action, _)| wanted(action.handler.get()));
            matching.map(|(_, number)| signal::name(number)).collect()
        };
        Ok(Self {
            pid: image.header().pid.get(),
            parent: relation.map(|r| r.parent.get()).filter(|parent| *parent != 0),
            ids: Ids::new(image.header()),
            group: relation.map(|r| r.group.get()),
            session: relation.map(|r| r.session.get()),
            credentials: Credentials::of(image)?,
            executable: string(image, image.single::<Mm>()?.exe)?,
            command: command(image)?,
            directory: string(image, image.single::<Cwd>()?.path)?,
            umask: format!("{:04o}", image.single::<Umask>()?.mask.get()),
            threads: Thread::all(image)?,
            memory: Memory::new(image)?,
            semaphores: if place == 0 { Semaphores::all(image)? } else { Vec::new() },
            descriptors: files::descriptors(image, place)?,
            settings: Setting::all(image)?,
            limits: image.table::<Rlimit>()?.iter().map(Limit::new).collect(),
            timers: image.table::<Itimer>()?.iter().map(Timer::new).collect(),
            caught_signals: signals(|handler| handler > 1),
            ignored_signals: signals(|handler| handler == 1),
            pending_signals: image.table::<Pending>()?.iter().map(PendingSignal::new).collect(),
            signal_frames: image.table::<record::frame::SignalFrame>()?.iter().map(SignalFrame::new).collect(),
        })
    }
}

/// `pr_psargs` of `struct elf_prpsinfo`: 80 bytes, the last of it.
fn command(image: &Image<'_>) -> Result<String, Fault> {
    let info = image.note_of(note::CORE, note::standard::NT_PRPSINFO)?;
    Ok(info.get(56..136).map(until_nul).unwrap_or_default().trim_end().to_owned())
}

impl SignalFrame {
    fn new(frame: &record::frame::SignalFrame) -> Self {
        let present = frame.present.get();
        Self {
            address: format!("{:#x}", frame.at.get()),
            bytes: frame.len.get(),
            components: (0..64).filter(|number| present >> number & 1 != 0).collect(),
        }
    }
}

impl Limit {
    fn new(limit: &Rlimit) -> Self {
        let finite = |value: u64| (value != u64::MAX).then_some(value);
        let number = limit.resource.get();
        let name = usize::try_from(number).ok().and_then(|n| LIMITS.get(n));
        Self {
            resource: name.map_or_else(|| number.to_string(), |name| (*name).to_owned()),
            soft: finite(limit.soft.get()),
            hard: finite(limit.hard.get()),
        }
    }
}

impl Timer {
    fn new(timer: &Itimer) -> Self {
        let kind = match timer.which.get() {
            0 => "real",
            1 => "virtual",
            _ => "prof",
        };
        Self { kind, remaining_us: timer.value_usec.get(), interval_us: timer.interval_usec.get() }
    }
}

impl PendingSignal {
    fn new(pending: &Pending) -> Self {
        let number = pending.siginfo.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let tid = pending.tid.get();
        Self { signal: signal::name(number), tid: (tid != 0).then_some(tid) }
    }
}
