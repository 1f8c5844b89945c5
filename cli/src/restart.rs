//! Restarts: in place, as a child that this command stands in for, or as a child that it leaves behind.
//!
//! Must never say that a program runs before its stub has said so.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use image_format::record::descriptor::Descriptor;
use image_format::record::header::{Features, Header};
use image_format::record::memory::Backing;
use image_format::record::process::{FD_MASK, Process};
use image_format::record::sysv::Sysv;
use image_format::record::terminal::Terminal as SavedTerminal;
use image_format::record::thread::Thread;
use rustix::process::{Pid, Signal, getpid, kill_process};
use sys::child::Change;

use crate::command;
use crate::failure::Failure;
use crate::image::ImageFile;
use crate::limits;
use crate::pidfile::PidFile;
use crate::spool;
use crate::stub::{Files, Options, Stub};
use crate::supervise::birth::{Child, News, Place, Setup, Sign, number, pipe_for_stub};
use crate::supervise::clocks::{Clock, Clocks};
use crate::supervise::inbox::Inbox;
use crate::supervise::namespace::{self, Namespace};
use crate::supervise::proxy::{OnceRunning, Proxy};
use crate::supervise::terminal::Terminal;
use crate::sysv;

/// Whose ids the program gets, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// New ones; for a tree and for Ruby, which need their ids, the saved ones: kept where they may be had, else in a namespace.
    Any,
    /// New ones.
    New,
    /// The saved ones, where this command lives.
    Keep,
    /// The saved ones, in namespaces of its own.
    Namespace,
}

/// Whose ids and clocks the program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Ids.
    pub identity: Identity,
    /// Clocks.
    pub clock: Clock,
}

/// Where the image comes from.
#[derive(Debug)]
pub struct Source {
    /// As it was given.
    path: PathBuf,
    /// A stream's or a compressed file's contents.
    spooled: Option<Spooled>,
}

#[derive(Debug)]
struct Spooled {
    _file: OwnedFd,
    path: PathBuf,
}

/// What a restart under supervision must know of an image.
#[derive(Clone, Copy, Debug)]
struct Facts {
    pid: i32,
    clocks: Clocks,
    /// Clocks that are to go on without other namespaces.
    going_on: bool,
    /// The first descriptor above all of the program's.
    above: i32,
    /// Whether it is a tree's.
    tree: bool,
    /// Whether it is one of those that the smaller stub has no room for: System V memory and semaphores, seccomp filters, pipes
    /// opened again.
    larger: bool,
    /// Whether it has files with a name in it.
    carries: bool,
    /// Whether it is a program that ends when it finds another id than it knows: Ruby takes itself for its own child then.
    knows_its_id: bool,
}

impl Source {
    /// A file as it is; a stream or a compressed file is read to its end and checked.
    pub fn open(path: &Path, trust: bool) -> Result<Self, Failure> {
        let memory = if spool::is_stream(path) {
            spool::spool(path, trust)?
        } else if let Some(unpacked) = spool::unpacked_file(path, trust)? {
            unpacked
        } else {
            return Ok(Self { path: path.to_owned(), spooled: None });
        };
        let source = Self::kept(&spool::name(path), memory)?;
        if path == Path::new("-") && input_is_terminal(&source.image()?.0)? {
            spool::terminal_as_input();
        }
        Ok(source)
    }

    /// What was read into memory, and is called `name`, when every checksum is right.
    pub fn kept(name: &Path, memory: File) -> Result<Self, Failure> {
        let image = ImageFile::of(name, memory)?;
        // The stub does not look at memory that it takes from the program's own files; but who knows where a stream went wrong.
        command::verify::all(&image)?;
        let (file, path) = spool::hand_on(image.file(), Facts::of(&image)?.above)?;
        Ok(Self { path: name.to_owned(), spooled: Some(Spooled { _file: file, path }) })
    }

