//! Options: those in which a socket differs from one that was just made. One table for all families.

use image_format::record::socket::Step;
use sys::Errno;
use sys::abi::net::{
    BPF_MAXINSNS, SO_ATTACH_FILTER, SO_BUF_LOCK, SO_RCVBUF, SO_RCVBUFFORCE, SO_REUSEADDR, SO_REUSEPORT, SO_SNDBUF,
    SO_SNDBUFFORCE, SOCK_CLOEXEC, SOL_PACKET, SOL_SOCKET, SOL_TCP, TCP_ULP,
};
use sys::fs::{Fd, Owned};
use sys::socket::{number, option, set_option};

use super::one::{One, Role, failed, refuse};
use super::steps::Steps;
use crate::{Result, Target};

/// Bytes of the longest value.
const ROOM: usize = 256;

/// Options that are read and set in the same form, by level.
const OPTIONS: [(u32, &[u8]); 11] = [
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
    // IP: TOS TTL HDRINCL OPTIONS ROUTER_ALERT RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND PASSSEC TRANSPARENT
    // RECVORIGDSTADDR MINTTL NODEFRAG CHECKSUM BIND_ADDRESS_NO_PORT RECVFRAGSIZE RECVERR_RFC4884 MULTICAST_IF MULTICAST_TTL
    // MULTICAST_LOOP MULTICAST_ALL UNICAST_IF LOCAL_PORT_RANGE
    (0, &[1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33, 34, 49, 50, 51]),
    // IPV6: 2292PKTINFO 2292HOPOPTS 2292DSTOPTS 2292RTHDR 2292HOPLIMIT FLOWINFO
    // UNICAST_HOPS MULTICAST_IF MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY MULTICAST_ALL ROUTER_ALERT_ISOLATE
    // RECVERR_RFC4884 FLOWINFO_SEND RECVPKTINFO RECVHOPLIMIT RECVHOPOPTS HOPOPTS RTHDRDSTOPTS RECVRTHDR RTHDR RECVDSTOPTS
    // DSTOPTS RECVPATHMTU DONTFRAG RECVTCLASS
    // TCLASS AUTOFLOWLABEL ADDR_PREFERENCES MINHOPCOUNT ORIGDSTADDR TRANSPARENT UNICAST_IF RECVFRAGSIZE FREEBIND; of raw ones
    // CHECKSUM HDRINCL
    (
        41,
        &[
            2, 3, 4, 5, 7, 8, 11, 16, 17, 18, 19, 23, 25, 26, 29, 30, 31, 33, 36, 49, 51, 53, 54, 55, 56, 57, 58, 59,
            60, 62, 66, 67, 70, 72, 73, 74, 75, 76, 77, 78,
        ],
    ),
    // TCP: NODELAY CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT CONGESTION THIN_LINEAR_TIMEOUTS THIN_DUPACK
    // USER_TIMEOUT FASTOPEN NOTSENT_LOWAT SAVE_SYN FASTOPEN_CONNECT FASTOPEN_KEY FASTOPEN_NO_COOKIE INQ TX_DELAY RTO_MAX_MS
    // RTO_MIN_US DELACK_MAX_US
    (SOL_TCP, &[1, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 18, 23, 25, 27, 30, 33, 34, 36, 37, 44, 45, 46]),
    // UDP: CORK ENCAP NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO
    (17, &[1, 100, 101, 102, 103, 104]),
    // UDPLITE: SEND_CSCOV RECV_CSCOV; RAW and ICMPV6: FILTER
    (136, &[10, 11]),
    (255, &[1]),
    (58, &[1]),
    // PACKET: AUXDATA ORIGDEV VERSION RESERVE LOSS VNET_HDR TIMESTAMP TX_HAS_OFF QDISC_BYPASS IGNORE_OUTGOING VNET_HDR_SZ
    (SOL_PACKET, &[8, 9, 10, 12, 14, 15, 17, 19, 20, 23, 24]),
    // NETLINK: PKTINFO BROADCAST_ERROR NO_ENOBUFS LISTEN_ALL_NSID CAP_ACK EXT_ACK GET_STRICT_CHK
    (270, &[3, 4, 5, 8, 10, 11, 12]),
    // PRIORITY, which IP_TOS changes
    (SOL_SOCKET, &[12]),
];

/// Options of TCP that read differently once connected: MAXSEG WINDOW_CLAMP.
const UNCONNECTED: [u8; 2] = [2, 10];

/// Options that decide which addresses a socket can have, and are handed on to those that it accepts: FREEBIND TRANSPARENT; of IPv6
/// V6ONLY TRANSPARENT FREEBIND.
const EARLY: [(u32, &[u8]); 2] = [(0, &[15, 19]), (41, &[26, 75, 78])];

/// Options of TCP that a connected socket does not take any more: FASTOPEN SAVE_SYN FASTOPEN_CONNECT FASTOPEN_KEY.
const CLOSED: [(u32, &[u8]); 1] = [(SOL_TCP, &[23, 27, 30, 33])];

fn is_in(list: &[(u32, &[u8])], (level, name): (u32, u32)) -> bool {
    list.iter().any(|(in_level, names)| *in_level == level && names.iter().any(|one| u32::from(*one) == name))
}

