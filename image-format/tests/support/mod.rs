//! An image of a small made-up process, built with the production writer; tests change a part before it is written.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod contents;
mod events;
mod frames;
mod read;
mod rows;
mod tree;

pub use contents::Contents;
pub use events::Events;
use image_format::elf::{PF_FILE_BYTES, PF_INHERITED, PF_R, PF_W, PF_X};
use image_format::note::{self, standard};
use image_format::record::credentials::Credentials;
use image_format::record::cwd::Cwd;
use image_format::record::deadline::Deadline;
use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::frame::{Component, Frame, SignalFrame};
use image_format::record::guard::Guard;
use image_format::record::header::{Features, Header, MAGIC, VERSION};
use image_format::record::itimer::Itimer;
use image_format::record::job::Job;
use image_format::record::lock::Lock;
use image_format::record::memory::{Backing, NO_BACKING, Vma, VmaFlags, VmaKind};
use image_format::record::mm::Mm;
use image_format::record::pending::Pending;
use image_format::record::pidfd::{Pidfd, PidfdOf};
use image_format::record::pipe::{NONE, Pipe};
use image_format::record::pkey::Pkey;
use image_format::record::process::Process;
use image_format::record::regular::Regular;
use image_format::record::rlimit::Rlimit;
use image_format::record::sched::{Affinity, Sched};
use image_format::record::seccomp::{Instruction, Seccomp};
use image_format::record::setting::Setting;
use image_format::record::shared_file::SharedFile;
use image_format::record::sigaction::Sigaction;
use image_format::record::sigio::Sigio;
use image_format::record::terminal::Terminal;
use image_format::record::thread::{Thread, ThreadFlags};
use image_format::record::umask::Umask;
use image_format::{Layout, Notes, PAGE, Record, StrRef, align_up, seal};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use read::{Aligned, check};
use rows::{limit, pending, setting, thread};
pub use rows::{run, vma};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::FromZeros;

pub const TEXT: u64 = 0x40_0000;
pub const HEAP: u64 = 0x60_0000;
pub const STACK: u64 = 0x7ffd_0000_0000;
pub const PID: u32 = 4242;
pub const THREAD: u32 = 4243;

/// A run of saved pages.
#[derive(Clone, Debug)]
pub struct Run {
    pub addr: u64,
    pub flags: u32,
    pub bytes: Vec<u8>,
}

/// All that goes into the image.
#[derive(Clone, Debug)]
pub struct Parts {
    pub header: Header,
    pub strings: Vec<u8>,
    pub threads: Vec<Thread>,
    pub frames: Vec<Frame>,
    /// The XSAVE area that all frames point to.
    pub xstate: Vec<u8>,
    pub vmas: Vec<Vma>,
    pub backings: Vec<Backing>,
    pub mm: Vec<Mm>,
    pub actions: Vec<Sigaction>,
    pub pending: Vec<Pending>,
    pub timers: Vec<Itimer>,
    pub cwd: Vec<Cwd>,
    pub umask: Vec<Umask>,
    pub limits: Vec<Rlimit>,
    pub sched: Vec<Sched>,
    pub affinity: Vec<Affinity>,
    pub settings: Vec<Setting>,
    pub descriptors: Vec<Descriptor>,
    pub regular: Vec<Regular>,
    pub directories: Vec<Directory>,
    pub devices: Vec<Device>,
    pub pipes: Vec<Pipe>,
    pub terminals: Vec<Terminal>,
    pub locks: Vec<Lock>,
    pub events: Events,
    pub contents: Contents,
    pub guards: Vec<Guard>,
    pub keys: Vec<Pkey>,
    /// What filters consist of.
    pub programs: Vec<Instruction>,
    /// What restricts threads.
    pub seccomp: Vec<Seccomp>,
    pub shared_files: Vec<SharedFile>,
    pub components: Vec<Component>,
    pub deadlines: Vec<Deadline>,
    pub handlers: Vec<SignalFrame>,
    pub processes: Vec<Process>,
    pub jobs: Vec<Job>,
    pub credentials: Vec<Credentials>,
    pub pidfds: (Vec<Pidfd>, Vec<PidfdOf>),
    pub driven: Vec<Sigio>,
    pub runs: Vec<Run>,
}

