//! Restarts. All of a restart is the stub's; this finds the image, hands it to the stub, and says what the stub does not.
//!
//! Must never say that a program runs before its stub has said so.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use image_format::ExitCode;
use image_format::record::descriptor::Descriptor;
use image_format::record::header::Traces;
use image_format::record::process::{FD_MASK, Process};
use image_format::record::terminal::Terminal as SavedTerminal;
use loader::identity::System;
use loader::identity::system::Here;
use loader::supervise::{Inbox, News, Place};
use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::failure::Failure;
use crate::image::ImageFile;
use crate::obstacles;
use crate::pidfile::PidFile;
use crate::progress::Bar;
use crate::spool;
use crate::stub::{Options, Stub};
use crate::supervise::Child;
use crate::whose::Whose;

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
        if image.start() != 0 {
            let what = format_args!("{}: is a bundle: start the file itself", crate::text::path(name)).to_string();
            return Err(Failure::new(ExitCode::NotImage, what));
        }
        // The stub does not look at memory that it takes from the program's own files; but who knows where a stream went wrong.
        let bar = Bar::new("checking", &command::verify::PROGRESS);
        let checked = command::verify::all(&image);
        drop(bar);
        checked?;
        let file = image.file().ok_or_else(|| image.fault(image_format::Fault::Unsealed))?;
        let (file, path) = spool::hand_on(file, above(&image)?)?;
        Ok(Self { path: name.to_owned(), spooled: Some(Spooled { _file: file, path }) })
    }

    /// The image, and the process's id.
    pub fn image(&self) -> Result<(ImageFile, i32), Failure> {
        let image = ImageFile::open(self.path())?;
        let pid = image.checked()?.image.header().pid.get();
        Ok((image, pid.cast_signed()))
    }

    fn path(&self) -> &Path {
        self.spooled.as_ref().map_or(&self.path, |spooled| &spooled.path)
    }

    /// The stub on it, ready to be executed.
    fn stub(&self, options: &Options, more: &[OsString]) -> Result<Stub, Failure> {
        let stub = Stub::new(self.path(), options, more)?;
        let root = ImageFile::open(self.path())?;
        let mut images = root.others()?;
        images.push(root);
        // The stub names the first; whoever has several wants to hear of all.
        let found = obstacles::files(&images, options)?;
        if let [(code, _), _, ..] = &*found {
            found.iter().for_each(|(_, line)| crate::text::note(line));
            return Err(Failure::status(*code as u8));
        }
        Ok(stub)
    }
}

/// The first number above all of the program's descriptors.
fn above(file: &ImageFile) -> Result<i32, Failure> {
    let checked = file.checked()?;
    let table = checked.image.table::<Descriptor>().map_err(|fault| file.fault(fault))?;
    let top = table.iter().map(|descriptor| descriptor.fd.get() & FD_MASK).max().unwrap_or(0).max(63);
    Ok(i32::try_from(top).unwrap_or(i32::MAX - 1).saturating_add(1))
}

/// Whether the program's descriptor 0 is a terminal.
fn input_is_terminal(file: &ImageFile) -> Result<bool, Failure> {
    let checked = file.checked()?;
    let table = checked.image.table::<Descriptor>().map_err(|fault| file.fault(fault))?;
    let terminals = checked.image.table::<SavedTerminal>().map_err(|fault| file.fault(fault))?;
    let input = table.iter().find(|descriptor| descriptor.fd.get() == 0);
    Ok(input.is_some_and(|input| terminals.iter().any(|terminal| terminal.id == input.file)))
}

/// The stub takes this command's place; returns only what went wrong.
pub fn attached(source: &Source, options: &Options, whose: &Whose, pidfile: Option<&Path>) -> Failure {
    // Who saves this process means the program, and waits for it. The mark is gone with the exec: the stub has its own.
    let _ = state::process::restarting::announce();
    let mut more = whose.arguments();
    if let Some(pidfile) = pidfile {
        more.extend(["--pidfile".into(), pidfile.into()]);
    }
    match source.stub(options, &more) {
        Ok(stub) => stub.exec(),
        Err(failure) => failure,
    }
}

/// The program as a child without a terminal, left behind once it runs.
pub fn detached(source: &Source, options: &Options, whose: &Whose, pidfile: Option<PidFile>) -> Result<Pid, Failure> {
    let inbox = Inbox::open().map_err(crate::supervise::no_signals)?;
    let mut child = started(source, options, whose.arguments(), &inbox, Place::OwnSession)?;
    let pid = Pid::from_raw(child.pid).ok_or_else(|| Failure::status(ExitCode::Restore as u8))?;
    if child.news() != News::Running {
        return Err(crate::supervise::ended(child.pid));
    }
    match pidfile.map(|pidfile| pidfile.write(pid)) {
        Some(Err(failure)) => {
            let _ = kill_process(pid, Signal::KILL);
            Err(failure)
        }
        _ => Ok(pid),
    }
}

/// The program as a child of this process, which supervises it, for `ckpt run`.
pub fn supervised(source: &Source, options: &Options, inbox: &Inbox, place: Place) -> Result<Child, Failure> {
    let more =
        if must_count(&ImageFile::open(source.path())?)? { vec!["--pid".into(), "keep".into()] } else { Vec::new() };
    started(source, options, more, inbox, place)
}

/// Whether a program's ids can only be had by counting, as below a container's filter: a job takes the time that this takes, and is not refused for it.
fn must_count(file: &ImageFile) -> Result<bool, Failure> {
    let checked = file.checked()?;
    let tree = !checked.image.table::<Process>().map_err(|fault| file.fault(fault))?.is_empty();
    let here = Here { own: std::process::id(), counts: true };
    let keeps = tree || checked.image.header().traces() != Traces::None;
    Ok(keeps && here.may_choose().is_err() && here.may_make_namespaces().is_err())
}

fn started(
    source: &Source,
    options: &Options,
    mut more: Vec<OsString>,
    inbox: &Inbox,
    place: Place,
) -> Result<Child, Failure> {
    let above = above(&ImageFile::open(source.path())?)?;
    let pipe = crate::supervise::pipe_above(above)?;
    more.extend(["--ready".into(), crate::supervise::number(&pipe.1).into()]);
    let word = match place {
        Place::WithUs => "with",
        Place::OwnGroup => "group",
        Place::OwnSession => "session",
    };
    more.extend(["--place".into(), word.into()]);
    Child::of_stub(inbox, place, source.stub(options, &more)?.command, pipe)
}
