//! Each kind of bad input has its own message and exit code.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::elf::{PF_R, PF_W};
use image_format::record::header::Features;
use image_format::record::shared_file::SharedFile;
use image_format::record::socket::Step;
use image_format::{ExitCode, PAGE, USER_END};
use support::Parts;
use zerocopy::FromZeros;

/// The fault of a file, which must have this exit code and say this.
#[track_caller]
fn faulty(file: &[u8], code: ExitCode, says: &str) {
    let fault = support::check(file).expect_err("a fault");
    assert_eq!(fault.exit_code(), code, "{fault}");
    assert!(fault.to_string().contains(says), "{fault}");
}

/// A sample, changed before it is written: its checksums are right.
#[track_caller]
fn sealed_nonsense(says: &str, change: impl FnOnce(&mut Parts)) {
    let mut parts = Parts::new();
    change(&mut parts);
    let fault = support::check(&parts.image()).expect_err(says);
    assert!(matches!(fault.exit_code(), ExitCode::Malformed | ExitCode::BadAddress), "{fault}");
    assert!(fault.to_string().contains(says), "{fault}");
}

#[test]
fn identity() {
    let image = support::image();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    faulty(&[], ExitCode::Empty, "empty");
    faulty(b"#!/bin/sh\necho hello\n", ExitCode::NotImage, "ELF magic");
    faulty(&with(0, b"\x7fELG"), ExitCode::NotImage, "ELF magic");
    faulty(&with(18, &183u16.to_le_bytes()), ExitCode::WrongMachine, "another machine (ELF machine 183)");
    faulty(&with(4, &[1]), ExitCode::WrongMachine, "another machine");
    faulty(&with(5, &[2]), ExitCode::WrongMachine, "another machine");
    faulty(&with(16, &2u16.to_le_bytes()), ExitCode::NotImage, "not a core");
    // The header note's type: then it is some other program's core.
    let notes = u64::from_le_bytes(image[64 + 8..64 + 16].try_into().unwrap());
    let at = usize::try_from(notes).unwrap();
    faulty(&with(at + 8, &77u32.to_le_bytes()), ExitCode::NotImage, "without a checkpoint header");
    faulty(&with(at + 20 + 8, &9u16.to_le_bytes()), ExitCode::Newer, "format 9");
    faulty(&with(at + 20 + 16 + 7, &[0x80]), ExitCode::Newer, "bits 0x8000000000000000");
}

#[test]
fn absurd_counts() {
    let image = support::image();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    faulty(&with(56, &0u16.to_le_bytes()), ExitCode::NotImage, "not an image");
    faulty(&with(56, &0xfff0u16.to_le_bytes()), ExitCode::Truncated, "truncated");
    // The notes' length, of which the sum with their offset would wrap.
    faulty(&with(64 + 32, &u64::MAX.to_le_bytes()), ExitCode::Malformed, "absurd length of the notes");
    // PN_XNUM with the greatest count that sh_info can hold.
    let mut xnum = image;
    xnum[32..40].copy_from_slice(&128u64.to_le_bytes());
    xnum[40..48].copy_from_slice(&64u64.to_le_bytes());
    xnum[56..58].copy_from_slice(&[0xff, 0xff]);
    xnum[64 + 44..64 + 48].copy_from_slice(&u32::MAX.to_le_bytes());
    faulty(&xnum, ExitCode::Malformed, "absurd number of program headers");
}

#[test]
fn truncated_at_every_64th_byte() {
    let image = support::image();
    for len in (0..image.len()).step_by(64) {
        let fault = support::check(&image[..len]).expect_err("truncated");
        let expected = if len == 0 { ExitCode::Empty } else { ExitCode::Truncated };
        assert_eq!(fault.exit_code(), expected, "{len}: {fault}");
    }
    let mut longer = image;
    longer.push(0);
    faulty(&longer, ExitCode::Malformed, "bytes follow the seal");
}

#[test]
fn no_seal() {
    let mut image = support::image();
    let len = image.len();
    image[len - 276..].fill(0);
    faulty(&image, ExitCode::Truncated, "not sealed");
}

