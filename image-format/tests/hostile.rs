//! Damage is always noticed, and nothing that a file contains makes the reader panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::elf::MACHINE;
use image_format::{Image, PAGE, align_up};
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes of the file that a reader of headers, notes and seal relies on.
fn covered(image: &[u8]) -> Vec<usize> {
    let aligned = support::Aligned::new(image);
    let parsed = Image::parse(aligned.bytes(), image.len() as u64).unwrap();
    let seal = usize::try_from(parsed.seal_span().0).unwrap();
    (0..parsed.prefix().len()).chain(seal..image.len()).collect()
}

#[test]
fn every_flipped_byte_is_noticed() {
    let image = support::image();
    for at in covered(&image) {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        assert!(support::check(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn only_padding_and_memory_are_left_to_verify() {
    let image = support::image();
    let aligned = support::Aligned::new(&image);
    let parsed = Image::parse(aligned.bytes(), image.len() as u64).unwrap();
    let prefix = parsed.prefix().len() as u64;
    let first = parsed.segments().next().unwrap().offset;
    assert_eq!(first, align_up(prefix, PAGE));
    assert_eq!(u16::from_le_bytes([image[18], image[19]]), MACHINE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_is_noticed(at: Index, bit in 0u8..8) {
        let mut image = support::image();
        let covered = covered(&image);
        image[*at.get(&covered)] ^= 1 << bit;
        prop_assert!(support::check(&image).is_err());
    }

    #[test]
    fn any_change_ends_in_a_verdict(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut: Option<Index>,
    ) {
        let mut image = support::image();
        for (at, byte) in changes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        let _ = support::check(&image);
    }

    /// The same with right checksums, so that the tables' rules meet the change.
    #[test]
    fn sealed_nonsense_ends_in_a_verdict(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        events: bool,
    ) {
        let mut parts = support::Parts::new();
        if events {
            parts.give_events();
        }
        let mut image = parts.image();
        let aligned = support::Aligned::new(&image);
        let parsed = Image::parse(aligned.bytes(), image.len() as u64).unwrap();
        let (prefix, at) = (parsed.prefix().len(), usize::try_from(parsed.seal_span().0).unwrap());
        let sums: Vec<u64> = parsed.segments().map(|_| 0).collect();
        for (at, byte) in changes {
            image[at.index(prefix)] = byte;
        }
        let mut room = vec![0; image.len() - at];
        let seal = image_format::seal::write(&mut room, image.len() as u64, &image[..prefix], &sums).unwrap().to_vec();
        image.truncate(at);
        image.extend_from_slice(&seal);
        let _ = support::check(&image);
    }

    #[test]
    fn any_bytes_end_in_a_verdict(bytes: Vec<u8>) {
        let _ = support::check(&bytes);
        let with_head = [support::image()[..64].to_vec(), bytes].concat();
        let _ = support::check(&with_head);
    }
}
