//! What the kernel tells of an instance (io_uring/fdinfo.c).

use sys::Errno;
use sys::fs::{Fd, Lines};
use sys::text::{Text, cut, decimal, hex, words};

use crate::descriptor::OpenFile;
use crate::target::Target;
use crate::{Error, Object};

/// The names of requests, by their numbers, as far as they are told of as waiting (`enum io_uring_op`).
const OPERATIONS: [&str; 58] = [
    "NOP",
    "READV",
    "WRITEV",
    "FSYNC",
    "READ_FIXED",
    "WRITE_FIXED",
    "POLL_ADD",
    "POLL_REMOVE",
    "SYNC_FILE_RANGE",
    "SENDMSG",
    "RECVMSG",
    "TIMEOUT",
    "TIMEOUT_REMOVE",
    "ACCEPT",
    "ASYNC_CANCEL",
    "LINK_TIMEOUT",
    "CONNECT",
    "FALLOCATE",
    "OPENAT",
    "CLOSE",
    "FILES_UPDATE",
    "STATX",
    "READ",
    "WRITE",
    "FADVISE",
    "MADVISE",
    "SEND",
    "RECV",
    "OPENAT2",
    "EPOLL_CTL",
    "SPLICE",
    "PROVIDE_BUFFERS",
    "REMOVE_BUFFERS",
    "TEE",
    "SHUTDOWN",
    "RENAMEAT",
    "UNLINKAT",
    "MKDIRAT",
    "SYMLINKAT",
    "LINKAT",
    "MSG_RING",
    "FSETXATTR",
    "SETXATTR",
    "FGETXATTR",
    "GETXATTR",
    "SOCKET",
    "URING_CMD",
    "SEND_ZC",
    "SENDMSG_ZC",
    "READ_MULTISHOT",
    "WAITID",
    "FUTEX_WAIT",
    "FUTEX_WAKE",
    "FUTEX_WAITV",
    "FIXED_FD_INSTALL",
    "FTRUNCATE",
    "BIND",
    "LISTEN",
];

/// The fdinfo of one instance (io_uring/fdinfo.c).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Entries of both rings.
    pub sq_entries: u32,
    pub cq_entries: u32,
    /// The kernel's place in the submissions, as the program sees it and as it is, and the program's end of them.
    pub sq_head: u32,
    pub cached_sq_head: Option<u32>,
    /// The end of the completions, as the program sees it and as it is.
    pub cq_tail: u32,
    pub cached_cq_tail: Option<u32>,
    /// The thread that polls for submissions.
    pub sq_thread: Option<u32>,
    /// How many files and buffers are registered, also such as are none.
    pub files: u32,
    pub buffers: u32,
    /// There are other credentials for requests.
    pub personalities: bool,
    /// Sockets are polled busily.
    pub polls_busily: bool,
    /// A request waits, of this kind.
    pub waiting: Option<&'static str>,
    /// Completions wait for room.
    pub overflow: bool,
    /// A submission is listed; it is a long one. A completion is one.
    pub submission: bool,
    pub long_submission: bool,
    pub long_completion: bool,
}

/// Reads it; `each` is called for each registered file (`UserFiles`) and buffer (`UserBufs`), with its index and the text behind it.
pub(super) fn read<T: Target>(target: &T, fd: u32, each: impl FnMut(&[u8], u32, &[u8])) -> sys::Result<Told> {
    read_at(target.at(fd), each)
}

/// The same of a descriptor, see [`Target::at`].
pub(super) fn read_at((proc, number): (Fd, u32), mut each: impl FnMut(&[u8], u32, &[u8])) -> sys::Result<Told> {
    let path = Text::<32>::of(format_args!("fdinfo/{number}"));
    let mut buffer = [0; 8192];
    let mut lines = Lines::open_at(proc, path.as_c_str(), &mut buffer)?.whole();
    let mut told = Told::default();
    let mut section = [0u8; 16];
    while let Some(line) = lines.next_line()? {
        if line.first() == Some(&b' ') {
            let (index, rest) = cut(line, b':').unwrap_or_default();
            let index = decimal(index.trim_ascii()).unwrap_or(0) as u32;
            match section.trim_ascii_end() {
                b"SQEs" => (told.submission, told.long_submission) = (true, contains(rest, b" e0:")),
                b"CQEs" => told.long_completion = contains(rest, b" extra1:"),
                name @ (b"UserFiles" | b"UserBufs") => each(name, index, rest.trim_ascii()),
                b"PollList" => {
                    let operation = words(line).find_map(|word| word.strip_prefix(b"op="));
                    let digits = operation.and_then(|word| word.strip_suffix(b","));
                    let name = digits.and_then(decimal).and_then(|n| OPERATIONS.get(n as usize));
                    told.waiting = Some(name.copied().unwrap_or("another"));
                }
                b"CqOverflowList" => told.overflow = true,
                _ => {}
            }
            continue;
        }
        let Some((key, value)) = cut(line, b':') else { continue };
        let value = value.trim_ascii();
        let number = || decimal(value).and_then(|n| u32::try_from(n).ok()).ok_or(Errno::EIO);
        let mask = || hex(value.strip_prefix(b"0x").unwrap_or(value)).ok_or(Errno::EIO);
        section = [b' '; 16];
        section.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        match key {
            b"SqMask" => told.sq_entries = mask()? as u32 + 1,
            b"CqMask" => told.cq_entries = mask()? as u32 + 1,
            b"SqHead" => told.sq_head = number()?,
            b"CqTail" => told.cq_tail = number()?,
            b"CachedSqHead" => told.cached_sq_head = Some(number()?),
            b"CachedCqTail" => told.cached_cq_tail = Some(number()?),
            b"SqThread" if value != b"-1" => told.sq_thread = Some(number()?),
            b"UserFiles" => told.files = number()?,
            b"UserBufs" => told.buffers = number()?,
            b"Personalities" => told.personalities = true,
            b"NAPI" => told.polls_busily = value != b"disabled",
            _ => {}
        }
    }
    Ok(told)
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|part| part == what)
}

impl Told {
    /// Whether each request that was made has completed once, and nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.cached_sq_head == Some(self.sq_head)
            && self.cached_cq_tail == Some(self.cq_tail)
            && self.sq_head == self.cq_tail
            && self.waiting.is_none()
            && !self.overflow
    }
}

pub(super) fn refuse(file: &OpenFile, why: &'static str, remedy: &'static str) -> Error {
    Error::refused(Object::descriptor(file.fd, format_args!("io_uring")), why, remedy)
}

pub(super) fn failed(file: &OpenFile) -> impl Fn(Errno) -> Error {
    let fd = file.fd;
    move |e| Error::failed(Object::descriptor(fd, format_args!("io_uring")), "cannot be examined", e)
}