#[test]
fn segments_that_cannot_be() {
    let segments = |what: &str, change: fn(&mut Parts)| {
        let mut parts = Parts::new();
        change(&mut parts);
        faulty(&parts.image(), ExitCode::BadAddress, what);
    };
    segments("a segment is out of order, or overlaps", |p| p.runs[2].addr = p.runs[1].addr + PAGE);
    segments("out of order", |p| p.runs.swap(0, 1));
    segments("reaches into kernel space", |p| p.runs[3].addr = USER_END);
    segments("reaches into kernel space", |p| p.runs[3].addr = 0xffff_ffff_ffff_f000);
    segments("not page-aligned", |p| p.runs[3].addr += 8);
    segments("lies in no mapping", |p| p.runs[3].addr += 2 * PAGE);
    segments("lies in no mapping", |p| p.runs[3] = support::run(support::STACK + 3 * PAGE, PF_R | PF_W, 2));
    segments("a mapping is out of order, or overlaps", |p| p.vmas[1].start = p.vmas[0].start);
    segments("mapping reaches into kernel space", |p| p.vmas[3].end = (USER_END + PAGE).into());
    segments("unknown kind", |p| p.vmas[1].kind = 99.into());
}

#[test]
fn records_that_cannot_be() {
    sealed_nonsense("without threads", |p| p.threads.clear());
    sealed_nonsense("leads without", |p| p.header.pid = 1.into());
    sealed_nonsense("leads without", |p| p.threads[1].flags = 1.into());
    sealed_nonsense("made the save", |p| p.threads[1].flags = 0.into());
    sealed_nonsense("exactly one thread leads", |p| p.threads = p.threads.split_off(1));
    sealed_nonsense("exactly one thread leads", |p| p.threads.push(p.threads[0]));
    sealed_nonsense("did not say how it goes on", |p| p.header.stopped = 1.into());
    sealed_nonsense("where no code is", |p| p.threads[1].jmp.rip = support::HEAP.into());
    sealed_nonsense("kernel space", |p| p.threads[1].jmp.rsp = u64::MAX.into());
    sealed_nonsense("kernel space", |p| p.threads[0].robust_list = USER_END.into());
    sealed_nonsense("MXCSR", |p| p.threads[0].jmp.mxcsr = (1 << 16).into());
    sealed_nonsense("at no address", |p| p.threads[0].flags = 5.into());
    sealed_nonsense("for no thread", |p| p.pending[1].tid = 77.into());
    sealed_nonsense("what threads have is out of order", |p| p.pending.swap(0, 1));
    sealed_nonsense("what threads have is out of order", |p| {
        p.sched.insert(0, image_format::record::sched::Sched { tid: u32::MAX.into(), ..p.sched[0] })
    });
    sealed_nonsense("what threads have is out of order", |p| {
        p.affinity.insert(0, image_format::record::sched::Affinity { tid: u32::MAX.into(), ..p.affinity[0] })
    });
    sealed_nonsense("no valid number", |p| p.pending[0].siginfo[0] = 65);
    sealed_nonsense("missing or repeated", |p| p.mm.clear());
    sealed_nonsense("missing or repeated", |p| p.umask.push(p.umask[0]));
    sealed_nonsense("mm fields", |p| p.mm[0].brk = 0.into());
    sealed_nonsense("a setting is unknown", |p| p.settings[0].which = 22.into());
    sealed_nonsense("a setting is unknown", |p| p.settings[1].which = 4.into());
    sealed_nonsense("no kernel has", |p| p.affinity[0].first = 8192.into());
    sealed_nonsense("no kernel has", |p| p.affinity[0].first = 1.into());
    sealed_nonsense("nine bits", |p| p.umask[0].mask = 0o1000.into());
    sealed_nonsense("not 64 signal actions", |p| p.actions.truncate(63));
    sealed_nonsense("interval timer", |p| p.timers.push(p.timers[0]));
    sealed_nonsense("a limit is unknown", |p| p.limits[0].resource = 16.into());
    sealed_nonsense("above its hard limit", |p| p.limits[0].soft = u64::MAX.into());
    sealed_nonsense("does not name", |p| p.vmas[0].backing = 1.into());
    sealed_nonsense("cannot have a file", |p| p.vmas[1].backing = 0.into());
    sealed_nonsense("unknown protection", |p| p.vmas[1].prot = 8.into());
    sealed_nonsense("not absolute", |p| p.cwd[0].path.at = (p.cwd[0].path.at.get() + 1).into());
    sealed_nonsense("a string lies outside", |p| p.vmas[1].name.len = u32::MAX.into());
    sealed_nonsense("contains a NUL", |p| p.strings[3] = 0);
}

