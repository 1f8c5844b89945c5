//! What mappings have besides their contents: each is refused where it cannot be, or where the image does not require it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::PAGE;
use image_format::record::guard::Guard;
use image_format::record::header::Features;
use image_format::record::memory::VmaFlags;
use image_format::record::pkey::Pkey;
use support::Parts;

#[test]
fn guards_that_cannot_be() {
    let at = |start: u64, end: u64| Guard { start: start.into(), end: end.into() };
    let guards = |required: u64, guards: &[Guard]| {
        let mut parts = Parts::new();
        parts.header.required = (parts.header.required.get() | required).into();
        parts.guards = guards.to_vec();
        support::check(&parts.image())
    };
    let (needed, heap) = (Features::GUARDS.bits(), support::HEAP);
    guards(needed, &[at(heap, heap + PAGE), at(heap + PAGE, heap + 3 * PAGE)]).unwrap();
    for (required, wrong) in [
        (0, vec![at(heap, heap + PAGE)]),
        (needed, vec![at(heap + 1, heap + PAGE)]),
        (needed, vec![at(heap, heap + PAGE + 1)]),
        (needed, vec![at(heap, heap)]),
        (needed, vec![at(heap + PAGE, heap)]),
        (needed, vec![at(heap, heap + 9 * PAGE)]),
        (needed, vec![at(PAGE, 2 * PAGE)]),
        (needed, vec![at(heap, heap + 2 * PAGE), at(heap + PAGE, heap + 3 * PAGE)]),
    ] {
        let fault = guards(required, &wrong).expect_err("a fault");
        assert!(fault.to_string().contains("a guard region"), "{fault}");
    }
}

#[test]
fn a_protection_key_that_nobody_has() {
    let keyed = |keys: u32, key: u32| {
        let mut parts = Parts::new();
        parts.header.required = (parts.header.required.get() | Features::PROTECTION_KEYS.bits()).into();
        parts.keys.push(Pkey { keys: keys.into(), execute_only: 0.into(), reserved: 0.into() });
        parts.vmas[0].key = key.into();
        support::check(&parts.image())
    };
    keyed(0b1010, 3).unwrap();
    keyed(0b1010, 0).unwrap();
    for key in [2, 4, 15, 16, 31, 32, 33, u32::MAX] {
        assert!(keyed(0b1010, key).expect_err("a fault").to_string().contains("a protection key"), "{key}");
    }
    let mut parts = Parts::new();
    parts.keys.push(Pkey { keys: 2.into(), execute_only: 0.into(), reserved: 0.into() });
    assert!(support::check(&parts.image()).expect_err("a fault").to_string().contains("protection keys"));
}

#[test]
fn a_seal_that_is_not_required() {
    let sealed = |required: u64| {
        let mut parts = Parts::new();
        parts.header.required = (parts.header.required.get() | required).into();
        parts.vmas[0].flags = VmaFlags::SEALED.bits().into();
        support::check(&parts.image())
    };
    sealed(Features::SEALED.bits()).unwrap();
    assert!(sealed(0).expect_err("a fault").to_string().contains("a sealed mapping"));
}