    /// The image, and the process's id.
    pub fn image(&self) -> Result<(ImageFile, i32), Failure> {
        let image = ImageFile::open(self.path())?;
        let pid = Facts::of(&image)?.pid;
        Ok((image, pid))
    }

    /// The images of all processes, the root's last.
    fn images(&self) -> Result<Vec<ImageFile>, Failure> {
        let root = ImageFile::open(self.path())?;
        let mut all = root.others()?;
        all.push(root);
        Ok(all)
    }

    /// Names what the stub would say shortly, or too late: a broken rule of the image, a CPU that lacks something, a limit.
    fn look(&self, options: &Options) -> Result<(), Failure> {
        let images = self.images()?;
        for file in &images {
            let checked = file.checked()?;
            match limits::cpu(&checked.image).map_err(|fault| file.fault(fault))? {
                Some(what) if !options.any_cpu() => return Err(Failure::new(ExitCode::Cpu, what)),
                _ => {}
            }
            for path in limits::taken_terminals(&checked.image).map_err(|fault| file.fault(fault))? {
                crate::text::note(format_args!("{path}: is taken: the program's pseudo-terminal gets another number"));
            }
            let limits = limits::judge(&checked.image).map_err(|fault| file.fault(fault))?;
            if let Some(what) = limits.into_iter().next() {
                return Err(Failure::new(ExitCode::Kernel, what));
            }
        }
        let Some(root) = images.last() else { return Ok(()) };
        sysv::make_again(&root.checked()?.image, root.file()).map_err(|fault| root.fault(fault))
    }

    /// Whose ids and clocks it gets, where that depends on the image; and what the image says.
    fn settle(&self, Manner { identity, clock }: Manner) -> Result<(Identity, Facts), Failure> {
        let mut facts = Facts::of(&ImageFile::open(self.path())?)?;
        let settled = match identity {
            Identity::New if facts.tree => return Err(Failure::usage("--pid new: a tree of processes needs its ids")),
            Identity::Any if !facts.tree && !facts.knows_its_id => Identity::New,
            Identity::Any if self.ids_are_free()? => Identity::Keep,
            Identity::Any => Identity::Namespace,
            other => other,
        };
        facts.going_on = settled != Identity::Namespace && clock.goes_on(facts.clocks)?;
        Ok((settled, facts))
    }

