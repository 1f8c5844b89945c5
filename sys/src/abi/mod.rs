//! Constants and structures of the kernel's interface for x86_64, under the kernel's own names.
//!
//! Sources: include/uapi of Linux 6.18; layouts are pinned. Must never hold a value that differs between kernels.
#![allow(missing_docs, reason = "the kernel's own names, documented in its manual pages")]

pub mod mm;
pub mod net;
pub mod ptrace;
mod requests;
pub mod signal;
pub mod uring;

use static_assertions::const_assert_eq;

pub use requests::*;

// fcntl.h
pub const AT_FDCWD: i32 = -100;
pub const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub const AT_SYMLINK_FOLLOW: usize = 0x400;
pub const AT_REMOVEDIR: u32 = 0x200;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const O_ACCMODE: u32 = 3;
pub const O_RDONLY: u32 = 0;
pub const O_WRONLY: u32 = 1;
pub const O_RDWR: u32 = 2;
pub const O_CREAT: u32 = 0o100;
pub const O_EXCL: u32 = 0o200;
pub const O_NOCTTY: u32 = 0o400;
pub const O_TRUNC: u32 = 0o1000;
pub const O_APPEND: u32 = 0o2000;
pub const O_NONBLOCK: u32 = 0o4000;
pub const O_DIRECTORY: u32 = 0o200_000;
pub const O_NOFOLLOW: u32 = 0o400_000;
pub const O_CLOEXEC: u32 = 0o2_000_000;
pub const O_PATH: u32 = 0o10_000_000;
pub const O_TMPFILE_BIT: u32 = 0o20_000_000;
pub const O_TMPFILE: u32 = O_TMPFILE_BIT | O_DIRECTORY;
pub const O_ASYNC: u32 = 0o20_000;
pub(crate) const F_OFD_GETLK: usize = 36;
pub(crate) const F_GETOWN_EX: usize = 16;
pub(crate) const F_SETOWN_EX: usize = 15;
pub(crate) const FIOASYNC: usize = 0x5452;
pub(crate) const F_GETOWNER_UIDS: usize = 17;
pub const F_OWNER_TID: i32 = 0;
pub const F_OWNER_PID: i32 = 1;
pub const F_OWNER_PGRP: i32 = 2;
pub const FD_CLOEXEC: usize = 1;
pub const F_RDLCK: i16 = 0;
pub const F_WRLCK: i16 = 1;
pub const F_UNLCK: i16 = 2;
pub const LOCK_SH: usize = 1;
pub const LOCK_EX: usize = 2;
pub const LOCK_NB: usize = 4;
pub const SEEK_SET: usize = 0;
pub const SEEK_CUR: usize = 1;

// limits.h: bytes of a path, its NUL among them.
pub const PATH_MAX: usize = 4096;

// stat.h
pub const S_IFMT: u32 = 0o170_000;
pub const S_IFSOCK: u32 = 0o140_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFBLK: u32 = 0o060_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFIFO: u32 = 0o010_000;
pub const S_IFLNK: u32 = 0o120_000;

/// `struct stat`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad0: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub unused: [i64; 3],
}
const_assert_eq!(size_of::<Stat>(), 144);

/// `struct timespec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: i64,
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}

/// `struct itimerval`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Itimerval {
    pub interval: Timeval,
    pub value: Timeval,
}

/// `struct itimerspec`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Itimerspec {
    pub interval: Timespec,
    pub value: Timespec,
}

/// `struct sigevent`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sigevent {
    pub value: u64,
    pub signo: u32,
    pub notify: u32,
    pub tid: u32,
    pub pad: [u32; 11],
}
const_assert_eq!(size_of::<Sigevent>(), 64);
pub const SIGEV_SIGNAL: u32 = 0;
pub const SIGEV_NONE: u32 = 1;
pub const SIGEV_THREAD_ID: u32 = 4;

/// `struct flock`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Flock {
    pub kind: i16,
    pub whence: i16,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
}
const_assert_eq!(size_of::<Flock>(), 32);

/// `struct rlimit64`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Rlimit {
    pub soft: u64,
    pub hard: u64,
}

/// Number of `RLIMIT_*` resources.
pub const RLIM_NLIMITS: u32 = 16;
pub const RLIMIT_DATA: u32 = 2;
pub const RLIMIT_STACK: u32 = 3;
pub const RLIMIT_CORE: u32 = 4;
pub const RLIMIT_NOFILE: u32 = 7;
pub const RLIMIT_MEMLOCK: u32 = 8;
pub const RLIMIT_AS: u32 = 9;
pub const RLIMIT_SIGPENDING: u32 = 11;
pub const RLIM_INFINITY: u64 = u64::MAX;

// sched.h
pub const CLONE_VM: usize = 0x100;
pub const CLONE_FS: usize = 0x200;
pub const CLONE_FILES: usize = 0x400;
pub const CLONE_SIGHAND: usize = 0x800;
pub const CLONE_THREAD: usize = 0x1_0000;
pub const CLONE_SYSVSEM: usize = 0x4_0000;
/// wait.h
pub const P_PID: usize = 1;
pub const WNOHANG: usize = 1;
pub const WSTOPPED: usize = 2;
pub const WEXITED: usize = 4;
pub const WNOWAIT: usize = 0x0100_0000;
pub const WALL: usize = 0x4000_0000;
pub const CLONE_CHILD_CLEARTID: usize = 0x20_0000;

