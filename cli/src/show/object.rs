//! What the kernel keeps for a descriptor that is no file: counters, timers, sets, contents of pipes.

use std::collections::HashMap;

use image_format::record::epoll::{Epoll, Watch};
use image_format::record::eventfd::Eventfd;
use image_format::record::inotify::{Inotify, InotifyWatch};
use image_format::record::io_uring::{IoUring, word};
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::pty::{Pty, PtyStep, WRITE};
use image_format::record::signalfd::Signalfd;
use image_format::record::socket::{Socket, SocketStep, Step};
use image_format::record::timerfd::Timerfd;
use image_format::{Fault, Image};
use serde::Serialize;
use zerocopy::little_endian::U64;

use super::report::string;
use crate::signal;
use crate::text::{count, size};

/// What an open file holds besides its flags; the fields are those of one kind.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum State {
    /// An eventfd.
    Eventfd {
        /// What the counter holds.
        count: u64,
        /// A read takes one.
        semaphore: bool,
    },
    /// A timerfd.
    Timerfd {
        /// `realtime`, `monotonic`, ….
        clock: String,
        /// Expiries that were not read.
        ticks: u64,
        /// `value_ns` is a moment of the clock, not the time to it.
        absolute: bool,
        /// The next expiry; 0: not running.
        value_ns: u64,
        /// Between expiries; 0 for a single one.
        interval_ns: u64,
    },
    /// A signalfd.
    Signalfd {
        /// Names.
        signals: Vec<String>,
    },
    /// An epoll set.
    Epoll {
        /// What it watches.
        watches: Vec<Watched>,
    },
    /// An inotify instance.
    Inotify {
        /// What it watches.
        watched: Vec<Noticed>,
    },
    /// An io_uring instance.
    IoUring {
        /// Entries of its submissions.
        submissions: u32,
        /// Entries of its completions.
        completions: u32,
        /// `IORING_SETUP_*` bits.
        setup: String,
        /// Requests that it has taken so far, modulo 2^32.
        requests: u32,
    },
    /// A socket.
    Socket {
        /// `unix`, `inet`, `inet6`, `netlink`.
        family: &'static str,
        /// `stream`, `dgram`, `seqpacket`, `raw`.
        r#type: &'static str,
        /// It listens.
        listens: bool,
        /// Options that differ from those of a new one.
        options: usize,
        /// Bytes that it sends again.
        sends: u64,
    },
    /// A memfd or a deleted file.
    Content {
        /// Which of `memory.contents`.
        content: u32,
    },
    /// An end of a pipe inside the process.
    Pipe {
        /// Id of the open file at the other end.
        peer: Option<u32>,
        /// Bytes that wait in it.
        holds: u64,
        /// Packets that wait in it; 0 for a stream.
        packets: usize,
        /// Size of its buffer.
        buffer: u32,
    },
    /// The master of a pseudo-terminal.
    Pty {
        /// Number of the terminal: `/dev/pts/N`.
        terminal: u32,
        /// Size in characters.
        columns: u16,
        /// As above.
        rows: u16,
        /// Bytes that were typed and nobody has read.
        typed: u64,
        /// Bytes that are to be shown.
        shown: u64,
    },
}

/// What an inotify instance watches.
#[derive(Clone, Debug, Serialize)]
pub struct Noticed {
    /// The watch's number.
    pub wd: u32,
    /// What it is on.
    pub path: String,
    /// `IN_*` bits.
    pub mask: String,
}

/// What an epoll set watches.
#[derive(Clone, Debug, Serialize)]
pub struct Watched {
    /// The number under which it was added.
    pub fd: u32,
    /// Id of the open file.
    pub file: u32,
    /// `EPOLL*` bits.
    pub events: String,
    /// The program's word.
    pub data: String,
}