fn put<R: Record>(notes: &mut Notes<'_>, records: &[R]) {
    if !records.is_empty() {
        notes.table(records).unwrap();
    }
}

pub fn zeroed<T: FromZeros>() -> T {
    T::new_zeroed()
}

impl Parts {
    /// Two threads, four mappings, seven descriptors.
    pub fn new() -> Self {
        let mut parts = Self {
            header: header(),
            strings: Vec::new(),
            threads: vec![thread(PID, b"main", ThreadFlags::LEADER), thread(THREAD, b"worker", ThreadFlags::CURRENT)],
            frames: Vec::new(),
            xstate: Vec::new(),
            vmas: Vec::new(),
            backings: Vec::new(),
            mm: Vec::new(),
            actions: vec![zeroed(); 64],
            pending: vec![pending(0, 12), pending(THREAD, 40)],
            timers: vec![Itimer {
                which: 0.into(),
                reserved: 0.into(),
                value_usec: 1_500_000.into(),
                interval_usec: 2_000_000.into(),
            }],
            cwd: Vec::new(),
            umask: vec![Umask { mask: 0o022.into() }],
            limits: vec![limit(7, 1024, 4096), limit(3, 8 << 20, u64::MAX)],
            sched: vec![Sched { tid: THREAD.into(), nice: 5.into(), ..zeroed() }],
            affinity: vec![Affinity { tid: THREAD.into(), first: 64.into(), cpus: 0b101.into() }],
            settings: vec![setting(4, 0), setting(38, 1), setting(0x1_0001, 1000)],
            descriptors: Vec::new(),
            regular: Vec::new(),
            directories: Vec::new(),
            devices: Vec::new(),
            pipes: Vec::new(),
            terminals: Vec::new(),
            events: Events::default(),
            contents: Contents::default(),
            guards: Vec::new(),
            keys: Vec::new(),
            programs: Vec::new(),
            seccomp: Vec::new(),
            shared_files: Vec::new(),
            components: Vec::new(),
            deadlines: Vec::new(),
            handlers: Vec::new(),
            processes: Vec::new(),
            jobs: Vec::new(),
            credentials: Vec::new(),
            pidfds: (Vec::new(), Vec::new()),
            driven: Vec::new(),
            locks: vec![Lock {
                fd: 3.into(),
                kind: 1.into(),
                write: 1.into(),
                signal: 0.into(),
                start: 100.into(),
                len: 50.into(),
            }],
            runs: vec![
                run(TEXT, PF_R | PF_X | PF_FILE_BYTES, 1),
                run(HEAP, PF_R | PF_W, 2),
                run(HEAP + 4 * PAGE, PF_R | PF_W, 1),
                run(STACK + 2 * PAGE, PF_R | PF_W, 1),
            ],
        };
        parts.actions[9].handler = (TEXT + 0x20).into();
        parts.actions[0].handler = 1.into();
        parts.memory();
        parts.files();
        parts
    }

    pub fn string(&mut self, text: &[u8]) -> StrRef {
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(text);
        StrRef { at: at.into(), len: u32::try_from(text.len()).unwrap().into() }
    }