#[test]
fn files_that_cannot_be() {
    sealed_nonsense("same id", |p| p.devices[0].id = 3.into());
    sealed_nonsense("open files are out of order", |p| p.regular.push(p.regular[0]));
    sealed_nonsense("does not describe", |p| p.descriptors[3].file = 99.into());
    sealed_nonsense("out of order, repeated", |p| p.descriptors.swap(1, 2));
    sealed_nonsense("out of order, repeated", |p| p.descriptors[6].fd = 5.into());
    sealed_nonsense("too great", |p| p.descriptors[6].fd = u32::MAX.into());
    sealed_nonsense("called after its first descriptor", |p| p.descriptors[4].file = 5.into());
    sealed_nonsense("called after its first descriptor", |p| {
        (p.regular[0].id, p.descriptors[3].file, p.descriptors[4].file) = (4.into(), 4.into(), 4.into());
    });
    sealed_nonsense("called after its first descriptor", |p| {
        (p.regular[0].id, p.descriptors[3].file, p.descriptors[4].file) = (9.into(), 9.into(), 9.into());
    });
    sealed_nonsense("close-on-exec", |p| p.descriptors[6].cloexec = 2.into());
    sealed_nonsense("no regular file", |p| p.locks[0].fd = 5.into());
    sealed_nonsense("no regular file", |p| p.locks[0].fd = 55.into());
    sealed_nonsense("unknown kind", |p| p.locks[0].kind = 5.into());
    sealed_nonsense("a lease", |p| p.locks[0].kind = 4.into());
    sealed_nonsense("a lease", |p| p.locks[0].signal = 1.into());
    sealed_nonsense("a lease", |p| {
        p.header.required = (p.header.required.get() | Features::LEASES.bits()).into();
        (p.locks[0].kind, p.locks[0].signal) = (4.into(), 65.into());
    });
    sealed_nonsense("greatest offset", |p| p.locks[0].len = u64::MAX.into());
    sealed_nonsense("does not require", |p| p.header.required = 1.into());
}

#[test]
fn events_that_cannot_be() {
    let events = |says: &str, change: fn(&mut Parts)| {
        sealed_nonsense(says, |parts| {
            parts.give_events();
            change(parts);
        });
    };
    let mut sound = Parts::new();
    sound.give_events();
    support::check(&sound.image()).unwrap();
    events("a feature that the header does not require", |p| p.header.required = 3.into());
    events("a feature that the header does not require", |p| p.header.required = 11.into());
    events("a feature that the header does not require", |p| p.header.required = 19.into());
    events("same id", |p| p.events.signalfds[0].id = 10.into());
    events("open files are out of order", |p| p.events.epolls.swap(0, 1));
    events("does not describe", |p| p.events.timers.clear());
    events("contents without an end of it", |p| p.events.pipe_data[2].pipe = 8.into());
    events("contents without an end of it", |p| p.events.pipe_data[2].pipe = 10.into());
    events("that is not the pipe's", |p| (p.pipes[2].named, p.pipes[2].path) = (1.into(), p.cwd[0].path));
    events("that is not the pipe's", |p| p.pipes[2].pipe = 9.into());
    events("that is not the pipe's", |p| p.pipes[3].how = 4.into());
    events("is followed by none", |p| p.pipes[2].next = 10.into());
    events("is followed by none", |p| p.pipes[2].next = 7.into());
    events("no other end leads to", |p| p.pipes[1].next = u32::MAX.into());
    events("no other end leads to", |p| p.pipes[3].pipe = 7.into());
    events("pipe(2) does not make", |p| p.pipes[2].flags = 0.into());
    events("pipe(2) does not make", |p| p.pipes[2].flags = 2.into());
    events("a feature that the header does not require", |p| p.pipes[2].how = 1.into());
    events("do not fit the strings or its buffer", |p| p.events.pipe_data[1].size = 2.into());
    events("do not fit the strings or its buffer", |p| p.events.pipe_data[1].bytes.at = u32::MAX.into());
    events("do not fit the strings or its buffer", |p| p.events.pipe_data[1].packet = 2.into());
    events("contents of pipes are out of order", |p| p.events.pipe_data.swap(1, 2));
    events("unknown clock or mode", |p| p.events.timers[0].clock = u32::MAX.into());
    events("unknown clock or mode", |p| p.events.timers[0].settime = 2.into());
    events("beyond all clocks", |p| p.events.timers[0].interval[0] = u64::MAX.into());
    events("beyond all clocks", |p| p.events.timers[0].value[1] = 1_000_000_000.into());
    events("does not describe", |p| p.events.watches[0].epoll = 10.into());
    events("does not describe", |p| p.events.watches[0].file = 77.into());
    events("does not describe", |p| p.events.watches[2].fd = u32::MAX.into());
    events("out of order or repeated", |p| p.events.watches.swap(0, 1));
    events("out of order or repeated", |p| p.events.watches.push(p.events.watches[3]));
}

