//! An image put together byte by byte, as docs/image-format.md describes it and without the structures of this
//! crate: a layout that changes by mistake is caught here, since writer and reader would change together.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::record::cwd::Cwd;
use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::epoll::{Epoll, Watch};
use image_format::record::eventfd::Eventfd;
use image_format::record::header::Traces;
use image_format::record::itimer::Itimer;
use image_format::record::lock::Lock;
use image_format::record::memory::{Backing, Vma};
use image_format::record::mm::Mm;
use image_format::record::pending::Pending;
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::regular::Regular;
use image_format::record::rlimit::Rlimit;
use image_format::record::sigaction::Sigaction;
use image_format::record::signalfd::Signalfd;
use image_format::record::terminal::Terminal;
use image_format::record::thread::Thread;
use image_format::record::timerfd::Timerfd;
use image_format::record::umask::Umask;
use image_format::{Image, StrRef};
use support::Aligned;
use xxhash_rust::xxh3::xxh3_64;

/// Little-endian bytes, one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(mut self, n: u16) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn u32s(mut self, all: &[u32]) -> Self {
        self.0.extend(all.iter().flat_map(|n| n.to_le_bytes()));
        self
    }
    fn u64s(mut self, all: &[u64]) -> Self {
        self.0.extend(all.iter().flat_map(|n| n.to_le_bytes()));
        self
    }
    fn raw(mut self, bytes: &[u8], len: usize) -> Self {
        self.0.extend(bytes);
        self.0.extend(std::iter::repeat_n(0, len - bytes.len()));
        self
    }
    /// A note of this project with these contents.
    fn note(self, kind: u32, desc: Self) -> Self {
        self.note_of(b"CKPT\0", 0x434b_0000 + kind, desc)
    }
    fn note_of(mut self, owner: &[u8; 5], kind: u32, desc: Self) -> Self {
        self = self.u32s(&[5, u32::try_from(desc.0.len()).unwrap(), kind]).raw(owner, 8);
        self.0.extend(desc.0);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
        self
    }
}

fn bytes() -> Bytes {
    Bytes::default()
}

const STRINGS: &[u8] = b"/exe/cwd/file/dir/dev/null/dev/tty0pipe:[9][heap]";

fn header() -> Bytes {
    bytes()
        .raw(b"CKPTIMG\0", 8)
        .u16(1)
        .u16(0)
        .u32s(&[700])
        .u64s(&[27])
        .raw(&[0xaa; 16], 16)
        .raw(&[0xbb; 16], 16)
        .u64s(&[1_000_000])
        .u32s(&[5, 1000])
        .u64s(&[111, 222])
        .raw(b"6.1.0", 64)
        .u32s(&[1, 2, 3, 4, 5, 6, 7, 8])
        .u64s(&[0xe7])
        .u32s(&[2440, 0])
        .u64s(&[0x1234])
        .u32s(&[6, 2])
        .u64s(&[0x7700])
        .u32s(&[0, 0])
}

fn thread() -> Bytes {
    bytes()
        .u32s(&[700, 7])
        .u64s(&[1, 2, 3, 4, 5, 6, 0x7000_0000, 0x40_0010])
        .u32s(&[0x1f80, 0x37f])
        .u64s(&[0x9000, 0xa000, 0b100])
        .u64s(&[0xb000, 8192])
        .u32s(&[2, 0x5305_3053])
        .u64s(&[0xc000, 0xd000, 24, 0xe000])
        .u32s(&[32, 0])
        .raw(b"name", 16)
        .u64s(&[0xf000])
}

/// The four 64-bit words of an identity; two 32-bit ones follow.
fn identity(n: u64) -> [u64; 4] {
    [n, n + 1, n + 2, n + 3]
}

