//! io_uring.h.

pub const OFF_SQ_RING: u64 = 0;
pub const OFF_SQES: u64 = 0x1000_0000;
pub const SETUP_IOPOLL: u32 = 1;
pub const SETUP_CQSIZE: u32 = 1 << 3;
pub const SETUP_SUBMIT_ALL: u32 = 1 << 7;
pub const SETUP_TASKRUN_FLAG: u32 = 1 << 9;
pub const SETUP_SQE128: u32 = 1 << 10;
pub const SETUP_CQE32: u32 = 1 << 11;
pub const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
pub const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
pub const SETUP_NO_SQARRAY: u32 = 1 << 16;
pub const ENTER_GETEVENTS: usize = 1;
pub const ENTER_EXT_ARG: usize = 1 << 3;
pub const ENTER_REGISTERED_RING: usize = 1 << 4;
/// `IO_RINGFD_REG_MAX`.
pub const REGISTERED_RINGS: usize = 16;
pub const REGISTER_EVENTFD: usize = 4;
pub const REGISTER_RESTRICTIONS: usize = 11;
pub const REGISTER_PBUF_RING: usize = 22;
/// Linux 6.8.
pub const REGISTER_PBUF_STATUS: usize = 26;
