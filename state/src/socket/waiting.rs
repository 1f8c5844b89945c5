//! What waits in Unix sockets: seen without taking it, before anything is known of what it leads to.
//!
//! Descriptors wait there, too, some of which nobody else has: they are adopted, as if a process behind the last one had them, and their
//! sockets are looked into likewise. Looked at once alone: an empty message shows in one look, and in no further one.

use image_format::StrRef;
use image_format::writer::Full;
use sys::Errno;
use sys::abi::POLLIN;
use sys::abi::net::{
    ADDRESS_MAX, AF_UNIX, MSG_TRUNC, POLLRDHUP, SCM_MAX_FD, SCM_PIDFD, SCM_RIGHTS, SO_ACCEPTCONN, SO_DOMAIN,
    SO_PEEK_OFF, SO_TYPE, SOCK_STREAM, SOL_SOCKET,
};
use sys::fs::{Fd, Owned};
use sys::socket::{control_messages, number, peek, set_option, whole_pieces};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Address;
use crate::descriptor::{self, Kind, OpenFile};
use crate::{Error, Object, Result, Save, Scratch, Target};

/// Most bytes that are carried of one socket.
const CONTENTS_MAX: usize = 16 << 20;

/// Most messages, and most descriptors in transit, of all sockets together; and most of these that nobody else has.
const MESSAGES_MAX: usize = 1 << 16;
const RIGHTS_MAX: usize = 1 << 16;
const ADOPTED_MAX: usize = 4096;

/// Room for all control messages of one message.
const CONTROL: usize = 1400;

/// A message, or a part of a stream that ends where descriptors came with it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Piece {
    /// Id of the socket in which it waits.
    pub socket: u32,
    /// Its descriptors in [`Queues::rights`]: the first, and how many.
    first: u32,
    count: u32,
    /// Its bytes among the strings.
    at: u32,
    len: u32,
    /// Who sent it, of messages.
    pub from: Address,
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> StrRef {
        StrRef { at: self.at.into(), len: self.len.into() }
    }
}

/// All that waits in Unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queues<'b> {
    pieces: &'b [Piece],
    rights: &'b [u32],
}

impl<'b> Queues<'b> {
    /// What waits in the socket with this id, in its order.
    pub fn of(&self, socket: u32) -> &'b [Piece] {
        let first = self.pieces.partition_point(|piece| piece.socket < socket);
        let len = self.pieces.iter().skip(first).take_while(|piece| piece.socket == socket).count();
        self.pieces.get(first..first + len).unwrap_or_default()
    }

    /// Ids of the open files that come with a piece.
    pub fn rights(&self, piece: &Piece) -> &'b [u32] {
        self.rights.get(piece.first as usize..(piece.first + piece.count) as usize).unwrap_or_default()
    }
}

/// Looks into all Unix sockets of a table, and returns it with what was adopted.
///
/// # Errors
/// What waits cannot be carried; no room.
pub fn collect<'b, T: Target>(
    save: &mut Save<'_, 'b, T>,
    table: &'b mut [OpenFile],
    own: &[u8],
) -> Result<(&'b mut [OpenFile], Queues<'b>)> {
    if !save.target.stands_still() {
        return Ok((table, Queues::default()));
    }
    let mut holds = false;
    for file in table.iter().filter(|file| file.is_first(Kind::Socket)) {
        holds = Holder::of(save.target, file)?.is_some();
        if holds {
            break;
        }
    }
    if !holds {
        return Ok((table, Queues::default()));
    }
    // What is in transit in this very process is open here, too, or cannot be told from what is the saver's.
    let more = if T::IN_PROCESS { 0 } else { ADOPTED_MAX };
    let all = save.scratch.take::<OpenFile>(table.len() + more)?;
    let mut used = table.len();
    for (to, from) in all.iter_mut().zip(&*table) {
        *to = *from;
    }
    let mut list = List::of(&mut save.scratch)?;
    let mut index = 0;
    while let Some(file) = all.get(index).copied().filter(|_| index < used) {
        index += 1;
        if file.is_first(Kind::Socket)
            && let Some(holder) = Holder::of(save.target, &file)?
        {
            let mut known = Known { files: all, used: &mut used, own };
            read(save, &holder, &mut list, &mut known)?;
        }
    }
    let List { pieces, rights, pieces_len, rights_len } = list;
    let queues =
        Queues { pieces: pieces.get(..pieces_len).ok_or(Full)?, rights: rights.get(..rights_len).ok_or(Full)? };
    Ok((all.get_mut(..used).ok_or(Full)?, queues))
}

/// What is being collected.
struct List<'b> {
    pieces: &'b mut [Piece],
    rights: &'b mut [u32],
    pieces_len: usize,
    rights_len: usize,
}

impl<'b> List<'b> {
    fn of(scratch: &mut Scratch<'b>) -> Result<Self> {
        // An eighth of what is there for each, at most.
        let count = |scratch: &Scratch<'b>, size: usize, most: usize| most.min(scratch.room() / 8 / size);
        let (pieces, rights) =
            (count(scratch, size_of::<Piece>(), MESSAGES_MAX), count(scratch, size_of::<u32>(), RIGHTS_MAX));
        Ok(Self { pieces: scratch.take(pieces)?, rights: scratch.take(rights)?, pieces_len: 0, rights_len: 0 })
    }
}

