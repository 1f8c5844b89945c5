//! Pipes inside the process and event descriptors, for the sample process.

use image_format::Notes;
use image_format::record::descriptor::Descriptor;
use image_format::record::epoll::{Epoll, Watch};
use image_format::record::eventfd::Eventfd;
use image_format::record::header::Features;
use image_format::record::inotify::{Inotify, InotifyWatch};
use image_format::record::io_uring::IoUring;
use image_format::record::memory::{Backing, BackingFlags};
use image_format::record::pidfd::Pidfd;
use image_format::record::pipe::{NONE, Pipe, PipeData};
use image_format::record::signalfd::Signalfd;
use image_format::record::socket::{HELPERS, Socket, SocketStep, Step};
use image_format::record::timerfd::Timerfd;

use super::{Parts, put, zeroed};

/// Their tables.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub eventfds: Vec<Eventfd>,
    pub timers: Vec<Timerfd>,
    pub signalfds: Vec<Signalfd>,
    pub epolls: Vec<Epoll>,
    pub watches: Vec<Watch>,
    pub pipe_data: Vec<PipeData>,
    pub sockets: Vec<Socket>,
    pub steps: Vec<SocketStep>,
    pub inotifies: Vec<Inotify>,
    pub noticed: Vec<InotifyWatch>,
    pub pidfds: Vec<Pidfd>,
    pub rings: Vec<IoUring>,
}

impl Events {
    pub fn put(&self, notes: &mut Notes<'_>) {
        put(notes, &self.eventfds);
        put(notes, &self.timers);
        put(notes, &self.signalfds);
        put(notes, &self.epolls);
        put(notes, &self.watches);
        put(notes, &self.pipe_data);
        put(notes, &self.sockets);
        put(notes, &self.steps);
        put(notes, &self.inotifies);
        put(notes, &self.noticed);
        put(notes, &self.pidfds);
        put(notes, &self.rings);
    }
}

impl Parts {
    /// One of each, as descriptors 7 to 14; a pipe with two packets, and one whose other end is closed.
    pub fn give_events(&mut self) {
        self.header.required = (self.header.required.get() | (Features::INNER_PIPES | Features::EVENTS).bits()).into();
        let name = self.string(b"pipe:[777]");
        for (id, flags, pipe, next) in [(7, 0, 7, 8), (8, 0o40001, 7, NONE), (9, 0o4000, 9, NONE)] {
            let mut end: Pipe = zeroed();
            (end.id, end.flags, end.path) = (id.into(), flags.into(), name);
            (end.pipe, end.next) = (u32::into(pipe), next.into());
            self.pipes.push(end);
        }
        for (pipe, bytes, packet) in [(7, b"\0one".as_slice(), 1), (7, b"two", 1), (9, b"rest", 0)] {
            let mut data: PipeData = zeroed();
            (data.pipe, data.packet, data.bytes) = (u32::into(pipe), u32::into(packet), self.string(bytes));
            data.size = 65536.into();
            self.events.pipe_data.push(data);
        }
        let mut eventfd: Eventfd = zeroed();
        (eventfd.id, eventfd.flags, eventfd.count, eventfd.semaphore) = (10.into(), 0o4002.into(), 3.into(), 1.into());
        self.events.eventfds = vec![eventfd];
        let mut timer: Timerfd = zeroed();
        (timer.id, timer.flags, timer.clock, timer.ticks) = (11.into(), 2.into(), 1.into(), 4.into());
        (timer.value, timer.interval) = ([1.into(), 500_000_000.into()], [2.into(), 0.into()]);
        self.events.timers = vec![timer];
        self.events.signalfds = vec![Signalfd { id: 12.into(), flags: 2.into(), mask: (1 << 9 | 1 << 14).into() }];
        self.events.epolls = [13, 14].map(|id: u32| Epoll { id: id.into(), flags: 2.into() }).to_vec();
        let watch = |epoll: u32, fd: u32, file: u32, events: u32, data: u64| Watch {
            epoll: epoll.into(),
            fd: fd.into(),
            file: file.into(),
            events: events.into(),
            data: data.into(),
        };
        // The third under a number that is closed by now, the last a set in a set.
        self.events.watches = vec![
            watch(13, 7, 7, 0x2019, 7),
            watch(13, 10, 10, 0x8000_0019, 0xdead_beef),
            watch(13, 99, 11, 0x4000_0001, 5),
            watch(14, 13, 13, 0x19, 9),
        ];
        self.descriptors.extend((7..15).map(|n: u32| Descriptor {
            fd: n.into(),
            file: n.into(),
            cloexec: 1.into(),
            reserved: 0.into(),
        }));
    }

