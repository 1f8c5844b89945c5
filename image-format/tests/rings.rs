//! io_uring instances in an image.
#![allow(clippy::unwrap_used)]

mod support;

use image_format::record::header::Features;

use support::Parts;

#[test]
fn rings_that_cannot_be() {
    let with = |change: fn(&mut Parts)| {
        let mut parts = Parts::new();
        parts.give_ring();
        change(&mut parts);
        support::check(&parts.image())
    };
    with(|_| ()).unwrap();
    for (change, says) in [
        (
            (|p| p.header.required = (p.header.required.get() & !Features::RINGS.bits()).into()) as fn(&mut Parts),
            "a feature that the header does not require",
        ),
        (|p| p.backings.last_mut().unwrap().flags = 0.into(), "a path is not absolute"),
        (|p| p.events.rings.push(p.events.rings[0]), "open files are out of order or repeated"),
    ] {
        let fault = with(change).unwrap_err().to_string();
        assert!(fault.contains(says), "{fault}");
    }
}