/// All notes of the prefix; each table has one record (two mappings, 64 actions).
fn notes() -> Bytes {
    let actions = (0..64).fold(bytes(), |all, n| all.u64s(&[n * 16, 0x400_0000, 0x5000, 1 << n]));
    bytes()
        .note(1, header())
        .note_of(b"CORE\0", 6, bytes().u64s(&[6, 4096, 0, 0]))
        .note(3, thread())
        .note(
            4,
            bytes()
                .u64s(&[0x40_0000, 0x40_1000])
                .u32s(&[5, 0, 2, 0])
                .u64s(&[0x2000])
                .u32s(&[0, 0])
                .u64s(&[0])
                .u64s(&[0x60_0000, 0x60_3000])
                .u32s(&[3, 1 << 8, 1, u32::MAX])
                .u64s(&[0])
                .u32s(&[43, 6])
                .u64s(&[0]),
        )
        .note(5, bytes().u32s(&[0, 4]).u64s(&identity(10)).u32s(&[14, 0o100_755, 1, 0]))
        .note(6, bytes().u64s(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).u32s(&[0, 4]).u64s(&[0]))
        .note(7, actions)
        .note(8, bytes().u32s(&[700, 0]).raw(&[12, 0, 0, 0], 128))
        .note(9, bytes().u32s(&[1, 0]).u64s(&[1500, 2500]))
        .note(10, bytes().u32s(&[4, 4]))
        .note(11, bytes().u32s(&[0o27]))
        .note(12, bytes().u32s(&[7, 0]).u64s(&[1024, 4096]))
        .note(13, bytes().u32s(&[20, 20, 1, 0]))
        .note(
            14,
            bytes()
                .u32s(&[20, 0o2001])
                .u64s(&[777])
                .u32s(&[8, 5])
                .u64s(&identity(30))
                .u32s(&[34, 0o100_644])
                .u64s(&[0]),
        )
        .note(15, bytes().u32s(&[21, 0o200_000]).u64s(&[88]).u32s(&[13, 4]))
        .note(16, bytes().u32s(&[22, 2]).u64s(&[0x103]).u32s(&[17, 9, 0o620, 52, 53]))
        .note(17, bytes().u32s(&[23, 1, 35, 8, 23, u32::MAX, 0, 2]))
        .note(18, bytes().u32s(&[24, 2, 26, 9]).raw(&[0x55; 36], 36).u16(24).u16(80).u32s(&[1, 0, 0, 0, 0]))
        .note(19, bytes().u32s(&[20, 2, 1, 0]).u64s(&[100, 50]))
        .note(22, bytes().u32s(&[30, 0o4002]).u64s(&[5]).u32s(&[1, 0]))
        .note(23, bytes().u32s(&[23, 1, 43, 3, 65536, 0o640, 50, 51]))
        .note(24, bytes().u32s(&[31, 2, 7, 3]).u64s(&[6, 2, 3, 1, 500_000_000]))
        .note(25, bytes().u32s(&[32, 2]).u64s(&[0x200]))
        .note(26, bytes().u32s(&[33, 2]))
        .note(27, bytes().u32s(&[33, 4, 30, 0x19]).u64s(&[0x1234_5678_9abc]))
        .note(2, bytes().raw(STRINGS, STRINGS.len()))
}

/// The file: headers for notes, two segments and seal; notes; padding; the segments; the seal.
fn image() -> Vec<u8> {
    let mut notes = notes().0;
    let head = 64 + 4 * 56;
    let prefix_len = head + notes.len();
    let first = prefix_len.next_multiple_of(4096);
    let (text, heap) = ([0x90u8; 4096], [7u8; 8192]);
    let seal_at = first + text.len() + heap.len();
    let seal_len = 12 + 8 + 40 + 26 * 8 + 8;
    let file_len = seal_at + seal_len;
    let n = |n: usize| n as u64;
    let ph = |kind: u32, flags: u32, words: [u64; 6]| bytes().u32s(&[kind, flags]).u64s(&words).0;
    let mut file = bytes()
        .raw(b"\x7fELF\x02\x01\x01", 16)
        .u16(4)
        .u16(62)
        .u32s(&[1])
        .u64s(&[0, 64, 0])
        .u32s(&[0])
        .u16(64)
        .u16(56)
        .u16(4)
        .u16(64)
        .u16(0)
        .u16(0)
        .0;
    file.extend(ph(4, 0, [n(head), 0, 0, n(notes.len()), 0, 4]));
    file.extend(ph(1, 0x10_0005, [n(first), 0x40_0000, 0, 4096, 4096, 4096]));
    file.extend(ph(1, 6, [n(first) + 4096, 0x60_0000, 0, 8192, 8192, 4096]));
    file.extend(ph(4, 0, [n(seal_at), 0, 0, n(seal_len), 0, 4]));
    file.append(&mut notes);
    let fixed = bytes().raw(b"CKPTSEAL", 8).u64s(&[
        n(file_len),
        n(prefix_len),
        xxh3_64(&file),
        2,
        xxh3_64(&text),
        xxh3_64(&heap),
    ]);
    let fixed = fixed.u64s(&[0; 24]);
    let own = xxh3_64(&fixed.0);
    file.resize(first, 0);
    file.extend(text);
    file.extend(heap);
    file.extend(bytes().note(0xff, fixed.u64s(&[own])).0);
    assert_eq!(file.len(), file_len);
    file
}

fn reference(at: u32, len: u32) -> StrRef {
    StrRef { at: at.into(), len: len.into() }
}