/// Open files, among which those in transit are sought.
struct Known<'k> {
    files: &'k mut [OpenFile],
    used: &'k mut usize,
    own: &'k [u8],
}

impl Known<'_> {
    /// The id of an open file that came with a message.
    fn id<T: Target>(&mut self, save: &mut Save<'_, '_, T>, holder: &Holder, fd: Owned) -> Result<u32> {
        let stat = sys::fs::fstat(fd.fd()).map_err(holder.failed())?;
        let (known, rest) = self.files.split_at_mut(*self.used);
        let alike = |f: &&OpenFile| f.id == f.fd && (f.dev, f.ino, f.mode) == (stat.dev, stat.ino, stat.mode);
        let same = |f: &&OpenFile| save.target.is_same(fd.fd(), f.fd as Fd) == Some(true);
        if let Some(file) = known.iter().filter(alike).find(same) {
            return Ok(file.id);
        }
        let Some(number) = save.target.adopt(fd).map_err(holder.failed())? else {
            let why = "holds a descriptor in transit of what the process has not open itself";
            return Err(holder.refuse(why, "save it by its PID, or let the program receive it"));
        };
        let mut file = descriptor::find(save, number as Fd, self.own)?;
        file.in_transit = 1;
        // What leads to others is theirs by its number, which this one has not.
        if file.other != 0 {
            let why = "holds a descriptor in transit that belongs to a process, which cannot be carried";
            return Err(holder.refuse(why, "let the program receive it"));
        }
        let Some(place) = rest.first_mut() else {
            return Err(holder.refuse("holds too many descriptors in transit", "let the program receive some"));
        };
        *place = file;
        *self.used += 1;
        Ok(file.id)
    }
}

/// A socket in which something may wait.
struct Holder {
    id: u32,
    own: Owned,
    is_stream: bool,
    /// An empty message is its end.
    has_ended: bool,
}

impl Holder {
    fn of<T: Target>(target: &T, file: &OpenFile) -> Result<Option<Self>> {
        if !target.shows_descriptors() {
            return Ok(None);
        }
        let failed = |e| Error::failed(Object::descriptor(file.fd, format_args!("socket")), "cannot be examined", e);
        let own = target.borrow(file.fd as Fd).map_err(failed)?;
        let is = |name| number(own.fd(), SOL_SOCKET, name).map_err(failed);
        if is(SO_DOMAIN)? != AF_UNIX || is(SO_ACCEPTCONN)? != 0 {
            return Ok(None);
        }
        let is_stream = is(SO_TYPE)? == SOCK_STREAM;
        let ready = sys::fs::ready(own.fd(), POLLIN | POLLRDHUP).map_err(failed)?;
        // A stream at its end is ready, and empty.
        let holds = if is_stream { sys::fs::waiting(own.fd()).map_err(failed)? != 0 } else { ready & POLLIN != 0 };
        let has_ended = ready & POLLRDHUP != 0;
        Ok(holds.then_some(Self { id: file.id, own, is_stream, has_ended }))
    }

    fn failed(&self) -> impl Fn(Errno) -> Error + use<> {
        let id = self.id;
        move |e| Error::failed(Object::descriptor(id, format_args!("socket unix")), "cannot be looked into", e)
    }

    fn refuse(&self, why: &'static str, remedy: &'static str) -> Error {
        Error::refused(Object::descriptor(self.id, format_args!("socket unix")), why, remedy)
    }

    fn limit(&self, len: usize) -> Result<usize> {
        if len > CONTENTS_MAX {
            return Err(self.refuse("holds more than 16 MiB, which cannot be carried", "let the program read it"));
        }
        Ok(len)
    }

    fn seek(&self, at: usize) -> Result<()> {
        set_option(self.own.fd(), SOL_SOCKET, SO_PEEK_OFF, &(at as u32).to_le_bytes()).map_err(self.failed())
    }

    fn look(&self, at: usize, to: &mut [u8], from: &mut [u8; ADDRESS_MAX]) -> Result<(usize, Got)> {
        self.seek(at)?;
        let mut control = [0; CONTROL];
        let seen = peek(self.own.fd(), 0, to, &mut control, from).map_err(self.failed())?;
        let mut got = Got::none();
        for (level, kind, body) in control_messages(control.get(..seen.control).unwrap_or_default()) {
            if level == SOL_SOCKET && matches!(kind, SCM_RIGHTS | SCM_PIDFD) {
                let fds = body.as_chunks::<4>().0;
                for (place, fd) in got.fds.iter_mut().skip(got.count).zip(fds) {
                    // SAFETY: the kernel has just made it, for this message.
                    *place = Some(unsafe { Owned::new(i32::from_le_bytes(*fd)) });
                }
                // A pidfd is the receiver's wish, and no part of the message.
                got.count += if kind == SCM_RIGHTS { fds.len() } else { 0 };
            }
        }
        // The kernel leaves out those for which no number is free.
        if seen.cut { Err(self.failed()(Errno::EMFILE)) } else { Ok((seen.len, got)) }
    }
}