/// Refuses what cannot be read back.
///
/// # Errors
/// A filter, another protocol on top.
pub fn check<T: Target>(target: &mut T, one: &One, fd: Fd) -> Result<()> {
    let mut name = [0; 16];
    if sys::socket::filter_len(fd) == Err(Errno::EACCES) {
        target.blocked(refuse(
            one,
            "has a packet filter of eBPF (SO_ATTACH_BPF), which cannot be carried",
            "detach it",
        ))?;
    }
    if option(fd, SOL_TCP, TCP_ULP, &mut name).is_ok_and(|len| len != 0 && name != [0; 16]) {
        let why = "has another protocol on top (TCP_ULP), which cannot be carried";
        target.blocked(refuse(one, why, "close it before the save"))?;
    }
    Ok(())
}

/// A step for the packet filter, in front of the option that locks it.
fn filter<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    let own = steps.borrow(one)?;
    // Not all families have such. That of a connection which is held is the saver's.
    let len = match sys::socket::filter_len(own.fd()) {
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::EINVAL) => 0,
        len => len.map_err(failed(one, "has a packet filter that cannot be read"))?,
    };
    if len == 0 || one.is(Role::Kept) {
        return Ok(());
    }
    let program = steps.save.scratch.bytes(8 * len.min(BPF_MAXINSNS))?;
    let read = sys::socket::filter(own.fd(), program.as_chunks_mut::<8>().0);
    read.map_err(failed(one, "has a packet filter that cannot be read"))?;
    steps.push(one.id, Step::Filter, (SOL_SOCKET, SO_ATTACH_FILTER), program)
}

/// Steps for all options of a socket that is not connected, or needs no connection.
///
/// # Errors
/// No room.
pub fn all<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    filter(steps, one)?;
    let own =
        differences(steps, one, OPTIONS.iter(), |steps, which, value| steps.push(one.id, Step::Option, which, value))?;
    buffers(steps, one, own.fd())
}

/// Steps for those that a connected socket must have before it has an address; `to`: the socket that gets them and, if it listens,
/// hands them on.
///
/// # Errors
/// No room.
pub fn early<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One, to: u32) -> Result<()> {
    let put = |steps: &mut Steps<'_, '_, '_, T>, which, value: &[u8]| steps.push(to, Step::Option, which, value);
    differences(steps, one, EARLY.iter(), put).map(drop)
}

/// Steps for all others, behind everything that they could disturb: a least number of hops, a device, a pace.
///
/// # Errors
/// No room.
pub fn late<T: Target>(steps: &mut Steps<'_, '_, '_, T>, one: &One) -> Result<()> {
    filter(steps, one)?;
    let put = |steps: &mut Steps<'_, '_, '_, T>, which, value: &[u8]| {
        let step = if is_in(&CLOSED, which) { Step::Wish } else { Step::Option };
        if is_in(&EARLY, which) { Ok(()) } else { steps.push(one.id, step, which, value) }
    };
    let own = differences(steps, one, OPTIONS.iter(), put)?;
    buffers(steps, one, own.fd())
}

/// Calls `put` with level, name and value of each of these options in which a socket differs from one that was just made. Whether an
/// address may be in use is set apart: see [`super::make`].
fn differences<'l, T: Target>(
    steps: &mut Steps<'_, '_, '_, T>,
    one: &One,
    lists: impl Iterator<Item = &'l (u32, &'l [u8])>,
    mut put: impl FnMut(&mut Steps<'_, '_, '_, T>, (u32, u32), &[u8]) -> Result<()>,
) -> Result<Owned> {
    let own = steps.borrow(one)?;
    let fresh = sys::socket::make(one.family, one.kind | SOCK_CLOEXEC, one.protocol);
    let fresh = fresh.map_err(failed(one, "has no like for comparison"))?;
    let (fd, fresh) = (own.fd(), fresh.fd());
    let unconnected: &[u8] =
        if one.is_tcp() && (one.is(Role::Plain) || one.is(Role::Listens)) { &UNCONNECTED } else { &[] };
    let all = lists.map(|(level, names)| (*level, *names)).chain([(SOL_TCP, unconnected)]);
    for (level, names) in all {
        for name in names.iter().map(|name| u32::from(*name)) {
            let (mut is, mut was) = ([0; ROOM], [0; ROOM]);
            if one.is_inet() && level == SOL_SOCKET && matches!(name, SO_REUSEADDR | SO_REUSEPORT) {
                continue;
            }
            let Some(len) = known(one, option(fd, level, name, &mut is))? else { continue };
            let Some(old) = known(one, option(fresh, level, name, &mut was))? else { continue };
            let Some(value) = is.get(..len).filter(|_| len != old || is != was) else { continue };
            // What a new one does not take either is no wish of the program's, but follows from something else.
            if matches!(set_option(fresh, level, name, value), Ok(()) | Err(Errno::EPERM | Errno::EACCES)) {
                put(steps, (level, name), value)?;
            }
        }
    }
    Ok(own)
}

/// Why a socket does not tell an option: it has none of that name, or not now, or tells it to others.
const UNTOLD: [Errno; 11] = [
    Errno::ENOPROTOOPT,
    Errno::EOPNOTSUPP,
    Errno::EPROTONOSUPPORT,
    Errno::EINVAL,
    Errno::ENOTCONN,
    Errno::ENOENT,
    Errno::ENODATA,
    Errno::EADDRNOTAVAIL,
    Errno::EACCES,
    Errno::EPERM,
    Errno::ENOSYS,
];

/// The length of an option that a socket has.
fn known(one: &One, asked: sys::Result<usize>) -> Result<Option<usize>> {
    match asked {
        Err(e) if UNTOLD.contains(&e) => Ok(None),
        other => other.map(Some).map_err(failed(one, "cannot be examined")),
    }
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
                steps.set(one.id, step, (SOL_SOCKET, name), size / 2)?;
            }
        }
    }
    Ok(())
}
