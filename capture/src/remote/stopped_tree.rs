//! Several processes as one target: numbers of descriptors tell whose they are, all else is asked of the one that is entered.
//!
//! Must never let one of them go on before all can.

use core::cmp::Ordering;
use core::ops::Range;
use std::collections::HashMap;
use std::time::Duration;
use std::vec::Vec;

use image_format::record::process::{FD_BITS, FD_MASK};
use state::socket::leave::{self, Leaving};
use state::socket::shield::Name;
use state::socket::{Address, is_told_of};
use state::{Arg, Inside, Question, Result, Target};
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

use super::connections::{self, Connections, Shielded};
use super::{copy, target, target::Remote};

/// Bits of an address; those above tell whose it is, counted from 1.
const ADDRESS_BITS: u32 = 48;

/// Processes that stand still, the root first.
#[derive(Debug)]
pub struct StoppedTree {
    members: Vec<Remote>,
    entered: usize,
    /// How sockets are left, should all be ended.
    left: Vec<(u32, Leaving)>,
    /// What was in transit in them and in no other way, as if a process behind the last one had it; its directory in `/proc`.
    adopted: Vec<Owned>,
    own: Option<Owned>,
    /// Ids of those that have ended and wait for their parents: ours, and their own.
    ended: Vec<(i32, i32)>,
}

impl StoppedTree {
    /// `members` has one at least.
    #[must_use]
    pub fn new(members: Vec<Remote>, ended: Vec<(i32, i32)>) -> Self {
        Self { members, entered: 0, left: Vec::new(), adopted: Vec::new(), own: None, ended }
    }

    fn own(&self) -> &Remote {
        self.member(self.entered)
    }

    #[allow(clippy::indexing_slicing, reason = "there is a root, and no process has a place beyond the last")]
    fn member(&self, place: usize) -> &Remote {
        self.members.get(place).unwrap_or(&self.members[0])
    }

    #[allow(clippy::indexing_slicing, reason = "as above")]
    fn member_mut(&mut self, place: usize) -> &mut Remote {
        let place = if place < self.members.len() { place } else { 0 };
        &mut self.members[place]
    }

    /// Whose descriptor it is, `None` for one that was adopted; with its number there.
    fn whose(&self, fd: Fd) -> (Option<&Remote>, Fd) {
        let (place, fd) = ((fd as u32 >> FD_BITS) as usize, (fd as u32 & FD_MASK) as Fd);
        (self.members.get(place), fd)
    }

    /// The same as an id and a number.
    fn holder(&self, fd: Fd) -> (i32, Fd) {
        let (whose, fd) = self.whose(fd);
        (whose.map_or_else(sys::process::pid, Remote::outer), fd)
    }

    /// Whose address it is, and where there.
    const fn place_of(&self, addr: u64) -> (usize, u64) {
        match addr >> ADDRESS_BITS {
            0 => (self.entered, addr),
            place => (place as usize - 1, addr & ((1 << ADDRESS_BITS) - 1)),
        }
    }

