//! Descriptors of an image, each with the open file that it leads to.

use std::collections::HashMap;

use image_format::record::content::{Content, ContentFile, ContentKind};
use image_format::record::descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::lock::{self, LockKind};
use image_format::record::pidfd::Pidfd;
use image_format::record::pipe::Pipe;
use image_format::record::process::{FD_BITS, FD_MASK};
use image_format::record::pty::Pty;
use image_format::record::regular::Regular;
use image_format::record::sigio::{DRIVEN, Sigio};
use image_format::record::socket::Socket;
use image_format::record::terminal::Terminal;
use image_format::{Fault, Image, Rule};
use serde::Serialize;

use super::object::{self, State};
use super::report::string;

/// Names of the `O_*` flags besides the access mode (include/uapi/asm-generic/fcntl.h, x86_64).
const FLAGS: [(u32, &str); 11] = [
    (0o2000, "append"),
    (0o4000, "nonblock"),
    (0o10000, "dsync"),
    (0o20000, "async"),
    (0o40000, "direct"),
    (0o100_000, "largefile"),
    (0o200_000, "directory"),
    (0o400_000, "nofollow"),
    (0o1_000_000, "noatime"),
    (0o4_000_000, "sync"),
    (0o10_000_000, "path"),
];

/// Set by the kernel on every open of a 64-bit program: says nothing.
const LARGEFILE: &str = "largefile";

/// A descriptor.
#[derive(Debug, Serialize)]
pub struct Descriptor {
    /// Its number.
    pub fd: u32,
    /// Closes on exec.
    pub cloexec: bool,
    /// Id of the open file; descriptors with the same one share offset and flags.
    pub file: u32,
    /// What it leads to.
    pub kind: &'static str,
    /// Its path.
    pub path: String,
    /// `read`, `write` or `read-write`.
    pub access: &'static str,
    /// `append`, `nonblock`, …
    pub flags: Vec<&'static str>,
    /// Where the next byte is read or written.
    pub offset: Option<u64>,
    /// The file's size at the save.
    pub size: Option<u64>,
    /// Locks that were taken through it.
    pub locks: Vec<Lock>,
    /// What it holds, when it is no file.
    pub state: Option<State>,
}

/// A lock on a file.
#[derive(Debug, Serialize)]
pub struct Lock {
    /// `posix`, `ofd` or `flock`.
    pub kind: &'static str,
    /// A write lock.
    pub write: bool,
    /// First byte.
    pub start: u64,
    /// Number of bytes; `null` to the end.
    pub bytes: Option<u64>,
}

/// An open file.
struct File {
    kind: &'static str,
    path: String,
    flags: u32,
    offset: Option<u64>,
    size: Option<u64>,
    state: Option<State>,
}

/// All descriptors of the process at this place of its tree.
pub fn descriptors(image: &Image<'_>, place: usize) -> Result<Vec<Descriptor>, Fault> {
    let files = files(image)?;
    let mut locks: HashMap<u32, Vec<Lock>> = HashMap::new();
    for lock in image.table::<lock::Lock>()? {
        locks.entry(lock.fd.get()).or_default().push(Lock::new(lock));
    }
    let describe = |descriptor: &descriptor::Descriptor| {
        let (fd, id) = (descriptor.fd.get() & FD_MASK, descriptor.file.get());
        let unknown = Fault::malformed(Rule::DescriptorOpenFileImageDoesNotDescribe, 0);
        let file = files.get(&id).ok_or(unknown)?;
        Ok(Descriptor {
            fd,
            cloexec: descriptor.cloexec.get() != 0,
            file: id,
            kind: file.kind,
            path: file.path.clone(),
            access: access(file.flags),
            flags: flags(file.flags),
            offset: file.offset,
            size: file.size,
            locks: locks.remove(&descriptor.fd.get()).unwrap_or_default(),
            state: file.state.clone(),
        })
    };
    let own = |descriptor: &&descriptor::Descriptor| descriptor.fd.get() as usize >> FD_BITS == place;
    image.table::<descriptor::Descriptor>()?.iter().filter(own).map(describe).collect()
}

