//! Signals: signal.h, siginfo.h, ucontext.h, sigcontext.h.

use static_assertions::const_assert_eq;

pub const SIGHUP: i32 = 1;
pub const SIGINT: i32 = 2;
pub const SIGQUIT: i32 = 3;
pub const SIGTRAP: i32 = 5;
pub const SIGKILL: i32 = 9;
pub const SIGSYS: i32 = 31;
pub const SIGUSR1: i32 = 10;
pub const SIGSEGV: i32 = 11;
pub const SIGUSR2: i32 = 12;
pub const SIGTERM: i32 = 15;
pub const SIGCHLD: i32 = 17;
pub const SIGCONT: i32 = 18;
pub const SIGSTOP: i32 = 19;
pub const SIGTSTP: i32 = 20;
pub const SIGTTIN: i32 = 21;
pub const SIGTTOU: i32 = 22;
pub const SIGXFSZ: i32 = 25;
pub const SIGURG: i32 = 23;
pub const SIGWINCH: i32 = 28;
pub const NSIG: i32 = 64;

pub const SIG_DFL: usize = 0;
pub const SIG_IGN: usize = 1;
pub const SA_SIGINFO: u64 = 4;
pub const SA_RESTORER: u64 = 0x0400_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;
pub const SIG_BLOCK: usize = 0;
pub const SIG_UNBLOCK: usize = 1;
pub const SIG_SETMASK: usize = 2;
pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 128;
pub const SI_QUEUE: i32 = -1;
pub const SI_TKILL: i32 = -6;
pub const SS_ONSTACK: i32 = 1;
pub const SS_DISABLE: i32 = 2;

/// `struct kernel_sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sigaction {
    pub handler: usize,
    pub flags: u64,
    pub restorer: usize,
    pub mask: u64,
}
const_assert_eq!(size_of::<Sigaction>(), 32);

/// `stack_t`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Altstack {
    pub sp: usize,
    pub flags: i32,
    pub pad: u32,
    pub size: usize,
}
const_assert_eq!(size_of::<Altstack>(), 24);

/// `siginfo_t`: the head that all share, the rest as it comes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Siginfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    /// For `SI_QUEUE` and its like.
    pub pid: i32,
    pub uid: u32,
    pub value: u64,
    pub rest: [u64; 12],
}
const_assert_eq!(size_of::<Siginfo>(), 128);

impl Siginfo {
    /// All zeros.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self { signo: 0, errno: 0, code: 0, pad: 0, pid: 0, uid: 0, value: 0, rest: [0; 12] }
    }
}

/// `struct signalfd_siginfo`: what a read of a signalfd gives.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SignalfdInfo {
    pub signo: u32,
    pub errno: i32,
    pub code: i32,
    pub pid: u32,
    pub uid: u32,
    pub fd: i32,
    pub tid: u32,
    pub band: u32,
    pub overrun: u32,
    pub trapno: u32,
    pub status: i32,
    pub int: i32,
    pub ptr: u64,
    pub utime: u64,
    pub stime: u64,
    pub addr: u64,
    pub rest: [u64; 6],
}
const_assert_eq!(size_of::<SignalfdInfo>(), 128);

/// `struct sigcontext` of x86_64: the registers in a signal frame.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sigcontext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    /// Address of the FXSAVE or XSAVE area; 0 when the thread had not used it.
    pub fpstate: u64,
    pub reserved: [u64; 8],
}
const_assert_eq!(size_of::<Sigcontext>(), 256);

/// `struct ucontext`: what a handler's third argument points to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ucontext {
    pub flags: u64,
    pub link: u64,
    pub stack: Altstack,
    pub mcontext: Sigcontext,
    pub sigmask: u64,
}
const_assert_eq!(size_of::<Ucontext>(), 304);

impl Ucontext {
    /// Its bytes, as they lie in a frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: plain numbers without gaps.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

/// `FP_XSTATE_MAGIC1`, at byte 464 of the FXSAVE area when an XSAVE area follows.
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`, behind the XSAVE area.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// The trap flag: a single step.
pub const EFLAGS_TF: u64 = 0x100;

// uc_flags.
pub const UC_FP_XSTATE: u64 = 1;
pub const UC_SIGCONTEXT_SS: u64 = 2;
pub const UC_STRICT_RESTORE_SS: u64 = 4;
