//! Descriptors that a process sends here, where a filter forbids to take them from it (pidfd_getfd(2)).
//!
//! What sends them is another process, which is made for this, has the program's memory and a table of its own, and is gone before anything else is
//! asked of the program: whenever this process is killed, the program has not one descriptor more. Must never keep them longer than the program stands
//! still: it could not close them.

use core::convert::Infallible;
use std::collections::HashMap;
use std::vec::Vec;

use state::{Error, Result};
use sys::abi::net::{
    ADDRESS_MAX, AF_UNIX, SCM_CREDENTIALS, SCM_MAX_FD, SCM_RIGHTS, SO_PASSCRED, SOCK_DGRAM, SOL_SOCKET,
};
use sys::abi::ptrace::{PTRACE_O_EXITKILL, PTRACE_O_TRACESYSGOOD};
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno, fs, ptrace, socket};

use super::Remote;
use crate::remote::injected::Injected;

/// Where a message's parts lie in the memory for calls' data: `struct msghdr`, `struct iovec`, the byte that is sent, the address, descriptors.
const IOVEC: u64 = 64;
const BYTE: u64 = 80;
const NAME: u64 = 96;
const CONTROL: u64 = 256;

/// Bytes of `struct cmsghdr`.
const HEAD: usize = 16;

/// A socket that others send to.
struct Inbox {
    socket: Owned,
    address: Vec<u8>,
}

impl Inbox {
    fn new() -> sys::Result<Self> {
        let own = socket::make(AF_UNIX, SOCK_DGRAM, 0)?;
        // The kernel finds a name that nobody has.
        socket::bind(own.fd(), &(AF_UNIX as u16).to_le_bytes())?;
        socket::set_option(own.fd(), SOL_SOCKET, SO_PASSCRED, &1u32.to_le_bytes())?;
        let mut address = [0; ADDRESS_MAX];
        let len = socket::address(own.fd(), false, &mut address)? as usize;
        Ok(Self { socket: own, address: address.get(..len).unwrap_or_default().to_vec() })
    }

    /// What has come from this process; others' messages are dropped.
    fn take(&self, sender: i32) -> sys::Result<Vec<Owned>> {
        loop {
            let mut control = [0; 2 * HEAD + 4 * SCM_MAX_FD + 64];
            let seen = socket::receive(self.socket.fd(), 0, &mut [0], &mut control, &mut [0; ADDRESS_MAX])?;
            let (mut from, mut fds) = (None, Vec::new());
            for message in socket::control_messages(control.get(..seen.control).unwrap_or_default()) {
                match message {
                    (SOL_SOCKET, SCM_RIGHTS, body) => fds.extend(body.as_chunks().0.iter().map(|fd| {
                        // SAFETY: the kernel has just given this process the number.
                        unsafe { Owned::new(Fd::from_le_bytes(*fd)) }
                    })),
                    (SOL_SOCKET, SCM_CREDENTIALS, body) => {
                        from = body.first_chunk().map(|pid| i32::from_le_bytes(*pid))
                    }
                    _ => {}
                }
            }
            if from == Some(sender) {
                return if seen.cut { Err(Errno::EMFILE) } else { Ok(fds) };
            }
        }
    }
}

impl Remote {
    /// Has all descriptors of the process sent here, if they cannot be taken.
    ///
    /// # Errors
    /// They cannot be sent.
    pub(super) fn have_descriptors_sent(&mut self) -> Result<()> {
        // No process has this one: the answer is whether it would be given.
        match sys::process::borrow_descriptor(self.pidfd.fd(), -1) {
            Err(Errno::EPERM | Errno::ENOSYS) => {}
            _ => return Ok(()),
        }
        let outer = self.outer;
        let failed = |e| {
            Error::failed(
                format_args!("descriptors of process {outer}"),
                "can neither be taken from it (pidfd_getfd(2)) nor sent by it",
                e,
            )
        };
        let numbers = self.numbers().map_err(failed)?;
        let inbox = Inbox::new().map_err(failed)?;
        let Some(first) = self.first.as_mut() else { return Err(failed(Errno::ESRCH)) };
        let sender = first.make_sender()?.map_err(failed)?;
        let sent = self.send(sender, &inbox, &numbers);
        if let Some(first) = self.first.as_mut() {
            first.abandon_fork(sender)?;
        }
        self.sent = Some(sent.map_err(failed)?);
        Ok(())
    }

    fn numbers(&self) -> sys::Result<Vec<Fd>> {
        let dir = fs::open_at(self.proc.fd(), c"fd", sys::abi::O_DIRECTORY, 0)?;
        let mut numbers = Vec::new();
        fs::for_each_name(dir.fd(), |name| {
            numbers.extend(sys::text::decimal(name).and_then(|fd| Fd::try_from(fd).ok()));
            Ok::<_, Infallible>(())
        })?
        .unwrap_or_else(|never| match never {});
        Ok(numbers)
    }

    fn send(&self, sender: i32, inbox: &Inbox, numbers: &[Fd]) -> sys::Result<HashMap<Fd, Owned>> {
        ptrace::set_options(sender, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)?;
        let regs = ptrace::registers(sender)?.ok_or(Errno::ESRCH)?;
        let end_signal = self.first.as_ref().map_or(0, Injected::end_signal);
        let call = |number: Sysno, args| {
            let mut injected = Injected::of_copy(sender, regs, &self.place, end_signal);
            injected.call(number as usize, args).unwrap_or(Err(Errno::ESRCH))
        };
        let socket = call(Sysno::socket, [AF_UNIX as usize, SOCK_DGRAM as usize, 0, 0, 0, 0])?;
        let mut all = HashMap::with_capacity(numbers.len());
        let mut send = |some: &[Fd]| -> sys::Result<()> {
            self.write_message(some, &inbox.address)?;
            call(Sysno::sendmsg, [socket, self.place.data() as usize, 0, 0, 0, 0])?;
            let fds = inbox.take(sender)?;
            if fds.len() != some.len() {
                return Err(Errno::EBADF);
            }
            all.extend(some.iter().copied().zip(fds));
            Ok(())
        };
        for some in numbers.chunks(SCM_MAX_FD) {
            match send(some) {
                // One of them cannot be sent, as an io_uring instance: nobody gets it, then, and whoever asks for it is refused.
                Err(Errno::EINVAL) => some.iter().try_for_each(|fd| match send(&[*fd]) {
                    Err(Errno::EINVAL) => Ok(()),
                    sent => sent,
                })?,
                sent => sent?,
            }
        }
        Ok(all)
    }

    /// Puts a message into the memory for calls' data.
    fn write_message(&self, some: &[Fd], address: &[u8]) -> sys::Result<()> {
        let at = self.place.data();
        let len = (HEAD + size_of_val(some)) as u64;
        let header = [at + NAME, address.len() as u64, at + IOVEC, 1, at + CONTROL, len, 0];
        let rights = [len, u64::from(SOL_SOCKET) | u64::from(SCM_RIGHTS) << 32];
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let fds = some.iter().flat_map(|fd| fd.to_le_bytes());
        let parts = [
            (0, bytes(&header)),
            (IOVEC, bytes(&[at + BYTE, 1])),
            (NAME, address.to_vec()),
            (CONTROL, bytes(&rights).into_iter().chain(fds).collect()),
        ];
        parts.iter().try_for_each(|(place, bytes)| fs::pwrite_all(self.mem.fd(), bytes, at + place))
    }
}