    /// Whether this user may choose ids, and those of the tree are nobody's.
    fn ids_are_free(&self) -> Result<bool, Failure> {
        let own = getpid().as_raw_nonzero().get();
        if sys::thread::may_choose_ids(own.cast_unsigned()) != Err(sys::Errno::EEXIST) {
            return Ok(false);
        }
        for file in self.images()? {
            let checked = file.checked()?;
            let threads = checked.image.table::<Thread>().map_err(|fault| file.fault(fault))?;
            let processes = checked.image.table::<Process>().map_err(|fault| file.fault(fault))?;
            let mut ids = threads.iter().map(|t| t.tid.get()).chain(processes.iter().map(|p| p.pid.get()));
            let free = |id: u32| {
                let id = id.cast_signed();
                [id, -id].iter().all(|id| sys::process::kill(*id, 0) == Err(sys::Errno::ESRCH))
            };
            if !ids.all(free) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn path(&self) -> &Path {
        self.spooled.as_ref().map_or(&self.path, |spooled| &spooled.path)
    }
}

impl Facts {
    /// Whether it takes the larger stub: it alone puts carried files back in the place of those that were written since.
    fn is_for_larger(&self, options: &Options) -> bool {
        self.tree || self.larger || self.carries && matches!(options.files, Some(Files::Rollback))
    }

    fn of(file: &ImageFile) -> Result<Self, Failure> {
        let checked = file.checked()?;
        let header = checked.image.single::<Header>().map_err(|fault| file.fault(fault))?;
        let table = checked.image.table::<Descriptor>().map_err(|fault| file.fault(fault))?;
        let segments = checked.image.table::<Sysv>().map_err(|fault| file.fault(fault))?;
        let mapped = checked.image.table::<Backing>().map_err(|fault| file.fault(fault))?;
        let top = table.iter().map(|descriptor| descriptor.fd.get() & FD_MASK).max().unwrap_or(0).max(63);
        Ok(Self {
            pid: i32::try_from(header.pid.get()).unwrap_or(i32::MAX),
            clocks: Clocks { monotonic: header.monotonic_nsec.get(), boottime: header.boottime_nsec.get() },
            going_on: false,
            above: i32::try_from(top).unwrap_or(i32::MAX - 1).saturating_add(1),
            tree: header.required.get() & Features::TREE.bits() != 0,
            larger: !segments.is_empty()
                || header.required.get()
                    & Features::SECCOMP.union(Features::SEMAPHORES).union(Features::PIPES_AGAIN).bits()
                    != 0,
            carries: header.required.get() & Features::CARRIED_FILES.bits() != 0,
            knows_its_id: mapped.iter().any(|file| checked.image.string(file.path).is_ok_and(is_ruby)),
        })
    }
}

/// Whether a mapped file is Ruby's executable or library (`ruby3.1`, `libruby-3.1.so.3.1`).
fn is_ruby(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(b"ruby") || name.starts_with(b"libruby")
}

/// Whether the program's descriptor 0 is a terminal.
fn input_is_terminal(file: &ImageFile) -> Result<bool, Failure> {
    let checked = file.checked()?;
    let table = checked.image.table::<Descriptor>().map_err(|fault| file.fault(fault))?;
    let terminals = checked.image.table::<SavedTerminal>().map_err(|fault| file.fault(fault))?;
    let input = table.iter().find(|descriptor| descriptor.fd.get() == 0);
    Ok(input.is_some_and(|input| terminals.iter().any(|terminal| terminal.id == input.file)))
}

/// The program in this command's place, or as its child until it ends.
pub fn attached(source: &Source, options: &Options, manner: Manner, pidfile: Option<PidFile>) -> Failure {
    try_attached(source, options, manner, pidfile).unwrap_or_else(|failure| failure)
}

fn try_attached(
    source: &Source,
    options: &Options,
    manner: Manner,
    mut pidfile: Option<PidFile>,
) -> Result<Failure, Failure> {
    let (identity, facts) = source.settle(manner)?;
    // The id may be this process's own by chance, or by the design of whoever has started it.
    let is_ours = identity == Identity::Keep && facts.pid == getpid().as_raw_nonzero().get();
    let in_place = is_ours || (identity == Identity::New && !facts.going_on);
    if in_place {
        if facts.going_on {
            const WHY: &str = "clocks: cannot go on, as the program gets this very process's id";
            if manner.clock == Clock::Keep {
                return Err(Failure::new(ExitCode::Kernel, WHY));
            }
            crate::text::note(WHY);
        }
        // Whoever saves this process by its pid means the program, and waits for it.
        sys::thread::set_name(&state::process::RESTARTING);
        if let Some(pidfile) = pidfile {
            pidfile.write(getpid())?;
        }
        let stub = Stub::new(source.path(), options, &keep(identity), facts.is_for_larger(options))?;
        source.look(options)?;
        return Ok(stub.exec());
    }
    let inbox = Inbox::open()?;
    let terminal = Terminal::open();
    let place = Place::beside_us(terminal.as_ref());
    let born = Born::new(source, options, (identity, &facts), &inbox, place, terminal.as_ref())?;
    let pid = born.child.pid;
    let proxy = Proxy { inbox: &inbox, child: born.child, terminal: terminal.as_ref() };
    let failure = proxy.run(&mut OnceRunning(|| pidfile.take().map_or(Ok(()), |pidfile| pidfile.write(pid))));
    if let Some(init) = born.namespace.and_then(|namespace| namespace.init()) {
        // It ends by itself; nobody is to find it a moment later.
        let _ = kill_process(init, Signal::KILL);
        let _ = sys::child::wait(init.as_raw_nonzero().get(), true);
    }
    Ok(failure)
}

/// The program as a child without a terminal, left behind once it runs.
pub fn detached(source: &Source, options: &Options, manner: Manner, pidfile: Option<PidFile>) -> Result<Pid, Failure> {
    let (identity, facts) = source.settle(manner)?;
    let inbox = Inbox::open()?;
    let mut born = Born::new(source, options, (identity, &facts), &inbox, Place::OwnSession, None)?;
    match born.child.news()? {
        News::Running => match pidfile.map(|pidfile| pidfile.write(born.child.pid)) {
            Some(Err(failure)) => {
                let _ = kill_process(born.child.pid, Signal::KILL);
                Err(failure)
            }
            _ => Ok(born.child.pid),
        },
        News::Died => Err(ended(born.child.pid)),
    }
}

/// The status of a stub that has ended; it has said why.
fn ended(pid: Pid) -> Failure {
    loop {
        match sys::child::wait(pid.as_raw_nonzero().get(), true) {
            Ok(Some((_, Change::Exited(code)))) => return Failure::status(code),
            Ok(Some((_, Change::Killed(signal)))) => {
                return Failure::status(128 + u8::try_from(signal).unwrap_or(0));
            }
            Ok(_) | Err(sys::Errno::EINTR) => {}
            Err(_) => return Failure::status(ExitCode::Restore as u8),
        }
    }
}

/// A child in which the stub is at work.
pub struct Born {
    /// The child.
    pub child: Child,
    namespace: Option<Namespace>,
}

impl Born {
    fn new(
        source: &Source,
        options: &Options,
        (identity, facts): (Identity, &Facts),
        inbox: &Inbox,
        place: Place,
        terminal: Option<&Terminal>,
    ) -> Result<Self, Failure> {
        let (news, tell) = pipe_for_stub(facts.above)?;
        let mut more = keep(identity);
        more.extend(["--ready".into(), number(&tell).into()]);
        let stub = Stub::new(source.path(), options, &more, facts.is_for_larger(options))?;
        source.look(options)?;
        let dies_with_us = place != Place::OwnSession;
        let mut namespace = match identity {
            Identity::Namespace => Some(Namespace::make(facts.pid, facts.clocks, dies_with_us)?),
            Identity::Any | Identity::New | Identity::Keep => None,
        };
        if facts.going_on {
            let user = facts.clocks.go_on()?;
            if options.verbose {
                let namespaces = if user { "user and time namespaces" } else { "a time namespace" };
                crate::text::note(format_args!("clocks go on, in {namespaces} (--clock new leaves this machine's)"));
            }
        }
        if options.verbose
            && let Some(namespace) = &namespace
        {
            crate::text::note(namespace::describe(namespace));
        }
        let id = (identity != Identity::New).then_some(facts.pid);
        let setup = Setup { id, place, dies_with_us, namespace: namespace.as_ref(), terminal };
        let child = Child::start(inbox, &setup, stub.command, news, Sign::Stub, tell)?;
        if let Some(namespace) = &mut namespace {
            namespace.program_started();
        }
        Ok(Self { child, namespace })
    }
}

/// As a child with new ids, for `ckpt run`.
pub fn supervised(
    image: &Path,
    options: &Options,
    inbox: &Inbox,
    place: Place,
    terminal: Option<&Terminal>,
) -> Result<Child, Failure> {
    let source = Source::open(image, options.trust)?;
    let (identity, facts) = source.settle(Manner { identity: Identity::Any, clock: Clock::Auto })?;
    Born::new(&source, options, (identity, &facts), inbox, place, terminal).map(|born| born.child)
}

fn keep(identity: Identity) -> Vec<OsString> {
    if identity == Identity::New { Vec::new() } else { vec!["--pid".into(), "keep".into()] }
}