    fn memory(&mut self) {
        let exe = self.string(b"/usr/bin/job");
        let mut backing: Backing = zeroed();
        backing.path = exe;
        self.backings = vec![backing];
        let heap = self.string(b"[heap]");
        let stack = self.string(b"[stack]");
        let none = StrRef::default();
        let mut stack = vma(STACK, 4, 3, VmaKind::Anonymous, NO_BACKING, stack);
        stack.flags = VmaFlags::GROWS_DOWN.bits().into();
        self.vmas = vec![
            vma(TEXT, 2, 5, VmaKind::FilePrivate, 0, none),
            vma(HEAP, 8, 3, VmaKind::Anonymous, NO_BACKING, heap),
            vma(HEAP + 16 * PAGE, 1024, 0, VmaKind::Anonymous, NO_BACKING, none),
            stack,
        ];
        let mut mm: Mm = zeroed();
        (mm.start_code, mm.end_code) = (TEXT.into(), (TEXT + 100).into());
        (mm.start_brk, mm.brk) = (HEAP.into(), (HEAP + 8 * PAGE).into());
        (mm.start_stack, mm.exe) = ((STACK + 3 * PAGE).into(), exe);
        self.mm = vec![mm];
    }

    fn files(&mut self) {
        let cwd = self.string(b"/srv/job");
        self.cwd = vec![Cwd { path: cwd }];
        let tty = self.string(b"/dev/pts/7");
        let log = self.string(b"/srv/job/log");
        let null = self.string(b"/dev/null");
        let pipe = self.string(b"pipe:[12345]");
        let mut terminal: Terminal = zeroed();
        (terminal.id, terminal.flags, terminal.path) = (0.into(), 2.into(), tty);
        self.terminals = vec![terminal];
        let mut regular: Regular = zeroed();
        (regular.id, regular.flags, regular.offset, regular.path) = (3.into(), 0o2001.into(), 777.into(), log);
        regular.identity.size = 1000.into();
        self.regular = vec![regular];
        let mut directory: Directory = zeroed();
        (directory.id, directory.flags, directory.path) = (5.into(), 0o200_000.into(), cwd);
        self.directories = vec![directory];
        let mut device: Device = zeroed();
        (device.id, device.path) = (6.into(), null);
        self.devices = vec![device];
        let mut end: Pipe = zeroed();
        (end.id, end.flags, end.path) = (1.into(), 1.into(), pipe);
        (end.pipe, end.next) = (1.into(), NONE.into());
        self.pipes = vec![end];
        self.descriptors = [(0, 0, 0), (1, 1, 0), (2, 0, 0), (3, 3, 1), (4, 3, 0), (5, 5, 1), (6, 6, 0)]
            .map(|(fd, file, cloexec): (u32, u32, u32)| Descriptor {
                fd: fd.into(),
                file: file.into(),
                cloexec: cloexec.into(),
                reserved: 0.into(),
            })
            .to_vec();
    }

