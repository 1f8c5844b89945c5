//! Several processes as one target: numbers of descriptors tell whose they are, all else is asked of the one that is entered.
//!
//! Must never let one of them go on before all can.

use core::ops::Range;
use std::time::Duration;
use std::vec::Vec;

use image_format::record::process::{FD_BITS, FD_MASK};
use state::{Arg, Inside, Question, Result, Target};
use sys::fs::{Fd, Owned};
use sys::{Errno, Sysno};

use super::copy;
use super::target::Remote;

/// Bits of an address; those above tell whose it is, counted from 1.
const ADDRESS_BITS: u32 = 48;

/// Calls whose first argument is a descriptor's number, of those that the objects make.
pub const OF_DESCRIPTORS: [Sysno; 5] = [Sysno::ioctl, Sysno::fcntl, Sysno::timerfd_gettime, Sysno::read, Sysno::write];

/// Processes that stand still, the root first.
#[derive(Debug)]
pub struct Family {
    members: Vec<Remote>,
    entered: usize,
    /// Ids of those that have ended and wait for their parents: ours, and their own.
    ended: Vec<(i32, i32)>,
}

impl Family {
    /// `members` has one at least.
    #[must_use]
    pub fn new(members: Vec<Remote>, ended: Vec<(i32, i32)>) -> Self {
        Self { members, entered: 0, ended }
    }

    fn own(&self) -> &Remote {
        self.member(self.entered)
    }

    #[allow(clippy::indexing_slicing, reason = "there is a root, and a place beyond the last is nobody's")]
    fn member(&self, place: usize) -> &Remote {
        self.members.get(place).unwrap_or(&self.members[0])
    }

    #[allow(clippy::indexing_slicing, reason = "as above")]
    fn member_mut(&mut self, place: usize) -> &mut Remote {
        let place = if place < self.members.len() { place } else { 0 };
        &mut self.members[place]
    }

    /// Whose descriptor it is, with its number there.
    fn whose(&self, fd: Fd) -> (&Remote, Fd) {
        (self.member((fd as u32 >> FD_BITS) as usize), (fd as u32 & FD_MASK) as Fd)
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
    pub fn objection(&self) -> Result<()> {
        self.members.iter().flat_map(|member| &member.judges).try_for_each(|judge| judge.objection())
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

    /// Lets all go on, or ends them.
    ///
    /// # Errors
    /// One has ended during the save.
    pub fn finish(mut self, kill: bool) -> Result<()> {
        let mut result = Ok(());
        // Whichever of them is the last to have a connection.
        if let Some(connections) = self.member_mut(0).connections.as_mut().filter(|_| kill) {
            connections.silence();
        }
        // Children first: who ends with its parent must not do so under our hands.
        for member in self.members.into_iter().rev() {
            // All of them, whatever came of the others.
            result = result.and(member.finish(kill));
        }
        result
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

impl Inside for Family {
    fn foresee(&mut self, questions: &[Question]) {
        self.member_mut(self.entered).foresee(questions);
    }

    fn call(&mut self, number: Sysno, mut args: [Arg; 6], data: &mut [u8]) -> sys::Result<usize> {
        let mut place = self.entered;
        let [Arg::Value(first), ..] = &mut args else { return self.member_mut(place).call(number, args, data) };
        if OF_DESCRIPTORS.contains(&number) {
            (place, *first) = (*first >> FD_BITS, *first & FD_MASK as usize);
        } else if number == Sysno::mincore {
            let (whose, at) = self.place_of(*first as u64);
            (place, *first) = (whose, at as usize);
        }
        self.member_mut(place).call(number, args, data)
    }
}

impl Target for Family {
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
        self.member(place).proc()
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
            match self.copies() {
                Ok(copies) => {
                    self.members.iter_mut().for_each(Remote::goes_on);
                    for (member, copy) in self.members.iter_mut().zip(copies) {
                        member.take_copy(copy)?;
                    }
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
        let ((a, a_fd), (b, b_fd)) = (self.whose(a), self.whose(b));
        sys::fs::same_description_between((a.outer(), a_fd), (b.outer(), b_fd))
    }

    fn is_same(&self, own: Fd, fd: Fd) -> Option<bool> {
        let (whose, fd) = self.whose(fd);
        sys::fs::same_description_between((sys::process::pid(), own), (whose.outer(), fd))
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

    fn is_watched(&self, epoll: Fd, number: u32, nth: u32, fd: Fd) -> Option<bool> {
        let ((epoll, set), (whose, fd)) = (self.whose(epoll), self.whose(fd));
        sys::fs::is_watched((epoll.outer(), set), number, nth, (whose.outer(), fd))
    }

    fn borrow(&self, fd: Fd) -> sys::Result<Owned> {
        let (whose, fd) = self.whose(fd);
        whose.borrow(fd)
    }

    fn read_memory(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        let (place, addr) = self.place_of(addr);
        self.members.get(place).ok_or(Errno::EFAULT)?.read_memory(addr, to)
    }

    fn read_file_pages(&self, addr: u64, to: &mut [u8]) -> sys::Result<()> {
        self.own().read_file_pages(addr, to)
    }
}
