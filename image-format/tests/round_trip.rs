//! What the writer wrote, the reader and an independent reader find again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::elf::{PF_R, PF_W};
use image_format::record::memory::{NO_BACKING, Vma, VmaKind};
use image_format::record::mm::Mm;
use image_format::record::thread::Thread;
use image_format::{Image, PAGE, StrRef};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object};
use support::{Aligned, Parts};
use xxhash_rust::xxh3::xxh3_64;

#[test]
fn tables_strings_and_sums_come_back() {
    let parts = Parts::new();
    let file = Aligned::new(&parts.image());
    let bytes = file.bytes();
    assert_eq!(support::check(bytes), Ok(()));
    let image = Image::parse(bytes, bytes.len() as u64).unwrap();
    assert_eq!(image.table::<Thread>().unwrap(), parts.threads);
    assert_eq!(image.table::<Vma>().unwrap(), parts.vmas);
    assert_eq!(*image.header(), parts.header);
    let exe = image.single::<Mm>().unwrap().exe;
    assert_eq!(image.string(exe).unwrap(), b"/usr/bin/job");
    let (at, len) = image.seal_span();
    let seal = &bytes[usize::try_from(at).unwrap()..][..usize::try_from(len).unwrap()];
    let sums = image.check_seal(seal).unwrap();
    for ((segment, sum), run) in image.segments().zip(sums).zip(&parts.runs) {
        let offset = usize::try_from(segment.offset).unwrap();
        let memory = &bytes[offset..][..usize::try_from(segment.len).unwrap()];
        assert_eq!((segment.addr, memory), (run.addr, run.bytes.as_slice()));
        assert_eq!(sum.get(), xxh3_64(memory));
    }
    assert!(image.segments().next().unwrap().file_bytes);
    assert_eq!(image.segments().len(), parts.runs.len());
}

#[test]
fn strings_do_not_leave_their_note() {
    let file = Aligned::new(&support::image());
    let image = Image::parse(file.bytes(), file.bytes().len() as u64).unwrap();
    for (at, len) in [(u32::MAX, 1), (0, u32::MAX), (1 << 20, 0)] {
        assert!(image.string(StrRef { at: at.into(), len: len.into() }).is_err(), "{at} {len}");
    }
    assert_eq!(image.string(StrRef::default()).unwrap(), b"");
}

/// Every other page of a large mapping.
fn many(count: u64) -> Parts {
    let mut parts = Parts::new();
    let base = 0x10_0000_0000;
    let at = parts.vmas.len() - 1;
    parts.vmas.insert(at, support::vma(base, 2 * count, 3, VmaKind::Anonymous, NO_BACKING, StrRef::default()));
    let stack = parts.runs.pop().unwrap();
    parts.runs.extend((0..count).map(|i| support::run(base + 2 * i * PAGE, PF_R | PF_W, 1)));
    parts.runs.push(stack);
    parts
}

#[test]
fn more_segments_than_a_header_counts() {
    let parts = many(70_000);
    let bytes = parts.image();
    assert_eq!(bytes[56..58], [0xff, 0xff], "e_phnum is PN_XNUM");
    assert_eq!(support::check(&bytes), Ok(()));
    agrees(&bytes, &parts);
}

#[test]
fn at_the_edge_of_pn_xnum() {
    // Two more program headers, notes and seal, and four segments of the sample.
    for count in [0xffff - 7, 0xffff - 6] {
        let parts = many(count);
        let bytes = parts.image();
        assert_eq!(support::check(&bytes), Ok(()), "{count}");
        agrees(&bytes, &parts);
    }
}

#[test]
fn an_independent_reader_agrees() {
    let parts = Parts::new();
    let bytes = parts.image();
    agrees(&bytes, &parts);
    let file = object::File::parse(bytes.as_slice()).unwrap();
    assert_eq!(file.kind(), object::ObjectKind::Core);
    assert_eq!(file.architecture(), object::Architecture::X86_64);
    assert_eq!(file.segments().count(), parts.runs.len());
}

/// The `object` crate finds the same segments and the same notes. (Its whole `File` wants section names wherever
/// there is a section header, so it reads no core with PN_XNUM, the kernel's own included.)
fn agrees(bytes: &[u8], parts: &Parts) {
    let header = object::elf::FileHeader64::<Endianness>::parse(bytes).unwrap();
    let endian = header.endian().unwrap();
    let mut theirs = Vec::new();
    let mut runs = parts.runs.iter();
    for ph in header.program_headers(endian, bytes).unwrap() {
        if ph.p_type(endian) == object::elf::PT_LOAD {
            let run = runs.next().unwrap();
            assert_eq!((ph.p_vaddr(endian), ph.p_memsz(endian)), (run.addr, run.bytes.len() as u64));
            assert_eq!(ph.data(endian, bytes).unwrap(), run.bytes);
        }
        let Some(mut notes) = ph.notes(endian, bytes).unwrap() else { continue };
        while let Some(note) = notes.next().unwrap() {
            theirs.push((note.name().to_vec(), note.n_type(endian).0, note.desc().to_vec()));
        }
    }
    assert!(runs.next().is_none());
    let seal = theirs.pop().unwrap();
    assert_eq!((seal.0.as_slice(), seal.1), (b"CKPT".as_slice(), 0x434b_00ff));
    let aligned = Aligned::new(bytes);
    let image = Image::parse(aligned.bytes(), bytes.len() as u64).unwrap();
    let ours: Vec<_> =
        image.notes().map(|note| note.unwrap()).map(|n| (n.owner.to_vec(), n.kind, n.desc.to_vec())).collect();
    assert_eq!(ours, theirs);
}