#[test]
fn the_reader_finds_every_field() {
    let file = Aligned::new(&image());
    let file = file.bytes();
    assert_eq!(support::check(file), Ok(()));
    let image = Image::parse(file, file.len() as u64).unwrap();

    let h = image.header();
    assert_eq!((h.traces(), h.trace.get()), (Traces::Found, 0x7700));
    assert_eq!((h.major.get(), h.minor.get(), h.pid.get(), h.required.get()), (1, 0, 700, 27));
    assert_eq!((h.uuid, h.boot_id), ([0xaa; 16], [0xbb; 16]));
    assert_eq!((h.wall_sec.get(), h.wall_nsec.get(), h.uid.get()), (1_000_000, 5, 1000));
    assert_eq!((h.monotonic_nsec.get(), h.boottime_nsec.get()), (111, 222));
    assert_eq!((&h.release[..6], h.cpu.words.map(|w| w.get())), (b"6.1.0\0".as_slice(), [1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!((h.cpu.xcr0.get(), h.cpu.xsave_size.get()), (0xe7, 2440));
    assert_eq!((h.vdso_sum.get(), h.generation.get()), (0x1234, 6));

    let t = image.single::<Thread>().unwrap();
    let j = &t.jmp;
    assert_eq!((t.tid.get(), t.flags.get()), (700, 7));
    assert_eq!([j.rbx, j.rbp, j.r12, j.r13, j.r14, j.r15].map(|r| r.get()), [1, 2, 3, 4, 5, 6]);
    assert_eq!((j.rsp.get(), j.rip.get()), (0x7000_0000, 0x40_0010));
    assert_eq!((j.mxcsr.get(), j.x87_cw.get()), (0x1f80, 0x37f));
    assert_eq!((j.fs_base.get(), j.gs_base.get(), j.sigmask.get()), (0x9000, 0xa000, 4));
    assert_eq!((t.altstack_sp.get(), t.altstack_size.get(), t.altstack_flags.get()), (0xb000, 8192, 2));
    assert_eq!(t.runtime_tid.get(), 0xf000);
    assert_eq!((t.rseq_sig.get(), t.rseq.get(), t.rseq_len.get()), (0x5305_3053, 0xe000, 32));
    assert_eq!((t.tid_address.get(), t.robust_list.get(), t.robust_len.get()), (0xc000, 0xd000, 24));
    assert_eq!(&t.comm, b"name\0\0\0\0\0\0\0\0\0\0\0\0");

    let [text, heap] = image.table::<Vma>().unwrap() else { panic!("two mappings") };
    assert_eq!((text.start.get(), text.end.get(), text.prot.get()), (0x40_0000, 0x40_1000, 5));
    assert_eq!((text.kind.get(), text.backing.get(), text.offset.get()), (2, 0, 0x2000));
    assert_eq!((heap.flags.get(), heap.kind.get(), heap.backing.get()), (1 << 8, 1, u32::MAX));
    assert_eq!(image.string(heap.name).unwrap(), b"[heap]");
    let b = image.single::<Backing>().unwrap();
    assert_eq!((b.path, b.flags.get()), (reference(0, 4), 1));
    assert_eq!((b.identity.dev.get(), b.identity.ino.get(), b.identity.size.get()), (10, 11, 12));
    assert_eq!((b.identity.mtime_sec.get(), b.identity.mtime_nsec.get(), b.identity.mode.get()), (13, 14, 0o100_755));
    let m = image.single::<Mm>().unwrap();
    let fields = [
        m.start_code,
        m.end_code,
        m.start_data,
        m.end_data,
        m.start_brk,
        m.brk,
        m.start_stack,
        m.arg_start,
        m.arg_end,
        m.env_start,
        m.env_end,
    ];
    assert_eq!(fields.map(|f| f.get()), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(m.exe, reference(0, 4));
}

#[test]
fn and_every_field_of_signals_and_files() {
    let file = Aligned::new(&image());
    let file = file.bytes();
    let image = Image::parse(file, file.len() as u64).unwrap();

    let a = &image.table::<Sigaction>().unwrap()[63];
    assert_eq!([a.handler, a.flags, a.restorer, a.mask].map(|f| f.get()), [63 * 16, 0x400_0000, 0x5000, 1 << 63]);
    let p = image.single::<Pending>().unwrap();
    assert_eq!((p.tid.get(), p.siginfo[0]), (700, 12));
    let i = image.single::<Itimer>().unwrap();
    assert_eq!((i.which.get(), i.value_usec.get(), i.interval_usec.get()), (1, 1500, 2500));
    assert_eq!(image.single::<Cwd>().unwrap().path, reference(4, 4));
    assert_eq!(image.single::<Umask>().unwrap().mask.get(), 0o27);
    let r = image.single::<Rlimit>().unwrap();
    assert_eq!((r.resource.get(), r.soft.get(), r.hard.get()), (7, 1024, 4096));

    let d = image.single::<Descriptor>().unwrap();
    assert_eq!((d.fd.get(), d.file.get(), d.cloexec.get()), (20, 20, 1));
    let f = image.single::<Regular>().unwrap();
    assert_eq!((f.id.get(), f.flags.get(), f.offset.get(), f.path), (20, 0o2001, 777, reference(8, 5)));
    assert_eq!((f.identity.dev.get(), f.identity.mtime_nsec.get(), f.identity.mode.get()), (30, 34, 0o100_644));
    let f = image.single::<Directory>().unwrap();
    assert_eq!((f.id.get(), f.flags.get(), f.offset.get(), f.path), (21, 0o200_000, 88, reference(13, 4)));
    let f = image.single::<Device>().unwrap();
    assert_eq!((f.id.get(), f.flags.get(), f.rdev.get(), f.path), (22, 2, 0x103, reference(17, 9)));
    assert_eq!((f.mode.get(), f.uid.get(), f.gid.get()), (0o620, 52, 53));
    let f = image.single::<Pipe>().unwrap();
    assert_eq!((f.id.get(), f.flags.get(), f.path), (23, 1, reference(35, 8)));
    assert_eq!((f.pipe.get(), f.next.get(), f.named.get(), f.how.get()), (23, u32::MAX, 0, 2));
    let f = image.single::<Terminal>().unwrap();
    assert_eq!((f.id.get(), f.flags.get(), f.path, f.termios), (24, 2, reference(26, 9), [0x55; 36]));
    assert_eq!((f.rows.get(), f.columns.get(), f.controlling.get()), (24, 80, 1));
    let l = image.single::<Lock>().unwrap();
    assert_eq!((l.fd.get(), l.kind.get(), l.write.get()), (20, 2, 1));
    assert_eq!((l.start.get(), l.len.get()), (100, 50));

    let e = image.single::<Eventfd>().unwrap();
    assert_eq!((e.id.get(), e.flags.get(), e.count.get(), e.semaphore.get()), (30, 0o4002, 5, 1));
    let d = image.single::<PipeData>().unwrap();
    assert_eq!((d.pipe.get(), d.packet.get(), image.bytes(d.bytes)), (23, 1, Some(b"[he".as_slice())));
    assert_eq!((d.size.get(), d.mode.get(), d.uid.get(), d.gid.get()), (65536, 0o640, 50, 51));
    let t = image.single::<Timerfd>().unwrap();
    assert_eq!((t.id.get(), t.flags.get(), t.clock.get(), t.settime.get()), (31, 2, 7, 3));
    assert_eq!((t.ticks.get(), t.interval.map(|f| f.get()), t.value.map(|f| f.get())), (6, [2, 3], [1, 500_000_000]));
    let s = image.single::<Signalfd>().unwrap();
    assert_eq!((s.id.get(), s.flags.get(), s.mask.get()), (32, 2, 0x200));
    let e = image.single::<Epoll>().unwrap();
    assert_eq!((e.id.get(), e.flags.get()), (33, 2));
    let w = image.single::<Watch>().unwrap();
    assert_eq!((w.epoll.get(), w.fd.get(), w.file.get(), w.events.get()), (33, 4, 30, 0x19));
    assert_eq!(w.data.get(), 0x1234_5678_9abc);
}

#[test]
fn the_writer_makes_the_same_headers() {
    let file = image();
    let notes = notes().0;
    let layout = image_format::Layout::new(2, 3 * 4096, notes.len() as u64);
    let mut headers = vec![0; usize::try_from(layout.headers_len()).unwrap()];
    let segments = [(0x40_0000, 4096, 0x10_0005), (0x60_0000, 8192, 6)];
    layout.write_headers(&mut headers, segments.into_iter()).unwrap();
    assert_eq!(headers, file[..headers.len()]);
    assert_eq!(layout.file_len(), file.len() as u64);
    let seal = usize::try_from(layout.seal).unwrap();
    let sums = [xxh3_64(&[0x90; 4096]), xxh3_64(&[7; 8192])];
    let prefix = &file[..usize::try_from(layout.prefix_len()).unwrap()];
    let mut room = vec![0; usize::try_from(layout.seal_len).unwrap()];
    let sealed = image_format::seal::write(&mut room, layout.file_len(), prefix, &sums).unwrap();
    assert_eq!(*sealed, file[seal..]);
}
