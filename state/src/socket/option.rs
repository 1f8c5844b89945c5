//! Options: those in which a socket differs from one that was just made. One table for all families.

use sys::Errno;
use sys::abi::net::{
    SO_BUF_LOCK, SO_GET_FILTER, SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE, SOL_SOCKET, SOL_TCP, TCP_ULP,
};
use sys::fs::Fd;
use sys::socket::{number, option, set_option};

use image_format::record::socket::Step;

use super::{One, Role, Steps, refuse};
use crate::{Result, Target};

/// Bytes of the longest value.
const ROOM: usize = 256;

/// Options that are read and set in the same form, by level.
const OPTIONS: [(u32, &[u8]); 7] = [
    // DEBUG REUSEADDR DONTROUTE BROADCAST KEEPALIVE OOBINLINE NO_CHECK LINGER REUSEPORT PASSCRED RCVLOWAT RCVTIMEO
    // SNDTIMEO BINDTODEVICE TIMESTAMP PASSSEC TIMESTAMPNS MARK TIMESTAMPING RXQ_OVFL WIFI_STATUS PEEK_OFF NOFCS LOCK_FILTER
    // SELECT_ERR_QUEUE BUSY_POLL MAX_PACING_RATE INCOMING_CPU ZEROCOPY TXTIME TIMESTAMP_NEW TIMESTAMPNS_NEW TIMESTAMPING_NEW
    // PREFER_BUSY_POLL TXREHASH RCVMARK PASSPIDFD RCVPRIORITY PASSRIGHTS
    (
        SOL_SOCKET,
        &[
            1, 2, 5, 6, 9, 10, 11, 13, 15, 16, 18, 20, 21, 25, 29, 34, 35, 36, 37, 40, 41, 42, 43, 44, 45, 46, 47, 49,
            60, 61, 63, 64, 65, 69, 74, 75, 76, 82, 83,
        ],
    ),
    // IP: TOS TTL OPTIONS RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND PASSSEC TRANSPARENT
    // RECVORIGDSTADDR MINTTL NODEFRAG CHECKSUM BIND_ADDRESS_NO_PORT RECVFRAGSIZE RECVERR_RFC4884 MULTICAST_IF MULTICAST_TTL
    // MULTICAST_LOOP MULTICAST_ALL UNICAST_IF LOCAL_PORT_RANGE
    (0, &[1, 2, 4, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33, 34, 49, 50, 51]),
    // IPV6: 2292PKTINFO 2292HOPOPTS 2292DSTOPTS 2292RTHDR 2292HOPLIMIT FLOWINFO
    // UNICAST_HOPS MULTICAST_IF MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY MULTICAST_ALL ROUTER_ALERT_ISOLATE
    // RECVERR_RFC4884 FLOWINFO_SEND RECVPKTINFO RECVHOPLIMIT RECVHOPOPTS HOPOPTS RTHDRDSTOPTS RECVRTHDR RTHDR RECVDSTOPTS
    // DSTOPTS RECVPATHMTU DONTFRAG RECVTCLASS
    // TCLASS AUTOFLOWLABEL ADDR_PREFERENCES MINHOPCOUNT ORIGDSTADDR TRANSPARENT UNICAST_IF RECVFRAGSIZE FREEBIND
    (
        41,
        &[
            2, 3, 4, 5, 8, 11, 16, 17, 18, 19, 23, 25, 26, 29, 30, 31, 33, 49, 51, 53, 54, 55, 56, 57, 58, 59, 60, 62,
            66, 67, 70, 72, 73, 74, 75, 76, 77, 78,
        ],
    ),
    // TCP: NODELAY CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT CONGESTION THIN_LINEAR_TIMEOUTS THIN_DUPACK
    // USER_TIMEOUT FASTOPEN NOTSENT_LOWAT SAVE_SYN FASTOPEN_CONNECT FASTOPEN_KEY FASTOPEN_NO_COOKIE INQ TX_DELAY RTO_MAX_MS
    // RTO_MIN_US DELACK_MAX_US
    (SOL_TCP, &[1, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 18, 23, 25, 27, 30, 33, 34, 36, 37, 44, 45, 46]),
    // UDP: CORK ENCAP NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO
    (17, &[1, 100, 101, 102, 103, 104]),
    // NETLINK: PKTINFO BROADCAST_ERROR NO_ENOBUFS LISTEN_ALL_NSID CAP_ACK EXT_ACK GET_STRICT_CHK
    (270, &[3, 4, 5, 8, 10, 11, 12]),
    // PRIORITY, which IP_TOS changes
    (SOL_SOCKET, &[12]),
];

/// Options of TCP that read differently once connected: MAXSEG WINDOW_CLAMP.
const UNCONNECTED: [u8; 2] = [2, 10];

/// Refuses what cannot be read back.
///
/// # Errors
/// A filter, another protocol on top.
pub fn check<T: Target>(target: &mut T, one: &One, fd: Fd) -> Result<()> {
    let mut name = [0; 16];
    if option(fd, SOL_SOCKET, SO_GET_FILTER, &mut []) != Ok(0) {
        target.blocked(refuse(one, "has a packet filter (SO_ATTACH_FILTER), which cannot be carried", "detach it"))?;
    }
    if option(fd, SOL_TCP, TCP_ULP, &mut name).is_ok_and(|len| len != 0 && name != [0; 16]) {
        let why = "has another protocol on top (TCP_ULP), which cannot be carried";
        target.blocked(refuse(one, why, "close it before the save"))?;
    }
    Ok(())
}

/// Steps for all options in which a socket differs from `fresh`, or from the listener that it inherits from.
///
/// # Errors
/// No room.
pub fn save<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, fd: Fd, fresh: Fd, from: Option<Fd>) -> Result<()> {
    let unconnected: &[u8] =
        if one.is_tcp() && (one.is(Role::Plain) || one.is(Role::Listens)) { &UNCONNECTED } else { &[] };
    let all = OPTIONS.iter().map(|(level, names)| (*level, *names)).chain([(SOL_TCP, unconnected)]);
    for (level, names) in all {
        for name in names.iter().map(|name| u32::from(*name)) {
            let (mut is, mut was) = ([0; ROOM], [0; ROOM]);
            let Ok(len) = option(fd, level, name, &mut is) else { continue };
            let Ok(old) = option(from.unwrap_or(fresh), level, name, &mut was) else { continue };
            let Some(value) = is.get(..len).filter(|_| len != old || is != was) else { continue };
            // What a new one does not take either is no wish of the program's, but follows from something else.
            if matches!(set_option(fresh, level, name, value), Ok(()) | Err(Errno::EPERM | Errno::EACCES)) {
                steps.push(one.id, Step::Option, (level, name), value)?;
            }
        }
    }
    buffers(steps, one, fd)
}

/// Sizes of buffers, where the program has set them. (The kernel tells twice what was asked for.)
fn buffers<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, fd: Fd) -> Result<()> {
    let locked = number(fd, SOL_SOCKET, SO_BUF_LOCK).unwrap_or(3);
    for (bit, name, force) in [(1, SO_SNDBUF, SO_SNDBUFFORCE), (2, SO_RCVBUF, SO_RCVBUFFORCE)] {
        if locked & bit != 0
            && let Ok(size) = number(fd, SOL_SOCKET, name)
        {
            // More than the limit is for who may: the first call does what the second is not allowed to.
            for (step, name) in [(Step::Option, name), (Step::Wish, force)] {
                steps.push(one.id, step, (SOL_SOCKET, name), &(size / 2).to_le_bytes())?;
            }
        }
    }
    Ok(())
}