#[test]
fn contents_that_cannot_be() {
    let contents = |says: &str, change: fn(&mut Parts)| {
        sealed_nonsense(says, |parts| {
            parts.give_contents();
            change(parts);
        });
    };
    let mut sound = Parts::new();
    sound.give_contents();
    support::check(&sound.image()).unwrap();
    contents("header does not require", |p| p.header.required = 3.into());
    contents("impossible kind, name", |p| p.contents.contents[0].kind = 9.into());
    contents("impossible kind, name", |p| p.contents.contents[1].kind = 5.into());
    contents("shared contents that are not there", |p| {
        p.header.required = (p.header.required.get() | Features::CARRIED_FILES.bits()).into();
        p.contents.contents[0].kind = 5.into();
        p.contents.contents[0].name = p.contents.contents[1].name;
    });
    contents("impossible kind, name", |p| p.contents.contents[1].id = 7.into());
    contents("impossible kind, name", |p| p.contents.contents[1].name.len = 0.into());
    contents("impossible kind, name", |p| p.contents.contents[0].seals = 0x40.into());
    contents("impossible kind, name", |p| p.contents.contents[0].identity.size = u64::MAX.into());
    contents("impossible kind, name", |p| p.contents.contents[1].first = 1.into());
    contents("parts are missing", |p| p.contents.contents[1].segments = u32::MAX.into());
    contents("parts are missing", |p| {
        let last = p.runs.len() - 1;
        p.runs[last].addr = 0;
    });
    contents("parts are missing", |p| p.contents.contents[0].identity.size = (2 * PAGE).into());
    contents("belong to none", |p| {
        (p.contents.contents[0].segments, p.contents.contents[1].first) = (1.into(), 1.into());
    });
    contents("that are not there", |p| p.contents.files[0].content = 2.into());
    contents("that are not there", |p| p.backings.last_mut().unwrap().content = 2.into());
    contents("out of order", |p| {
        let memory = support::run(USER_END - PAGE, PF_R, 1);
        p.runs.push(memory);
    });
    contents("not page-aligned", |p| p.runs.last_mut().unwrap().addr += 1);
}

#[test]
fn notices_that_cannot_be() {
    let notices = |says: &str, change: fn(&mut Parts)| {
        sealed_nonsense(says, |parts| {
            parts.give_notices();
            change(parts);
        });
    };
    let mut sound = Parts::new();
    sound.give_notices();
    support::check(&sound.image()).unwrap();
    notices("a feature that the header does not require", |p| p.header.required = 3.into());
    notices("watch of inotify", |p| p.events.noticed[0].inotify = 18.into());
    notices("watch of inotify", |p| p.events.noticed[0].wd = 0.into());
    notices("watch of inotify", |p| p.events.noticed[1].wd = 3.into());
    notices("watch of inotify", |p| p.events.noticed[1].wd = 65537.into());
    notices("a path is not absolute", |p| p.events.noticed[1].path.len = 0.into());
}

#[test]
fn shared_files_that_cannot_be() {
    let with = |change: fn(&mut SharedFile)| {
        let mut parts = Parts::new();
        let mut piece = SharedFile::new_zeroed();
        (piece.path, piece.len, piece.offset) = (parts.string(b"/srv/table"), 5.into(), PAGE.into());
        parts.header.required = (parts.header.required.get() | Features::SHARED_FILES.bits()).into();
        change(&mut piece);
        parts.shared_files = vec![piece];
        parts
    };
    let faulty = |parts: Parts, says: &str| faulty(&parts.image(), ExitCode::Malformed, says);
    support::check(&with(|_| ()).image()).unwrap();
    for change in [
        (|p| p.len = 0.into()) as fn(&mut SharedFile),
        |p| p.len = ((16 << 20) + 1).into(),
        |p| p.offset = 5.into(),
        |p| p.offset = (u64::MAX - 4095).into(),
    ] {
        faulty(with(change), "a shared file");
    }
    faulty(with(|p| p.path = image_format::StrRef { at: 1.into(), len: p.path.len }), "a path is not absolute");
    let mut unasked = with(|_| ());
    unasked.header.required = (unasked.header.required.get() & !Features::SHARED_FILES.bits()).into();
    faulty(unasked, "a shared file");
}

