//! The exit codes of faults are a contract.

use image_format::{Fault, Part};

#[test]
fn exit_codes_are_one_each() {
    let faults = [
        (Fault::Empty, 70),
        (Fault::NotElf, 71),
        (Fault::Compressed, 71),
        (Fault::WrongMachine(3), 72),
        (Fault::truncated(2, 1), 73),
        (Fault::Checksum(Part::Prefix), 74),
        (Fault::Checksum(Part::Seal), 74),
        (Fault::malformed(image_format::Rule::TooFewProgramHeaders, 0), 75),
        (Fault::address(image_format::Rule::TooFewProgramHeaders, 0), 76),
        (Fault::Newer(2), 77),
        (Fault::Feature(4), 77),
        (Fault::Checksum(Part::Segment(4096)), 89),
    ];
    for (fault, code) in faults {
        assert_eq!(fault.exit_code() as u8, code, "{fault}");
    }
}