    /// Why it stands still although it should go on.
    #[must_use]
    pub fn held(&self) -> Option<&'static str> {
        self.members.iter().find_map(|m| m.held)
    }

    /// How long all of it stood still, when it goes on already.
    #[must_use]
    pub fn thawed(&self) -> Option<Duration> {
        self.members.last().and_then(Remote::thawed)
    }

    /// What a copy lacks.
    #[must_use]
    pub fn lacking(&self) -> Option<&'static str> {
        self.members.iter().find_map(|m| m.lacking)
    }

    /// What a filter has to say against the save.
    ///
    /// # Errors
    /// A call was not made.
    pub fn check_withheld(&self) -> Result<()> {
        self.members.iter().flat_map(|member| &member.chains).try_for_each(|chain| chain.check_withheld())
    }

    /// Whether a signal that asked for the end waits for one of them, and is withheld.
    #[must_use]
    pub fn has_withheld(&self) -> bool {
        self.members.iter().any(Remote::has_withheld)
    }

    /// Whether all copies are still there.
    #[must_use]
    pub fn copies_live(&self) -> bool {
        self.members.iter().all(Remote::copy_lives)
    }

    /// All of the copies has been read, and written as an image of so many bytes: they end while that is made durable.
    pub fn end_copies(&mut self, bytes: u64) {
        self.members.iter_mut().for_each(|member| member.end_copy(bytes));
    }

    /// Lets all go on, or ends them; what keeps connections from others' packets from now on.
    ///
    /// # Errors
    /// One has ended during the save.
    pub fn finish(mut self, kill: bool) -> Result<Option<Shielded>> {
        let (mut result, mut shielded) = (Ok(()), None);
        if kill {
            self.leave_sockets();
        }
        let is_here = is_told_of(&self);
        // Whichever of them is the last to have a connection.
        if let Some(connections) = self.member_mut(0).connections.as_mut().filter(|_| kill) {
            shielded = connections.raise(is_here);
            connections.silence();
        }
        // Children first: who ends with its parent must not do so under our hands.
        for member in self.members.into_iter().rev() {
            // All of them, whatever came of the others.
            result = result.and(member.finish(kill));
        }
        result.map(|()| shielded)
    }

    /// Lets the addresses of sockets be free as soon as all have ended. What does not work here, the restart waits for.
    fn leave_sockets(&self) {
        let mut listeners: HashMap<u16, Vec<Address>> = HashMap::new();
        for (fd, how) in &self.left {
            let Ok(own) = self.borrow(*fd as Fd) else { continue };
            let _ = leave::one(own.fd(), *how);
            if *how == Leaving::Clearing {
                let at = Address::read(own.fd(), false);
                listeners.entry(at.port()).or_default().push(at);
            }
        }
        if !listeners.is_empty() && is_told_of(self) {
            let on_port = |at: &Address| listeners.get(&at.port()).map(Vec::as_slice).unwrap_or_default();
            let _ = leave::clear(|at| on_port(at).iter().any(|listener| leave::listens_for(listener, at)));
        }
    }

    /// A copy of each: all of the same moment, or none.
    fn copies(&mut self) -> Result<Vec<(i32, i32)>, &'static str> {
        let mut made = Vec::new();
        // If one of several cannot be copied, all stand still, and are asked further.
        let last = self.members.len() == 1;
        for member in &mut self.members {
            match member.make_copy(last) {
                Ok(copy) => made.push(copy),
                Err(why) => {
                    made.into_iter().for_each(|(pid, _)| copy::end(pid));
                    return Err(why);
                }
            }
        }
        Ok(made)
    }
}

impl Inside for StoppedTree {
    fn prefetch(&mut self, questions: &[Question]) {
        self.member_mut(self.entered).prefetch(questions);
    }

    unsafe fn call(&mut self, number: Sysno, mut args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let mut place = self.entered;
        let [Arg::Value(first), ..] = &mut args else {
            // SAFETY: the caller vouches for the call.
            return unsafe { self.member_mut(place).call(number, args, data) };
        };
        if target::OF_DESCRIPTORS.contains(&number) {
            (place, *first) = (*first >> FD_BITS, *first & FD_MASK as usize);
            if place >= self.members.len() {
                // SAFETY: as above.
                return unsafe { state::Here.call(number, args, data) };
            }
        } else if number == Sysno::mincore {
            let (whose, at) = self.place_of(*first as u64);
            (place, *first) = (whose, at as usize);
        }
        // SAFETY: as above.
        unsafe { self.member_mut(place).call(number, args, data) }
    }
}

impl Target for StoppedTree {
    const IN_PROCESS: bool = false;

    fn pid(&self) -> i32 {
        self.own().pid()
    }

    fn proc(&self) -> Fd {
        self.own().proc()
    }

    fn memory_proc(&self) -> Fd {
        self.own().memory_proc()
    }

    fn processes(&self) -> usize {
        self.members.len()
    }

    fn takes_children(&self) -> bool {
        true
    }

    fn reads_filters(&self) -> bool {
        true
    }

    fn enter(&mut self, place: usize) {
        self.entered = place;
    }

    fn proc_of(&self, place: usize) -> Fd {
        match self.own.as_ref().filter(|_| place >= self.members.len()) {
            Some(own) => own.fd(),
            None => self.member(place).proc(),
        }
    }

    fn adopt(&mut self, own: Owned) -> sys::Result<Option<u32>> {
        /// Numbers below are those of standard input, output and error, which lead elsewhere.
        const LEAST: Fd = 64;
        if self.own.is_none() {
            self.own = Some(sys::fs::open(c"/proc/self", sys::abi::O_DIRECTORY, 0)?);
        }
        // In the table they ascend.
        let least = self.adopted.last().map_or(LEAST, |last| last.fd() + 1);
        let kept = match sys::fs::dup_above(own.fd(), least) {
            Err(Errno::EMFILE | Errno::EINVAL) => {
                let limit = sys::process::rlimit(sys::abi::RLIMIT_NOFILE)?;
                let raised = sys::abi::Rlimit { soft: limit.hard, hard: limit.hard };
                sys::process::set_rlimit(sys::abi::RLIMIT_NOFILE, &raised)?;
                sys::fs::dup_above(own.fd(), least)?
            }
            kept => kept?,
        };
        // SAFETY: the duplicate that was just made.
        self.adopted.push(unsafe { Owned::new(kept) });
        Ok(Some((self.members.len() as u32) << FD_BITS | kept as u32))
    }

