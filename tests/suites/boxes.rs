//! Other kernels, other CPUs, other moments: what is saved here goes on in a box, and the other way round.
//!
//! A kernel that cannot be had is said; without 6.1 and another one the suite fails.

use anyhow::{Result, ensure};
use ckpt_tests::User;
use ckpt_tests::boxes::{KERNELS, Kernel, Machine, Options, fetch};

/// All kernels that can be had.
fn kernels() -> Vec<Kernel> {
    let had = |name: &'static str| match fetch(name) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            println!("SKIPPED kernel {name}: {error:#}");
            None
        }
    };
    KERNELS.iter().filter_map(|(name, ..)| had(name)).collect()
}

#[test]
fn there_are_two_other_kernels() -> Result<()> {
    let names: Vec<_> = kernels().iter().map(|k| k.name).collect();
    println!("{} of {} kernels: {}", names.len(), KERNELS.len(), names.join(", "));
    ensure!(names.contains(&"6.1") && names.len() > 1, "6.1 and another one are needed, there are {names:?}");
    Ok(())
}

#[test]
fn files_go_in_and_out() -> Result<()> {
    let kernel = fetch("6.1")?;
    let mut machine = Machine::boot(&kernel, &Options { cpus: 1, ..Options::default() })?;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    machine.put("/tmp/file", &bytes)?;
    ensure!(machine.get("/tmp/file")? == bytes, "the file differs");
    ensure!(machine.must("id -u")? == "0\n");
    ensure!(machine.run_as(User::Nobody, "id -u; exit 3")?.code == 3);
    machine.must("restart-stub --version && ckpt --version")?;
    Ok(())
}