/// Descriptors that came with a peek: this process's own, closed with the value.
struct Got {
    fds: [Option<Owned>; SCM_MAX_FD],
    count: usize,
}

impl Got {
    const fn none() -> Self {
        Self { fds: [const { None }; SCM_MAX_FD], count: 0 }
    }
}

/// All that waits in one.
fn read<T: Target>(
    save: &mut Save<'_, '_, T>,
    holder: &Holder,
    list: &mut List<'_>,
    known: &mut Known<'_>,
) -> Result<()> {
    if T::IN_PROCESS && known.files.iter().any(|file| file.locked != 0) {
        // Descriptors in transit are opened by a look, and closing one gives up the process's own locks on its file.
        let why = "holds data, and may not be looked into while the process holds locks on files";
        return Err(holder.refuse(why, "save it by its PID, or let the program read the data"));
    }
    let before = number(holder.own.fd(), SOL_SOCKET, SO_PEEK_OFF).map_err(holder.failed())?;
    let done = if holder.is_stream { stream(save, holder, list, known) } else { messages(save, holder, list, known) };
    // What cannot be put back is an error, whatever other error there is.
    set_option(holder.own.fd(), SOL_SOCKET, SO_PEEK_OFF, &before.to_le_bytes()).map_err(holder.failed())?;
    done
}

/// All of a stream, cut where descriptors come with a byte.
fn stream<T: Target>(
    save: &mut Save<'_, '_, T>,
    holder: &Holder,
    list: &mut List<'_>,
    known: &mut Known<'_>,
) -> Result<()> {
    let len = sys::fs::waiting(holder.own.fd()).map_err(holder.failed())?;
    let bytes = save.scratch.bytes(holder.limit(len)?)?;
    let mut from = [0; ADDRESS_MAX];
    let mut at = 0;
    while let Some(to) = bytes.get_mut(at..).filter(|to| !to.is_empty()) {
        let (got, rights) = holder.look(at, to, &mut from)?;
        if got == 0 {
            return Err(holder.failed()(Errno::EIO));
        }
        // The last piece is the one that they came with; what is in front of it came without.
        let mut plain = 0;
        if rights.count != 0 {
            holder.seek(at)?;
            let head = to.get_mut(..got - 1).unwrap_or_default();
            plain = whole_pieces(holder.own.fd(), head).map_err(holder.failed())?;
        }
        let (plain, rest) = to.get(..got).and_then(|all| all.split_at_checked(plain)).unwrap_or_default();
        if !plain.is_empty() {
            push(save, holder, (list, known), (plain, &Address::none()), Got::none())?;
        }
        push(save, holder, (list, known), (rest, &Address::none()), rights)?;
        at += got;
    }
    Ok(())
}

/// Messages, each as one.
fn messages<T: Target>(
    save: &mut Save<'_, '_, T>,
    holder: &Holder,
    list: &mut List<'_>,
    known: &mut Known<'_>,
) -> Result<()> {
    let mut at = 0;
    let mut from = [0; ADDRESS_MAX];
    loop {
        holder.seek(at)?;
        let seen = match peek(holder.own.fd(), MSG_TRUNC, &mut [], &mut [], &mut from) {
            Ok(seen) => seen,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(e) => return Err(holder.failed()(e)),
        };
        // The end of a connection of messages reads as an empty one, for ever.
        if seen.len == 0 && holder.has_ended {
            return Ok(());
        }
        let bytes = save.scratch.bytes(holder.limit(at + seen.len)? - at)?;
        let rights = if seen.len == 0 { Got::none() } else { holder.look(at, bytes, &mut from)?.1 };
        push(save, holder, (list, known), (bytes, &Address::of(&from, seen.from)), rights)?;
        at += seen.len;
    }
}

/// One more piece.
fn push<T: Target>(
    save: &mut Save<'_, '_, T>,
    holder: &Holder,
    (list, known): (&mut List<'_>, &mut Known<'_>),
    (bytes, from): (&[u8], &Address),
    rights: Got,
) -> Result<()> {
    let first = list.rights_len;
    for fd in rights.fds.into_iter().take(rights.count).flatten() {
        let id = known.id(save, holder, fd)?;
        let too_many = || holder.refuse("holds too many descriptors in transit", "let the program receive some");
        *list.rights.get_mut(list.rights_len).ok_or_else(too_many)? = id;
        list.rights_len += 1;
    }
    let place = list.pieces.get_mut(list.pieces_len);
    let place = place.ok_or_else(|| holder.refuse("holds too many messages", "let the program receive some"))?;
    let string = save.notes.string(bytes)?;
    *place = Piece {
        socket: holder.id,
        first: first as u32,
        count: (list.rights_len - first) as u32,
        at: string.at.get(),
        len: string.len.get(),
        from: *from,
    };
    list.pieces_len += 1;
    Ok(())
}
