//! What an image says for a restart on another machine: places of registers, moments, and nonsense in them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::record::deadline::Deadline;
use image_format::record::frame::{Component, SignalFrame};
use image_format::record::header::{Cpu, Features};
use image_format::{PAGE, USER_END};
use support::Parts;

fn component(number: u32, at: u32, len: u32) -> Component {
    Component { number: number.into(), at: at.into(), len: len.into(), reserved: 0.into() }
}

#[test]
fn components_that_no_cpu_has() {
    let check = |components: &[Component]| {
        let mut parts = Parts::new();
        parts.give_frames();
        parts.components = components.to_vec();
        support::check(&parts.image())
    };
    check(&[component(2, 576, 256), component(5, 832, 64), component(18, 2816, 8192)]).unwrap();
    for wrong in [
        vec![component(1, 576, 256)],
        vec![component(63, 576, 256)],
        vec![component(2, 512, 256)],
        vec![component(2, 576, 65_000)],
        vec![component(2, u32::MAX, u32::MAX)],
        vec![component(5, 832, 64), component(2, 576, 256)],
        vec![component(2, 576, 256), component(2, 576, 256)],
    ] {
        let fault = check(&wrong).expect_err("a fault");
        assert!(fault.to_string().contains("a component of the extended state"), "{fault}");
    }
}

#[test]
fn deadlines_that_cannot_be() {
    let check = |at: u64, clock: u32| {
        let mut parts = Parts::new();
        parts.deadlines = vec![Deadline { at: at.into(), clock: clock.into(), tid: 1.into() }];
        support::check(&parts.image())
    };
    check(support::HEAP, 1).unwrap();
    check(support::HEAP + 8, 7).unwrap();
    for (at, clock) in [(support::HEAP, 0), (support::HEAP + 4, 1), (USER_END, 1), (u64::MAX - 7, 1)] {
        let fault = check(at, clock).expect_err("a fault");
        assert!(fault.to_string().contains("a deadline"), "{fault}");
    }
}

#[test]
fn frames_of_signal_handlers_that_cannot_be() {
    let check = |frames: &[(u64, u64, u32)], features: Features| {
        let mut parts = Parts::new();
        parts.header.required = (parts.header.required.get() | features.bits()).into();
        parts.components = vec![component(2, 576, 256), component(9, 2688, 8)];
        let frame = |(at, present, len): &(u64, u64, u32)| SignalFrame {
            at: (*at).into(),
            present: (*present).into(),
            len: (*len).into(),
            reserved: 0.into(),
        };
        parts.handlers = frames.iter().map(frame).collect();
        support::check(&parts.image())
    };
    let (at, need) = (support::STACK, Features::SIGNAL_FRAMES);
    check(&[(at, 7, 832), (at + 832, 0x207, 2816)], need).unwrap();
    for wrong in [
        vec![(at + 8, 7, 832)],
        vec![(at, 7, 512)],
        vec![(at, 7, 70_000)],
        // Its end, or the magic number, lies outside.
        vec![(at + 4 * PAGE - 832, 7, 832)],
        vec![(at - 64, 7, 832)],
        vec![(u64::MAX - 63, 7, 832)],
        // Code; a component without a place, or with one outside the area.
        vec![(support::TEXT, 7, 832)],
        vec![(at, 0x27, 2816)],
        vec![(at, 0x207, 832)],
        // Twice, or one in the other.
        vec![(at, 7, 832), (at, 7, 832)],
        vec![(at, 7, 832), (at + 768, 7, 832)],
    ] {
        let fault = check(&wrong, need).expect_err("a fault");
        assert!(fault.to_string().contains("a signal handler's frame"), "{wrong:x?}: {fault}");
    }
    check(&[(at, 7, 832)], Features::empty()).expect_err("no feature");
}

#[test]
fn a_portable_program_needs_less() {
    let all = Cpu { words: [u32::MAX.into(); 8], xcr0: 0x602e7.into(), ..Cpu::default() };
    let portable = all.portable();
    assert_eq!(portable.xcr0, 7);
    // AVX2 is needed; AVX-512F, SHA, XSAVEC are not.
    let bit = |word: usize, bit: u32| portable.words[word].get() >> bit & 1;
    assert_eq!([bit(2, 5), bit(2, 16), bit(2, 29), bit(6, 1)], [1, 0, 0, 0]);
    // Nothing is needed that the CPU does not have.
    assert_eq!(Cpu::default().portable(), Cpu::default());
}
