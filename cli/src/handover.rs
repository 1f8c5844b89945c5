//! What the two ends of `ckpt migrate` say to each other through ssh's two streams.
//!
//! ```text
//! from here                         from there
//!                                   ckpt-receive 1        ckpt is there, and speaks this language
//! pieces of the image, the end
//!                                   received              whole, and every checksum is right
//! go
//!                                   runs PID [FILE]       the program has taken over; where its output goes
//! ```
//!
//! Instead of any line from there: `failed CODE TEXT`. Nothing starts there before `go`; a stream that ends before that, however
//! it ended, leaves nothing behind. Must never take the end of a stream for the end of the image.

use std::io::{self, BufRead, BufReader, Read, Write};

/// The first line from there, behind whatever a shell's profile has printed.
pub const HELLO: &str = "ckpt-receive 1";

/// The image is there.
pub const RECEIVED: &str = "received";

/// Start it.
pub const GO: &str = "go";

/// Longest line, and most that a profile may print.
const LINE_MAX: u64 = 64 << 10;

/// Writes the image in pieces, each behind its length; a length of 0 is the end.
#[derive(Debug)]
pub struct Pieces<W>(pub W);

impl<W: Write> Pieces<W> {
    /// Writes the end.
    pub fn end(&mut self) -> io::Result<()> {
        self.0.write_all(&0u32.to_le_bytes())?;
        self.0.flush()
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if len > 0 {
            self.0.write_all(&len.to_le_bytes())?;
            self.0.write_all(bytes.get(..len as usize).unwrap_or(bytes))?;
        }
        Ok(len as usize)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads these pieces. A stream that ends between them has ended early.
#[derive(Debug)]
pub struct Joined<'r, R> {
    from: &'r mut R,
    left: usize,
    ended: bool,
}

impl<'r, R: Read> Joined<'r, R> {
    /// Reads from `from`, up to the end of the image and no further.
    pub fn new(from: &'r mut R) -> Self {
        Self { from, left: 0, ended: false }
    }
}

impl<R: Read> Read for Joined<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut len = [0; 4];
            self.from.read_exact(&mut len)?;
            self.left = u32::from_le_bytes(len) as usize;
            self.ended = self.left == 0;
        }
        let room = to.len().min(self.left);
        if room == 0 {
            // Even to read nothing would wait for what follows.
            return Ok(0);
        }
        let got = self.from.read(to.get_mut(..room).unwrap_or_default())?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got;
        Ok(got)
    }
}

/// One line without its end; none where the stream has ended.
pub fn line(from: &mut BufReader<impl Read>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_whole_or_not_at_all() -> io::Result<()> {
        let mut pieces = Pieces(Vec::new());
        pieces.write_all(b"hello ")?;
        pieces.write_all(b"world")?;
        pieces.end()?;
        pieces.0.extend_from_slice(b"go\n");
        let mut from = BufReader::new(&*pieces.0);
        let mut got = String::new();
        Joined::new(&mut from).read_to_string(&mut got)?;
        assert_eq!(got, "hello world");
        assert_eq!(line(&mut from)?.as_deref(), Some(GO));
        assert_eq!(line(&mut from)?, None);
        for cut in 0..pieces.0.len() - 3 {
            let mut from = pieces.0.get(..cut).unwrap_or_default();
            let ended = Joined::new(&mut from).read_to_end(&mut Vec::new()).map_err(|e| e.kind());
            assert_eq!(ended, Err(io::ErrorKind::UnexpectedEof), "cut at {cut}");
        }
        Ok(())
    }
}