    fn address(&self, addr: u64) -> u64 {
        addr | (self.entered as u64 + 1) << ADDRESS_BITS
    }

    fn is_live(&self) -> bool {
        self.own().is_live()
    }

    fn hold(&mut self, why: &'static str) {
        self.members.iter_mut().for_each(|member| member.hold(why));
    }

    fn copy_ahead(&mut self) {
        // One of several may have to wait for what another does.
        if let [alone] = &mut *self.members {
            alone.copy_ahead();
        }
    }

    fn shares_any(&self) -> bool {
        self.own().shares_any()
    }

    fn locks_memory(&self) -> Option<bool> {
        self.own().locks_memory()
    }

    fn thaw(&mut self) -> Result<()> {
        if self.is_live() {
            match self.members.iter_mut().try_for_each(Remote::read_apart).and_then(|()| self.copies()) {
                Ok(copies) => {
                    self.members.iter_mut().zip(&copies).for_each(|(member, copy)| member.read_lacking(copy.0));
                    self.members.iter_mut().for_each(Remote::goes_on);
                    self.members.iter_mut().zip(copies).try_for_each(|(member, copy)| member.take_copy(copy))?;
                }
                Err(why) => self.members.iter_mut().for_each(|member| member.held = Some(why)),
            }
        }
        self.members.iter().try_for_each(Remote::is_there)
    }

    fn tid_here(&self, tid: i32) -> i32 {
        self.own().tid_here(tid)
    }

    fn stands_in(&self, range: &Range<u64>) -> bool {
        self.own().stands_in(range)
    }

    fn smaps(&self) -> sys::Result<Owned> {
        self.own().smaps()
    }

    fn is_copy(&self) -> bool {
        self.own().is_copy()
    }

    fn is_ours(&self, _: Fd) -> bool {
        false
    }

    fn our_memory(&self) -> Range<u64> {
        self.own().our_memory()
    }

    fn same_description(&self, a: Fd, b: Fd) -> Option<bool> {
        let borrowed = || sys::fs::same_own(self.borrow(a).ok()?.fd(), self.borrow(b).ok()?.fd());
        sys::fs::same_description_between(self.holder(a), self.holder(b)).or_else(borrowed)
    }

    fn order_of_descriptions(&self, a: Fd, b: Fd) -> Option<Ordering> {
        sys::fs::order_of_descriptions(self.holder(a), self.holder(b))
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        let borrowed = || sys::fs::same_own(own, self.borrow(fd).ok()?.fd());
        sys::fs::same_description_between((sys::process::pid(), own), self.holder(fd)).or_else(borrowed)
    }

    fn carries_files(&self) -> state::WithFiles {
        self.own().with_files
    }

    fn inner_id(&self, pid: i32) -> Option<i32> {
        let living = self.members.iter().map(|member| (member.outer(), member.pid()));
        living.chain(self.ended.iter().copied()).find(|(outer, _)| *outer == pid).map(|(_, inner)| inner)
    }

    fn resets_connections(&self) -> bool {
        self.own().reset_tcp
    }

    fn keeps_connections(&self) -> bool {
        self.member(0).keeps_connections()
    }

    fn keep_connection(&mut self, own: Owned) -> sys::Result<()> {
        self.member_mut(0).keep_connection(own)
    }

    fn shield(&mut self) -> Option<Name> {
        self.member_mut(0).connections.as_mut().and_then(Connections::name)
    }

    fn leave(&mut self, fd: u32, how: Leaving) {
        self.left.push((fd, how));
    }

    unsafe fn guarded<R>(&mut self, undo: impl FnOnce(), act: impl FnOnce() -> R) -> sys::Result<R> {
        // SAFETY: the caller vouches.
        unsafe { connections::guarded(undo, act) }
    }

    fn order_of_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<Ordering> {
        sys::fs::order_of_watched(self.holder(epoll), number, nth, self.holder(fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        match self.whose(fd) {
            (Some(whose), fd) => whose.borrow(fd),
            (None, fd) => sys::fs::duplicate(fd),
        }
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        let (place, addr) = self.place_of(addr);
        self.members.get(place).ok_or(Errno::EFAULT)?.read_memory(addr, to)
    }

    fn read_file_pages(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        self.own().read_file_pages(addr, to)
    }
}
