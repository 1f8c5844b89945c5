//! Commands of fcntl(2) and requests of ioctl(2), of types that say what the kernel does with the argument.
//!
//! Must never give a number that writes to memory the type of one that does not: these types are why the calls are safe.

/// A command of fcntl(2) that takes a number, or nothing, and touches no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberCommand(pub(crate) usize);

impl NumberCommand {
    /// The command's number, for a call that is made elsewhere.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0
    }
}

/// A command of fcntl(2) that sets a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockCommand(pub(crate) usize);

// fcntl.h
pub const F_DUPFD_CLOEXEC: NumberCommand = NumberCommand(1030);
pub const F_DUPFD_QUERY: NumberCommand = NumberCommand(1027);
pub const F_GETFD: NumberCommand = NumberCommand(1);
pub const F_GETFL: NumberCommand = NumberCommand(3);
pub const F_SETFL: NumberCommand = NumberCommand(4);
pub const F_SETLK: LockCommand = LockCommand(6);
pub const F_OFD_SETLK: LockCommand = LockCommand(37);
pub const F_SETOWN: NumberCommand = NumberCommand(8);
pub const F_SETSIG: NumberCommand = NumberCommand(10);
pub const F_GETSIG: NumberCommand = NumberCommand(11);
pub const F_SETLEASE: NumberCommand = NumberCommand(1024);
pub const F_GETLEASE: NumberCommand = NumberCommand(1025);
pub const F_SETPIPE_SZ: NumberCommand = NumberCommand(1031);
pub const F_GETPIPE_SZ: NumberCommand = NumberCommand(1032);
pub const F_ADD_SEALS: NumberCommand = NumberCommand(1033);
pub const F_GET_SEALS: NumberCommand = NumberCommand(1034);

/// A request to a terminal that reads at most [`TERMIOS_LEN`](super::TERMIOS_LEN) bytes, and writes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control(usize);

impl Control {
    /// The request's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// The request with this number, if there is one that a step of an image may have.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        [TCSETS, TIOCSWINSZ, TIOCPKT, TIOCSPTLCK, TIOCEXCL, TIOCSCTTY].into_iter().find(|one| one.number() == number)
    }
}

/// A request to a terminal that writes at most [`TERMIOS_LEN`](super::TERMIOS_LEN) bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask(usize);

impl Ask {
    /// The request's number.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0
    }
}

// ioctls.h
pub const TCGETS: Ask = Ask(0x5401);
pub const TCSETS: Control = Control(0x5402);
pub const TIOCSCTTY: Control = Control(0x540e);
pub const TIOCGPGRP: Ask = Ask(0x540f);
pub const TIOCSPGRP: Control = Control(0x5410);
pub const TIOCGWINSZ: Ask = Ask(0x5413);
pub const TIOCGSID: Ask = Ask(0x5429);
pub const TIOCSWINSZ: Control = Control(0x5414);
pub const TIOCPKT: Control = Control(0x5420);
pub const TIOCGPTN: Ask = Ask(0x8004_5430);
pub const TIOCSPTLCK: Control = Control(0x4004_5431);
pub const TIOCGPKT: Ask = Ask(0x8004_5438);
pub const TIOCGPTLCK: Ask = Ask(0x8004_5439);
pub const TIOCGEXCL: Ask = Ask(0x8004_5440);
pub(crate) const TIOCGPTPEER: usize = 0x5441;
pub(crate) const TCXONC: usize = 0x540a;
pub const TIOCGETD: Ask = Ask(0x5424);
pub const TIOCEXCL: Control = Control(0x540c);
pub const TIOCNXCL: Control = Control(0x540d);