/// `struct clone_args`, up to `set_tid_size` (Linux 5.5).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
}
const_assert_eq!(size_of::<CloneArgs>(), 80);

// prctl.h
pub const PR_GET_DUMPABLE: usize = 3;
pub const PR_SET_DUMPABLE: usize = 4;
pub const PR_SET_KEEPCAPS: usize = 8;
pub const PR_CAPBSET_READ: usize = 23;
pub const PR_CAPBSET_DROP: usize = 24;
pub const PR_SET_SECUREBITS: usize = 28;
pub const PR_CAP_AMBIENT: usize = 47;
pub const PR_CAP_AMBIENT_IS_SET: usize = 1;
pub const PR_CAP_AMBIENT_RAISE: usize = 2;
pub const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
pub const PR_SET_NAME: usize = 15;
pub const PR_SET_PDEATHSIG: usize = 1;
pub const PR_GET_PDEATHSIG: usize = 2;
pub const PR_SET_TIMERSLACK: usize = 29;
pub const PR_GET_TIMERSLACK: usize = 30;
pub const PR_GET_SECCOMP: usize = 21;
pub const PR_SET_MM: usize = 35;
pub const PR_SET_MM_MAP: usize = 14;
pub const PR_GET_CHILD_SUBREAPER: usize = 37;
pub const PR_GET_TID_ADDRESS: usize = 40;
/// Linux 6.15: timer_create(2) takes the id that it finds where it would store it.
pub const PR_TIMER_CREATE_RESTORE_IDS: usize = 77;
pub const PR_SET_VMA: usize = 0x5356_4d41;
pub const PR_SET_VMA_ANON_NAME: usize = 0;
pub const ARCH_SET_GS: usize = 0x1001;
pub const ARCH_SET_FS: usize = 0x1002;
pub const ARCH_GET_FS: usize = 0x1003;
pub const ARCH_GET_GS: usize = 0x1004;
pub const ARCH_SHSTK_STATUS: usize = 0x5005;
pub const ARCH_GET_XCOMP_PERM: usize = 0x1022;
/// The bit of AMX's tiles among the permitted state components.
pub const XTILEDATA: u64 = 1 << 18;

/// `struct prctl_mm_map`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PrctlMmMap {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv: u64,
    pub auxv_size: u32,
    pub exe_fd: i32,
}
const_assert_eq!(size_of::<PrctlMmMap>(), 104);

/// `struct winsize`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Winsize {
    pub rows: u16,
    pub columns: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

/// Bytes of the kernel's `struct termios`.
pub const TERMIOS_LEN: usize = 36;

// eventfd.h, timerfd.h, eventpoll.h
pub const EFD_SEMAPHORE: usize = 1;
pub const TFD_TIMER_ABSTIME: u32 = 1;
pub const TFD_TIMER_CANCEL_ON_SET: u32 = 2;
pub const TFD_IOC_SET_TICKS: usize = 0x4008_5400;
pub const EPOLL_CTL_ADD: usize = 1;
pub const EPOLL_CTL_DEL: usize = 2;
/// Linux 6.9.
pub const EPIOCGPARAMS: usize = 0x8008_8a02;

// fcntl.h, ioctls.h, poll.h, splice.h: of pipes
pub const O_DIRECT: u32 = 0o40_000;
/// `O_LARGEFILE` as the kernel has it: of all that open(2) has opened.
pub const O_LARGEFILE: u32 = 0o100_000;
pub const FIONREAD: usize = 0x541b;
pub const POLLIN: u16 = 1;
pub const POLLPRI: u16 = 2;
pub const POLLOUT: u16 = 4;
pub const POLLERR: u16 = 8;
pub const POLLHUP: u16 = 16;
pub const SPLICE_F_NONBLOCK: usize = 2;

// membarrier, futex
pub const FUTEX_WAIT: usize = 0;
pub const FUTEX_WAKE: usize = 1;

// close_range.h
pub const CLOSE_RANGE_UNSHARE: usize = 2;

// kcmp.h
pub const KCMP_FILE: usize = 0;
pub const KCMP_VM: usize = 1;
pub const KCMP_FILES: usize = 2;
pub const KCMP_FS: usize = 3;
pub const KCMP_SIGHAND: usize = 4;
pub const KCMP_EPOLL_TFD: usize = 7;

// memfd, execveat
pub const MFD_CLOEXEC: usize = 1;
pub const MFD_ALLOW_SEALING: usize = 2;
pub const F_SEAL_SEAL: u32 = 1;
pub const SEEK_DATA: usize = 3;
pub const SEEK_HOLE: usize = 4;
/// `f_type` of tmpfs (linux/magic.h).
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
/// As above, of layers (overlayfs).
pub const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// As above, of huge pages as files.
pub const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// `f_type` of the file system of POSIX message queues (ipc/mqueue.c).
pub const MQUEUE_MAGIC: u64 = 0x1980_0202;

/// `RSEQ_FLAG_UNREGISTER`.
pub const RSEQ_FLAG_UNREGISTER: usize = 1;

/// Clocks (time.h).
pub const CLOCK_REALTIME: usize = 0;
pub const CLOCK_MONOTONIC: usize = 1;
pub const CLOCK_BOOTTIME: usize = 7;
pub const CLOCK_TAI: usize = 11;
pub const CLOCK_REALTIME_ALARM: usize = 8;

/// Auxiliary vector keys (auxvec.h).
pub const AT_NULL: u64 = 0;
pub const AT_SYSINFO_EHDR: u64 = 33;