#[test]
fn sockets_that_cannot_be() {
    let sockets = |says: &str, change: fn(&mut Parts)| {
        sealed_nonsense(says, |parts| {
            parts.give_sockets();
            change(parts);
        });
    };
    let mut sound = Parts::new();
    sound.give_sockets();
    support::check(&sound.image()).unwrap();
    sockets("a feature that the header does not require", |p| p.header.required = 3.into());
    sockets("open files are out of order", |p| p.events.sockets.swap(0, 1));
    sockets("not absolute", |p| p.events.sockets[0].reserved = 1.into());
    sockets("a step of a socket", |p| p.events.steps[0].step = 99.into());
    sockets("a step of a socket", |p| p.events.steps[0].socket = 3.into());
    sockets("a step of a socket", |p| p.events.steps[3].a = 3.into());
    sockets("a step of a socket", |p| p.events.steps[4].a = 99.into());
    sockets("a step of a socket", |p| p.events.steps[5].bytes.len = u32::MAX.into());
    sockets("a step of a socket", |p| p.events.steps[1].bytes.len = 300.into());
    // A filter has whole instructions.
    sockets("a step of a socket", |p| p.events.steps[5].step = (Step::Filter as u32).into());
    sockets("repeated, or too great", |p| p.descriptors.last_mut().unwrap().fd = (1 << 20 | 100).into());
    let transit = |fd: u32| {
        let mut parts = Parts::new();
        parts.give_sockets();
        parts.header.required = (parts.header.required.get() | Features::IN_TRANSIT.bits()).into();
        // An open file is called after its first descriptor.
        let last = parts.descriptors.last_mut().unwrap();
        let old = std::mem::replace(&mut last.file, fd.into());
        last.fd = fd.into();
        parts.events.sockets.iter_mut().filter(|socket| socket.id == old).for_each(|socket| socket.id = fd.into());
        support::check(&parts.image())
    };
    transit(1 << 20 | 100).expect("a descriptor in transit");
    transit(2 << 20 | 100).expect_err("a descriptor of nobody");
}

#[test]
fn frames_that_cannot_be() {
    let frames = |says: &str, change: fn(&mut Parts)| {
        sealed_nonsense(says, |parts| {
            parts.give_frames();
            change(parts);
        });
    };
    let mut sound = Parts::new();
    sound.give_frames();
    support::check(&sound.image()).unwrap();
    sealed_nonsense("none or both of jmp contexts", |p| p.header.required = 2.into());
    frames("none or both of jmp contexts", |p| p.header.required = 7.into());
    frames("not as many frames", |p| p.header.required = 3.into());
    frames("not as many frames", |p| p.frames.truncate(1));
    sealed_nonsense("not as many frames", |p| p.header.required = 6.into());
    for register in [16, 19, 21, 22] {
        sealed_nonsense("something else than its record", |p| {
            p.give_frames();
            p.frames[1].regs[register] = 1.into();
        });
    }
    frames("where no code is", |p| {
        p.threads[1].jmp.rip = support::HEAP.into();
        p.frames[1].regs[16] = support::HEAP.into();
    });
    frames("no 64-bit program", |p| p.frames[0].regs[17] = 0x23.into());
    frames("no 64-bit program", |p| p.frames[0].regs[20] = 0.into());
    frames("no 64-bit program", |p| p.frames[0].regs[23] = 0x33.into());
    frames("no 64-bit program", |p| p.frames[0].regs[25] = 7.into());
    frames("outside the notes", |p| p.frames[0].xstate_at = u64::MAX.into());
    frames("outside the notes", |p| p.frames[0].xstate_len = u32::MAX.into());
    frames("too short or too long", |p| p.frames[1].xstate_len = 575.into());
    frames("too short or too long", |p| p.frames[1].xstate_len = 16385.into());
    frames("reserved bits", |p| p.xstate[24 + 2] = 1);
    frames("reserved bits", |p| p.xstate[520] = 1);
    frames("reserved bits", |p| p.xstate[575] = 1);
}
