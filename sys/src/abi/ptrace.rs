//! ptrace(2): include/uapi/linux/ptrace.h, arch/x86/include/asm/user_64.h.

use static_assertions::const_assert_eq;

pub const PTRACE_CONT: usize = 7;
pub const PTRACE_DETACH: usize = 17;
pub const PTRACE_SYSCALL: usize = 24;
pub const PTRACE_SETOPTIONS: usize = 0x4200;
pub const PTRACE_GETEVENTMSG: usize = 0x4201;
pub const PTRACE_GETREGSET: usize = 0x4204;
pub const PTRACE_SETREGSET: usize = 0x4205;
pub const PTRACE_SEIZE: usize = 0x4206;
pub const PTRACE_INTERRUPT: usize = 0x4207;
pub const PTRACE_PEEKSIGINFO: usize = 0x4209;
pub const PTRACE_GETSIGMASK: usize = 0x420a;
pub const PTRACE_SETSIGMASK: usize = 0x420b;
pub const PTRACE_SECCOMP_GET_FILTER: usize = 0x420c;
pub const PTRACE_SECCOMP_GET_METADATA: usize = 0x420d;
pub const PTRACE_GET_RSEQ_CONFIGURATION: usize = 0x420f;

/// Linux 6.4.
pub const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: usize = 0x4211;

pub const PEEKSIGINFO_SHARED: u32 = 1;
pub const PTRACE_O_TRACESYSGOOD: usize = 1;
pub const PTRACE_O_TRACECLONE: usize = 1 << 3;
pub const PTRACE_O_TRACEEXEC: usize = 1 << 4;
/// Stops for `SECCOMP_RET_TRACE`.
pub const PTRACE_O_TRACESECCOMP: usize = 1 << 7;
pub const PTRACE_O_EXITKILL: usize = 1 << 20;
/// No filter is applied to the thread's calls while it is traced: for CAP_SYS_ADMIN in the first user namespace, below no filter.
pub const PTRACE_O_SUSPEND_SECCOMP: usize = 1 << 21;
pub const PTRACE_EVENT_CLONE: i32 = 3;
pub const PTRACE_EVENT_EXEC: i32 = 4;
pub const PTRACE_EVENT_SECCOMP: i32 = 7;
pub const PTRACE_EVENT_STOP: i32 = 128;

pub const NT_PRSTATUS: usize = 1;
pub const NT_X86_XSTATE: usize = 0x202;

/// `__WALL`.
pub const WALL: usize = 0x4000_0000;
pub const WEXITED: usize = 4;
pub const P_PID: usize = 1;

/// Results of an interrupted call that the kernel handles before the program sees them (include/linux/errno.h).
pub const ERESTARTSYS: i64 = 512;
pub const ERESTARTNOINTR: i64 = 513;
pub const ERESTARTNOHAND: i64 = 514;
pub const ERESTART_RESTARTBLOCK: i64 = 516;

/// `struct user_regs_struct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}
const_assert_eq!(size_of::<UserRegs>(), 27 * 8);

/// Length of [`UserRegs`] as a register set.
pub const IO_VEC_LEN: usize = size_of::<UserRegs>();

impl UserRegs {
    /// The registers in the order of the structure.
    #[must_use]
    pub fn words(&self) -> [u64; 27] {
        // SAFETY: 27 numbers of 8 bytes, as the assertion above pins.
        unsafe { core::mem::transmute(*self) }
    }

    /// The registers that lie in this order.
    #[must_use]
    pub fn from_words(words: [u64; 27]) -> Self {
        // SAFETY: as above, and any number is one.
        unsafe { core::mem::transmute(words) }
    }
}

/// `struct ptrace_rseq_configuration`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RseqConfiguration {
    pub area: u64,
    pub len: u32,
    pub signature: u32,
    pub flags: u32,
    pub pad: u32,
}
const_assert_eq!(size_of::<RseqConfiguration>(), 24);