/// Those of the event descriptors: kind, flags and state by id.
pub fn events(image: &Image<'_>) -> Result<HashMap<u32, (&'static str, u32, State)>, Fault> {
    let mut out = HashMap::new();
    for one in image.table::<Eventfd>()? {
        let state = State::Eventfd { count: one.count.get(), semaphore: one.semaphore.get() != 0 };
        out.insert(one.id.get(), ("eventfd", one.flags.get(), state));
    }
    for one in image.table::<Timerfd>()? {
        let state = State::Timerfd {
            clock: clock(one.clock.get()),
            ticks: one.ticks.get(),
            absolute: one.settime.get() & 1 != 0,
            value_ns: nanoseconds(one.value),
            interval_ns: nanoseconds(one.interval),
        };
        out.insert(one.id.get(), ("timerfd", one.flags.get(), state));
    }
    for one in image.table::<Signalfd>()? {
        let mask = one.mask.get();
        let signals = (1..=64).filter(|n| mask & (1 << (n - 1)) != 0).map(signal::name).collect();
        out.insert(one.id.get(), ("signalfd", one.flags.get(), State::Signalfd { signals }));
    }
    let mut watched: HashMap<u32, Vec<Noticed>> = HashMap::new();
    for one in image.table::<InotifyWatch>()? {
        let (wd, mask) = (one.wd.get(), format!("{:#x}", one.mask.get()));
        watched.entry(one.inotify.get()).or_default().push(Noticed { wd, path: string(image, one.path)?, mask });
    }
    for one in image.table::<Inotify>()? {
        let id = one.id.get();
        let watched = watched.remove(&id).unwrap_or_default();
        out.insert(id, ("inotify", one.flags.get(), State::Inotify { watched }));
    }
    for one in image.table::<IoUring>()? {
        let rings = image.bytes(one.rings).unwrap_or_default();
        let state = State::IoUring {
            submissions: one.params.sq_entries.get(),
            completions: one.params.cq_entries.get(),
            setup: format!("{:#x}", one.params.flags.get()),
            requests: word(rings, one.params.sq_head),
        };
        out.insert(one.id.get(), ("io_uring", one.flags.get(), state));
    }
    let mut watches: HashMap<u32, Vec<Watched>> = HashMap::new();
    for one in image.table::<Watch>()? {
        watches.entry(one.epoll.get()).or_default().push(Watched {
            fd: one.fd.get(),
            file: one.file.get(),
            events: format!("{:#x}", one.events.get()),
            data: format!("{:#x}", one.data.get()),
        });
    }
    for one in image.table::<Epoll>()? {
        let id = one.id.get();
        let watches = watches.remove(&id).unwrap_or_default();
        out.insert(id, ("epoll", one.flags.get(), State::Epoll { watches }));
    }
    Ok(out)
}

