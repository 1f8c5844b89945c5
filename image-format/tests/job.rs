//! Rules of the job that an image belongs to: each broken one is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::ExitCode;
use image_format::record::job::{Job, NO_STREAM};
use support::Parts;

#[test]
fn jobs_that_cannot_be() {
    let mut sound = Parts::new();
    support::check(&sound.image()).expect("no job");
    let record = Job {
        command: sound.string(b"job\0--fast\0"),
        directory: sound.string(b"/srv/job"),
        host: sound.string(b"here"),
        command_sum: 7.into(),
        streams: [NO_STREAM.into(); 3],
        told: 1.into(),
    };
    sound.jobs.push(record);
    support::check(&sound.image()).expect("a job");
    let job = |change: &dyn Fn(&mut Parts)| {
        let mut parts = sound.clone();
        change(&mut parts);
        let fault = support::check(&parts.image()).expect_err("no job");
        assert_eq!(fault.exit_code(), ExitCode::Malformed, "{fault}");
    };
    job(&|p| p.jobs.push(p.jobs[0]));
    job(&|p| p.jobs[0].command = p.string(b""));
    job(&|p| p.jobs[0].command = p.string(b"job"));
    job(&|p| p.jobs[0].command.at = u32::MAX.into());
    job(&|p| p.jobs[0].directory = p.string(b"srv"));
    job(&|p| p.jobs[0].directory = p.string(b"/a\0b"));
    job(&|p| p.jobs[0].directory.len = u32::MAX.into());
    job(&|p| p.jobs[0].host = p.string(b"a\0b"));
    job(&|p| p.jobs[0].host.at = u32::MAX.into());
}
