//! Sockets: families, options, messages (socket.h, in.h, tcp.h, netlink.h, unix_diag.h).

pub const AF_UNIX: u32 = 1;
pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const AF_NETLINK: u32 = 16;
pub const AF_PACKET: u32 = 17;
pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const SOCK_SEQPACKET: u32 = 5;
pub const SOCK_NONBLOCK: u32 = 0o4000;
pub const SOCK_CLOEXEC: u32 = 0o2_000_000;
pub const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_ICMPV6: u32 = 58;
pub const IPPROTO_UDPLITE: u32 = 136;
pub const IPPROTO_MPTCP: u32 = 262;

pub const SOL_SOCKET: u32 = 1;
pub const SO_REUSEADDR: u32 = 2;
pub const SO_ERROR: u32 = 4;
pub const SO_LINGER: u32 = 13;
pub const SO_REUSEPORT: u32 = 15;
pub const SO_PASSCRED: u32 = 16;
pub const SO_PEERCRED: u32 = 17;
pub const SO_RCVLOWAT: u32 = 18;
pub const TCP_DEFER_ACCEPT: u32 = 9;
pub const SO_TYPE: u32 = 3;
pub const SO_SNDBUF: u32 = 7;
pub const SO_RCVBUF: u32 = 8;
pub const SO_ATTACH_FILTER: u32 = 26;
pub const SO_GET_FILTER: u32 = 26;
pub const SO_DETACH_FILTER: u32 = 27;
pub const SO_SNDBUFFORCE: u32 = 32;
pub const SO_RCVBUFFORCE: u32 = 33;
pub const SO_ACCEPTCONN: u32 = 30;
pub const SO_PROTOCOL: u32 = 38;
pub const SO_DOMAIN: u32 = 39;
pub const SO_PEEK_OFF: u32 = 42;
pub const SO_OOBINLINE: u32 = 10;
/// Linux 5.14: which buffer sizes the program has set.
pub const SO_BUF_LOCK: u32 = 72;
pub const SOL_TCP: u32 = 6;
pub const TCP_INFO: u32 = 11;
pub const TCP_ULP: u32 = 31;
pub const TCP_ZEROCOPY_RECEIVE: u32 = 35;
pub const SOL_PACKET: u32 = 263;
pub const PACKET_ADD_MEMBERSHIP: u32 = 1;
pub const SOL_NETLINK: u32 = 270;
pub const NETLINK_ADD_MEMBERSHIP: u32 = 1;
pub const NETLINK_LIST_MEMBERSHIPS: u32 = 9;
pub const NETLINK_ROUTE: u32 = 0;
pub const NETLINK_SOCK_DIAG: u32 = 4;
pub const NETLINK_AUDIT: u32 = 9;
pub const NETLINK_KOBJECT_UEVENT: u32 = 15;
pub const NETLINK_GENERIC: u32 = 16;

pub const SCM_RIGHTS: u32 = 1;
pub const SCM_CREDENTIALS: u32 = 2;
pub const SCM_PIDFD: u32 = 4;
/// Most instructions of a packet filter.
pub const BPF_MAXINSNS: usize = 4096;
/// Most descriptors in one message.
pub const SCM_MAX_FD: usize = 253;
pub const MSG_PEEK: usize = 2;
pub const MSG_CTRUNC: usize = 8;
pub const MSG_TRUNC: usize = 0x20;
pub const MSG_DONTWAIT: usize = 0x40;
pub const MSG_NOSIGNAL: usize = 0x4000;
pub const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
pub const SIOCOUTQ: usize = 0x5411;
/// `SIOCPROTOPRIVATE`: opens the file that a Unix socket is bound to.
pub(crate) const SIOCUNIXFILE: usize = 0x89e0;
pub const SIOCOUTQNSD: usize = 0x894b;

pub const POLLRDHUP: u16 = 0x2000;

/// Bytes of the longest socket address.
pub const ADDRESS_MAX: usize = 128;

/// States of sockets (tcp_states.h), of all families.
pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_SYN_SENT: u32 = 2;
pub const TCP_SYN_RECV: u32 = 3;
pub const TCP_FIN_WAIT1: u32 = 4;
pub const TCP_FIN_WAIT2: u32 = 5;
pub const TCP_TIME_WAIT: u32 = 6;
pub const TCP_CLOSE: u32 = 7;
pub const TCP_CLOSE_WAIT: u32 = 8;
pub const TCP_LAST_ACK: u32 = 9;
pub const TCP_LISTEN: u32 = 10;
pub const TCP_CLOSING: u32 = 11;

/// `struct msghdr`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Msghdr {
    pub name: usize,
    pub namelen: usize,
    pub iov: usize,
    pub iovlen: usize,
    pub control: usize,
    pub controllen: usize,
    pub flags: usize,
}
static_assertions::const_assert_eq!(size_of::<Msghdr>(), 56);
