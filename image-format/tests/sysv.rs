//! Rules of System V segments: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::ExitCode;
use image_format::PAGE;
use image_format::record::header::Features;
use image_format::record::memory::VmaKind;
use support::{HEAP, Parts};

/// The first attachment, and the parts of the second, among the mappings.
const ONE: usize = 2;

#[test]
fn segments_that_cannot_be() {
    let segment = |says: &str, change: fn(&mut Parts)| {
        let mut parts = Parts::new();
        parts.give_segment();
        assert_eq!(parts.vmas[ONE].start.get(), HEAP + 10 * PAGE);
        change(&mut parts);
        let fault = support::check(&parts.image()).expect_err(says);
        assert_eq!(fault.exit_code(), ExitCode::Malformed, "{fault}");
        assert!(fault.to_string().contains(says), "{fault}");
    };
    let mut parts = Parts::new();
    parts.give_segment();
    support::check(&parts.image()).expect("a segment");
    parts.contents.segments[0].mode = 0o1600.into();
    parts.header.required = (parts.header.required.get() & !Features::SYSV.bits()).into();
    support::check(&parts.image()).expect("one that is marked for removal");

    let own = "not required, or without its contents";
    segment(own, |p| p.header.required = (p.header.required.get() & !Features::SYSV.bits()).into());
    segment(own, |p| p.contents.segments[0].content = 1.into());
    segment(own, |p| p.contents.segments[0].size = (2 * PAGE + 1).into());
    segment(own, |p| p.contents.segments[0].id = u32::MAX.into());
    segment(own, |p| p.contents.segments[0].flags = 0o40000.into());
    segment(own, |p| p.contents.contents[0].kind = 1.into());
    segment(own, |p| p.contents.segments.push(p.contents.segments[0]));
    let whole = "attachment that is not whole";
    segment(whole, |p| {
        p.vmas.remove(ONE + 1);
    });
    segment(whole, |p| {
        p.vmas.remove(ONE + 2);
    });
    segment(whole, |p| p.vmas[ONE].offset = PAGE.into());
    segment(whole, |p| p.vmas[ONE].end = (HEAP + 11 * PAGE).into());
    segment(whole, |p| p.vmas[ONE + 2].offset = (2 * PAGE).into());
    segment(whole, |p| p.vmas[ONE + 2].end = (HEAP + 15 * PAGE).into());
    segment(whole, |p| {
        p.vmas[ONE + 2].start = (HEAP + 14 * PAGE).into();
        p.vmas[ONE + 2].end = (HEAP + 15 * PAGE).into();
    });
    segment(whole, |p| p.vmas[ONE].kind = (VmaKind::FilePrivate as u32).into());
}
