//! Streams between a virtual machine and this machine, one after the other: each a connection to QEMU, which is the virtio port `data` inside.
//!
//! A pipe as a program sees one, with an end in each direction; `stream.sh` is its other side. Must never take the rest of one stream
//! for another one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};

use super::Machine;
use crate::remote::random;

/// One end; the other one is `stream from NUMBER` or `stream to NUMBER` in the virtual machine. QEMU throws away what nobody has read yet when
/// the value goes.
#[derive(Debug)]
pub struct Stream {
    /// Which one it is.
    pub number: String,
    socket: UnixStream,
}

impl Machine {
    /// Opens one; whoever opens another one has closed this.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn stream(&self) -> Result<Stream> {
        let count = self.streams.get() + 1;
        self.streams.set(count);
        // Not to be found in what goes through it.
        let number = format!("{count}-{}", random());
        let mut socket = self.connect()?;
        write!(socket, "\ngo {number}\n")?;
        Ok(Stream { number, socket })
    }
}

impl Stream {
    /// A descriptor to be some program's standard output: the stream ends with it and with [`Stream::end`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn writer(&self) -> Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// Sends bytes, as many as are taken: who reads in the virtual machine may have given up. To its end in any case.
    pub fn send(&self, bytes: &[u8]) {
        drop((&self.socket).write_all(bytes));
        self.end();
    }

    /// The end of what goes into the virtual machine.
    pub fn end(&self) {
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Frees whoever still writes into a virtual machine where nobody reads any more.
    pub fn break_off(&self) {
        drop(self.socket.shutdown(Shutdown::Both));
    }

    /// Hands on what comes out of the virtual machine, as it comes; the number of bytes.
    ///
    /// # Errors
    /// It ends without `end`, or `to` takes no more.
    pub fn receive(&self, mut to: impl Write) -> Result<u64> {
        let end = format!("\nend {}\n", self.number).into_bytes();
        let (mut kept, mut total) = (Vec::new(), 0);
        let mut buffer = vec![0; 1 << 16];
        while !kept.ends_with(&end) {
            let whole = kept.len().saturating_sub(end.len());
            to.write_all(&kept[..whole])?;
            kept.drain(..whole);
            total += whole as u64;
            let got = (&self.socket).read(&mut buffer)?;
            ensure!(got > 0, "the stream out of the virtual machine ends after {total} bytes, without its mark");
            kept.extend_from_slice(&buffer[..got]);
        }
        kept.truncate(kept.len() - end.len());
        to.write_all(&kept)?;
        Ok(total + kept.len() as u64)
    }
}
