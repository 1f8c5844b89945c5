//! Rules of System V semaphores: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::ExitCode;
use image_format::record::header::Features;
use support::Parts;

#[test]
fn sets_that_cannot_be() {
    let mut sound = Parts::new();
    sound.give_semaphores();
    support::check(&sound.image()).expect("a set");
    let semaphores = |change: &dyn Fn(&mut Parts)| {
        let mut parts = sound.clone();
        change(&mut parts);
        let fault = support::check(&parts.image()).expect_err("no set");
        assert_eq!(fault.exit_code(), ExitCode::Malformed, "{fault}");
        assert!(fault.to_string().contains("not required, or that no kernel has"), "{fault}");
    };
    for feature in [Features::SEMAPHORES, Features::SYSV] {
        semaphores(&|p| p.header.required = (p.header.required.get() & !feature.bits()).into());
    }
    for count in [0, 1, 3, u64::MAX] {
        semaphores(&|p| p.contents.semaphores[0].count = count.into());
    }
    for len in [0, 2, 3, 5, 6] {
        semaphores(&|p| p.contents.semaphores[0].values.len = len.into());
    }
    for len in [0, 4, 7, 9, 12] {
        semaphores(&|p| p.contents.semaphores[0].users.len = len.into());
    }
    semaphores(&|p| p.contents.semaphores[0].values.at = u32::MAX.into());
    semaphores(&|p| p.contents.semaphores[0].users.at = u32::MAX.into());
    semaphores(&|p| p.contents.semaphores[0].values = p.string(&[0, 0x80, 0, 0]));
    semaphores(&|p| p.contents.semaphores[0].id = u32::MAX.into());
    semaphores(&|p| p.contents.semaphores[0].mode = 0o1600.into());
    semaphores(&|p| {
        p.contents.semaphores[0].count = 65_537.into();
        p.contents.semaphores[0].values = p.string(&[0; 2 * 65_537]);
        p.contents.semaphores[0].users = p.string(&[0; 4 * 65_537]);
    });
}