    /// The notes' bytes.
    pub fn notes(&self) -> Vec<u8> {
        let records =
            64 * (self.vmas.len() + self.processes.len()) + 1024 * self.threads.len() + 200 * self.pending.len();
        let files = 128 * (self.descriptors.len() + self.regular.len() + self.backings.len());
        let mut out = vec![0; 36_000 + 8 * self.programs.len() + records + files + self.strings.len()];
        let mut strings = vec![0; self.strings.len()];
        let mut notes = Notes::new(&mut out, &mut strings);
        let all = notes.string(&self.strings).unwrap();
        assert_eq!(all.at.get(), 0);
        notes.table(&[self.header]).unwrap();
        if !self.xstate.is_empty() {
            standard_note(&mut notes, note::LINUX, standard::NT_X86_XSTATE, &self.xstate);
        }
        for thread in self.threads.iter().rev() {
            let mut status = [0u8; 336];
            status[32..36].copy_from_slice(&thread.tid.get().to_le_bytes());
            status[112 + 16 * 8..][..8].copy_from_slice(&(TEXT + 0x42).to_le_bytes());
            standard_note(&mut notes, note::CORE, standard::NT_PRSTATUS, &status);
            standard_note(&mut notes, note::CORE, standard::NT_FPREGSET, &[0; 512]);
        }
        let mut info = [0u8; 136];
        info[40..43].copy_from_slice(b"job");
        info[56..66].copy_from_slice(b"job --fast");
        standard_note(&mut notes, note::CORE, standard::NT_PRPSINFO, &info);
        standard_note(&mut notes, note::CORE, standard::NT_AUXV, &[0; 16]);
        put(&mut notes, &self.threads);
        put(&mut notes, &self.frames);
        put(&mut notes, &self.vmas);
        put(&mut notes, &self.backings);
        put(&mut notes, &self.mm);
        put(&mut notes, &self.actions);
        put(&mut notes, &self.pending);
        put(&mut notes, &self.timers);
        put(&mut notes, &self.cwd);
        put(&mut notes, &self.umask);
        put(&mut notes, &self.limits);
        put(&mut notes, &self.sched);
        put(&mut notes, &self.affinity);
        put(&mut notes, &self.settings);
        put(&mut notes, &self.descriptors);
        put(&mut notes, &self.regular);
        put(&mut notes, &self.directories);
        put(&mut notes, &self.devices);
        put(&mut notes, &self.pipes);
        put(&mut notes, &self.terminals);
        put(&mut notes, &self.locks);
        self.events.put(&mut notes);
        self.contents.put(&mut notes);
        put(&mut notes, &self.guards);
        put(&mut notes, &self.keys);
        put(&mut notes, &self.programs);
        put(&mut notes, &self.seccomp);
        put(&mut notes, &self.shared_files);
        put(&mut notes, &self.components);
        put(&mut notes, &self.deadlines);
        put(&mut notes, &self.handlers);
        put(&mut notes, &self.processes);
        put(&mut notes, &self.jobs);
        put(&mut notes, &self.credentials);
        put(&mut notes, &self.pidfds.0);
        put(&mut notes, &self.pidfds.1);
        put(&mut notes, &self.driven);
        let len = notes.finish().unwrap();
        out.truncate(len);
        out
    }

    /// The whole file.
    pub fn image(&self) -> Vec<u8> {
        let notes = self.notes();
        let stored = || self.runs.iter().filter(|run| run.flags & PF_INHERITED == 0);
        let bytes = stored().map(|run| align_up(run.bytes.len() as u64, PAGE)).sum();
        let layout = Layout::new(self.runs.len() as u64, bytes, notes.len() as u64);
        let mut out = vec![0; usize::try_from(layout.headers_len()).unwrap()];
        let segments = self.runs.iter().map(|run| (run.addr, run.bytes.len() as u64, run.flags));
        layout.write_headers(&mut out, segments).unwrap();
        out.extend_from_slice(&notes);
        assert_eq!(out.len() as u64, layout.prefix_len());
        let sums: Vec<u64> = self.runs.iter().map(|run| xxh3_64(&run.bytes)).collect();
        let mut room = vec![0; usize::try_from(layout.seal_len).unwrap()];
        let sealed = seal::write(&mut room, layout.file_len(), &out, &sums).unwrap().to_vec();
        out.resize(usize::try_from(layout.segments).unwrap(), 0);
        for run in stored() {
            out.extend_from_slice(&run.bytes);
            out.resize(out.len().next_multiple_of(4096), 0);
        }
        out.extend_from_slice(&sealed);
        assert_eq!(out.len() as u64, layout.file_len());
        out
    }
}

/// The unchanged sample.
pub fn image() -> Vec<u8> {
    Parts::new().image()
}

fn standard_note(notes: &mut Notes<'_>, owner: &[u8], kind: u32, bytes: &[u8]) {
    notes.open(owner, kind).unwrap();
    notes.bytes(bytes).unwrap();
    notes.end().unwrap();
}

fn header() -> Header {
    let mut header: Header = zeroed();
    header.magic = MAGIC;
    (header.major, header.minor) = (VERSION.0.into(), VERSION.1.into());
    header.pid = PID.into();
    header.required = (Features::JMP_CONTEXT | Features::LOCKS).bits().into();
    header.uuid = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
    header.wall_sec = 1_000_000_000.into();
    header.uid = 1000.into();
    header.release[..6].copy_from_slice(b"6.18.0");
    header
}