    /// An inotify instance with two watches as descriptor 17, a pidfd as 18.
    pub fn give_notices(&mut self) {
        self.header.required = (self.header.required.get() | Features::NOTICES.bits()).into();
        self.events.inotifies = vec![Inotify { id: 17.into(), flags: 0.into() }];
        self.events.pidfds = vec![Pidfd { id: 18.into(), flags: 2.into() }];
        let path = self.cwd[0].path;
        self.events.noticed.extend([3, 70].map(|wd: u32| InotifyWatch {
            inotify: 17.into(),
            wd: wd.into(),
            mask: 0x100.into(),
            reserved: 0.into(),
            path,
        }));
        self.descriptors.extend((17..19).map(|n: u32| Descriptor {
            fd: n.into(),
            file: n.into(),
            cloexec: 0.into(),
            reserved: 0.into(),
        }));
    }

    /// An io_uring instance as descriptor 19, of which nothing is mapped.
    pub fn give_ring(&mut self) {
        self.header.required = (self.header.required.get() | Features::RINGS.bits()).into();
        let mut ring: IoUring = zeroed();
        (ring.id, ring.rings) = (19.into(), self.string(&[0; 4096]));
        self.events.rings = vec![ring];
        let mut backing: Backing = zeroed();
        (backing.path, backing.content) = (self.string(b"anon_inode:[io_uring]"), 19.into());
        backing.flags = BackingFlags::RING.bits().into();
        self.backings.push(backing);
        self.descriptors.push(Descriptor { fd: 19.into(), file: 19.into(), cloexec: 1.into(), reserved: 0.into() });
    }

    /// A listener as descriptor 15, and a pair of which 16 is one; a descriptor waits in it.
    pub fn give_sockets(&mut self) {
        self.header.required = (self.header.required.get() | Features::SOCKETS.bits()).into();
        let name = self.string(b"tcp 127.0.0.1:80");
        for (id, family) in [(15, 2), (16, 1), (HELPERS, 1)] {
            let mut socket: Socket = zeroed();
            (socket.id, socket.name, socket.family, socket.kind) = (id.into(), name, u32::into(family), 1.into());
            self.events.sockets.push(socket);
        }
        let address = self.string(b"\x02\0\0\x50\x7f\0\0\x01\0\0\0\0\0\0\0\0");
        let message = self.string(&[7; 300]);
        let steps = [
            (0, Step::Make, 0, Default::default()),
            (0, Step::Bind, 0, address),
            (0, Step::Listen, 5, Default::default()),
            (1, Step::Pair, 2, Default::default()),
            (1, Step::Right, 15, Default::default()),
            (1, Step::Send, 0, message),
        ];
        self.events.steps.extend(steps.map(|(socket, step, a, bytes)| SocketStep {
            socket: socket.into(),
            step: (step as u32).into(),
            a: u32::into(a),
            b: 0.into(),
            bytes,
        }));
        self.descriptors.extend((15..17).map(|n: u32| Descriptor {
            fd: n.into(),
            file: n.into(),
            cloexec: 0.into(),
            reserved: 0.into(),
        }));
    }
}