/// Those of sockets, by id.
pub fn sockets(image: &Image<'_>) -> Result<HashMap<u32, State>, Fault> {
    let mut out: HashMap<u32, State> = HashMap::new();
    for one in image.table::<Socket>()? {
        let family = match one.family.get() {
            1 => "unix",
            2 => "inet",
            10 => "inet6",
            16 => "netlink",
            _ => "other",
        };
        let r#type = match one.kind.get() {
            1 => "stream",
            2 => "dgram",
            3 => "raw",
            5 => "seqpacket",
            _ => "other",
        };
        out.insert(one.id.get(), State::Socket { family, r#type, listens: false, options: 0, sends: 0 });
    }
    for step in image.table::<SocketStep>()? {
        let Some(State::Socket { listens, options, sends, .. }) = out.get_mut(&step.socket.get()) else { continue };
        match Step::from_number(step.step.get()) {
            Some(Step::Listen) => *listens = true,
            Some(Step::Option) => *options += 1,
            Some(Step::Send) => *sends += u64::from(step.bytes.len.get()),
            _ => {}
        }
    }
    Ok(out)
}

/// Those of the ends of pipes inside the process, by id.
pub fn pipes(image: &Image<'_>) -> Result<HashMap<u32, State>, Fault> {
    /// What is known of a pipe: its first reader and first writer, bytes, packets, buffer.
    #[derive(Default)]
    struct Inside {
        ends: [Option<u32>; 2],
        holds: u64,
        packets: usize,
        buffer: u32,
    }
    let mut inside: HashMap<u32, Inside> = HashMap::new();
    for one in image.table::<PipeData>()? {
        let pipe = inside.entry(one.pipe.get()).or_default();
        pipe.holds += u64::from(one.bytes.len.get());
        pipe.packets += usize::from(one.packet.get() != 0);
        pipe.buffer = one.size.get();
    }
    for end in image.table::<Pipe>()? {
        let mode = (end.flags.get() & 3) as usize;
        if let Some(first) = inside.get_mut(&end.pipe.get()).and_then(|pipe| pipe.ends.get_mut(mode)) {
            first.get_or_insert(end.id.get());
        }
    }
    let of_end = |end: &Pipe| {
        let Inside { ends: [reader, writer], holds, packets, buffer } = *inside.get(&end.pipe.get())?;
        let peer = match end.flags.get() & 3 {
            0 => writer,
            1 => reader,
            _ => Some(end.id.get()),
        };
        Some((end.id.get(), State::Pipe { peer, holds, packets, buffer }))
    };
    Ok(image.table::<Pipe>()?.iter().filter_map(of_end).collect())
}

/// Those of masters of pseudo-terminals, by id.
pub fn terminals(image: &Image<'_>) -> Result<HashMap<u32, State>, Fault> {
    const SIZE: u32 = 0x5414;
    let mut out: HashMap<u32, State> = HashMap::new();
    for one in image.table::<Pty>()?.iter().filter(|one| one.id == one.master) {
        let state = State::Pty { terminal: one.number.get(), columns: 0, rows: 0, typed: 0, shown: 0 };
        out.insert(one.id.get(), state);
    }
    for step in image.table::<PtyStep>()? {
        let Some(State::Pty { columns, rows, typed, shown, .. }) = out.get_mut(&step.master.get()) else { continue };
        let bytes = image.bytes(step.bytes).unwrap_or_default();
        match (step.request.get(), step.slave.get(), bytes) {
            (WRITE, 0, _) => *typed += u64::from(step.echo.get()),
            (WRITE, ..) => *shown += bytes.len() as u64,
            (SIZE, _, [r0, r1, c0, c1, ..]) => {
                (*rows, *columns) = (u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*c0, *c1]));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn nanoseconds([sec, nsec]: [U64; 2]) -> u64 {
    sec.get().saturating_mul(1_000_000_000).saturating_add(nsec.get())
}

fn clock(number: u32) -> String {
    match number {
        0 => "realtime".to_owned(),
        1 => "monotonic".to_owned(),
        7 => "boottime".to_owned(),
        8 => "realtime-alarm".to_owned(),
        9 => "boottime-alarm".to_owned(),
        _ => number.to_string(),
    }
}

impl State {
    /// In few words.
    pub fn words(&self) -> Vec<String> {
        let time = |ns: u64| humantime::format_duration(std::time::Duration::from_nanos(ns)).to_string();
        match self {
            Self::Eventfd { count, semaphore } => {
                vec![format!("holds {count}{}", if *semaphore { " (semaphore)" } else { "" })]
            }
            Self::Timerfd { clock, ticks, absolute, value_ns, interval_ns } => {
                let mut words = vec![clock.clone()];
                match (value_ns, absolute) {
                    (0, _) => words.push("stopped".to_owned()),
                    (_, true) => words.push("set to a moment".to_owned()),
                    (ns, false) => words.push(format!("in {}", time(*ns))),
                }
                words.extend((*interval_ns != 0).then(|| format!("every {}", time(*interval_ns))));
                words.extend((*ticks != 0).then(|| format!("expired {ticks} times")));
                words
            }
            Self::Signalfd { signals } => signals.iter().map(|name| format!("SIG{name}")).collect(),
            Self::Epoll { watches } => {
                let numbers: Vec<String> = watches.iter().map(|watch| watch.fd.to_string()).collect();
                let what = if numbers.is_empty() { "nothing".to_owned() } else { numbers.join(" ") };
                vec![format!("watches {what}")]
            }
            Self::Inotify { watched } => watched.iter().map(|one| format!("{}: {}", one.wd, one.path)).collect(),
            Self::IoUring { submissions, completions, requests, .. } => {
                vec![format!("{submissions} and {completions} entries"), count(*requests as usize, "request")]
            }
            Self::Socket { listens, sends, .. } => {
                let mut words = Vec::new();
                words.extend(listens.then(|| "listens".to_owned()));
                words.extend((*sends != 0).then(|| format!("sends {} again", size(*sends))));
                words
            }
            Self::Content { content } => vec![format!("contents {content}")],
            Self::Pty { terminal, columns, rows, typed, shown } => {
                let mut words = vec![format!("terminal {terminal}, {columns} x {rows}")];
                words.extend((*typed != 0).then(|| format!("holds {} typed", size(*typed))));
                words.extend((*shown != 0).then(|| format!("{} to be shown", size(*shown))));
                words
            }
            Self::Pipe { peer, holds, packets, .. } => {
                let peer = peer.map_or_else(|| "other end closed".to_owned(), |peer| format!("other end {peer}"));
                let mut words = vec![peer];
                words.extend((*holds != 0).then(|| format!("holds {}", size(*holds))));
                words.extend((*packets != 0).then(|| count(*packets, "packet")));
                words
            }
        }
    }
}