/// All open files by id.
fn files(image: &Image<'_>) -> Result<HashMap<u32, File>, Fault> {
    let mut out = HashMap::new();
    let mut add = |id: u32, kind, path, flags: u32, offset, size| {
        let file = File { kind, path: string(image, path)?, flags, offset, size, state: None };
        out.insert(id, file);
        Ok(())
    };
    for file in image.table::<Regular>()? {
        let (offset, size) = (file.offset.get(), file.identity.size.get());
        add(file.id.get(), "regular", file.path, file.flags.get(), Some(offset), Some(size))?;
    }
    for dir in image.table::<Directory>()? {
        add(dir.id.get(), "directory", dir.path, dir.flags.get(), Some(dir.offset.get()), None)?;
    }
    for device in image.table::<Device>()? {
        add(device.id.get(), "device", device.path, device.flags.get(), None, None)?;
    }
    for pipe in image.table::<Pipe>()? {
        let kind = if pipe.named.get() != 0 { "fifo" } else { "pipe" };
        add(pipe.id.get(), kind, pipe.path, pipe.flags.get(), None, None)?;
    }
    for terminal in image.table::<Terminal>()? {
        add(terminal.id.get(), "terminal", terminal.path, terminal.flags.get(), None, None)?;
    }
    for pty in image.table::<Pty>()? {
        let kind = if pty.id == pty.master { "pty" } else { "terminal" };
        add(pty.id.get(), kind, pty.path, pty.flags.get(), None, None)?;
    }
    for socket in image.table::<Socket>()? {
        add(socket.id.get(), "socket", socket.name, socket.flags.get(), None, None)?;
    }
    let states = object::pipes(image)?.into_iter().chain(object::sockets(image)?).chain(object::terminals(image)?);
    for (id, state) in states {
        if let Some(file) = out.get_mut(&id) {
            file.state = Some(state);
        }
    }
    let contents = image.table::<Content>()?;
    for file in image.table::<ContentFile>()? {
        let Some(content) = contents.get(file.content.get() as usize) else { continue };
        let kind = if content.kind.get() == ContentKind::Memfd as u32 { "memfd" } else { "deleted" };
        let (offset, size) = (Some(file.offset.get()), Some(content.identity.size.get()));
        let path = string(image, content.name)?;
        let state = Some(State::Content { content: content.id.get() });
        out.insert(file.id.get(), File { kind, path, flags: file.flags.get(), offset, size, state });
    }
    for pidfd in image.table::<Pidfd>()? {
        let (kind, flags) = ("pidfd", pidfd.flags.get());
        let file = File { kind, path: String::new(), flags, offset: None, size: None, state: None };
        out.insert(pidfd.id.get(), file);
    }
    for (id, (kind, flags, state)) in object::events(image)? {
        out.insert(id, File { kind, path: String::new(), flags, offset: None, size: None, state: Some(state) });
    }
    for sigio in image.table::<Sigio>()?.iter().filter(|sigio| sigio.how.get() & DRIVEN != 0) {
        if let Some(file) = out.get_mut(&sigio.id.get()) {
            file.flags |= sys::abi::O_ASYNC;
        }
    }
    Ok(out)
}

impl Lock {
    fn new(lock: &lock::Lock) -> Self {
        let kind = match LockKind::from_number(lock.kind.get()) {
            Some(LockKind::Ofd) => "ofd",
            Some(LockKind::Flock) => "flock",
            Some(LockKind::Lease) => "lease",
            _ => "posix",
        };
        let len = lock.len.get();
        Self { kind, write: lock.write.get() != 0, start: lock.start.get(), bytes: (len != 0).then_some(len) }
    }
}

fn access(flags: u32) -> &'static str {
    match flags & 3 {
        0 => "read",
        1 => "write",
        _ => "read-write",
    }
}

fn flags(flags: u32) -> Vec<&'static str> {
    // O_SYNC contains the bit of O_DSYNC.
    let hidden = |name| name == LARGEFILE || (name == "dsync" && flags & 0o4_000_000 != 0);
    FLAGS.into_iter().filter(|&(bit, name)| flags & bit != 0 && !hidden(name)).map(|(_, name)| name).collect()
}
