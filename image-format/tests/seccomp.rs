//! What restricts threads, and nonsense in it: programs that no kernel takes, chains out of order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use image_format::record::header::Features;
use image_format::record::seccomp::{How, Instruction, Seccomp};
use support::{PID, Parts, THREAD};

const ROW: u64 = size_of::<Seccomp>() as u64;

fn code(program: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
    program.iter().map(|&(code, jt, jf, k)| Instruction { code: code.into(), jt, jf, k: k.into() }).collect()
}

/// Rows as a save writes them: thread, step, the program's first instruction and length.
fn rows(steps: &[(u32, How, u64, u64)], privilege: u32) -> Vec<Seccomp> {
    let behind = (steps.len() as u64 + 1) * ROW;
    let row = |(row, &(tid, how, at, len)): (usize, &(u32, How, u64, u64))| {
        let [number, first, second] = how.call().map(Into::into);
        let (third, at) = if len == 0 { (0, 0) } else { (row as u64 * ROW + 24, behind + 8 * at) };
        Seccomp { number, first, second, tid: tid.into(), third: third.into(), len: len.into(), at: at.into() }
    };
    let mut all: Vec<_> = steps.iter().enumerate().map(row).collect();
    let end = row((0, &(0, How::NoNewPrivs, 0, 0)));
    all.push(Seccomp { number: 0.into(), first: privilege.into(), second: 0.into(), ..end });
    all
}

fn check(programs: Vec<Instruction>, seccomp: Vec<Seccomp>) -> Result<(), image_format::Fault> {
    let mut parts = Parts::new();
    parts.give_frames();
    parts.header.required = (parts.header.required.get() | Features::SECCOMP.bits()).into();
    (parts.programs, parts.seccomp) = (programs, seccomp);
    support::check(&parts.image())
}

const ALLOW: (u16, u8, u8, u32) = (0x06, 0, 0, 0x7fff_0000);

#[test]
fn programs_are_as_the_kernel_takes_them() {
    let one = |program: &[(u16, u8, u8, u32)]| {
        let len = program.len() as u64;
        check(code(program), rows(&[(PID, How::NoNewPrivs, 0, 0), (PID, How::Filter, 0, len)], 0))
    };
    for sound in [
        &[ALLOW][..],
        &[(0x20, 0, 0, 60), (0x15, 0, 1, 59), (0x06, 0, 0, 0), ALLOW],
        &[(0x20, 0, 0, 0), (0x02, 0, 0, 15), (0x60, 0, 0, 15), (0x16, 0, 0, 0)],
        &[(0x05, 0, 0, 1), ALLOW, ALLOW],
        // Written on both ways.
        &[(0x02, 0, 0, 3), (0x15, 1, 0, 7), (0x02, 0, 0, 3), (0x61, 0, 0, 3), ALLOW],
    ] {
        one(sound).unwrap_or_else(|fault| panic!("{sound:x?}: {fault}"));
    }
    for wrong in [
        &[(0x20, 0, 0, 0)][..],
        &[(0x20, 0, 0, 64), ALLOW],
        &[(0x20, 0, 0, 2), ALLOW],
        &[(0x28, 0, 0, 0), ALLOW],
        &[(0x94, 0, 0, 3), ALLOW],
        &[(0x34, 0, 0, 0), ALLOW],
        &[(0x64, 0, 0, 32), ALLOW],
        &[(0x02, 0, 0, 16), ALLOW],
        &[(0x60, 0, 0, 0), ALLOW],
        &[(0x15, 1, 0, 0), (0x02, 0, 0, 1), (0x60, 0, 0, 1), ALLOW],
        &[(0x05, 0, 0, 1), ALLOW],
        &[(0x05, 0, 0, u32::MAX), ALLOW],
        &[(0x15, 0, 1, 0), ALLOW],
        &[(0x106, 0, 0, 0)],
        &[(0xff06, 0, 0, 0)],
    ] {
        let fault = one(wrong).expect_err("a fault");
        assert!(fault.to_string().contains("no kernel takes"), "{wrong:x?}: {fault}");
    }
}

#[test]
fn chains_are_whole_and_in_order() {
    use How::{Filter, FilterByPrctl, LoggingFilter, NoNewPrivs, SharedFilter, SharedLoggingFilter, Strict};
    let programs = || code(&[ALLOW, ALLOW]);
    for sound in [
        rows(
            &[(PID, NoNewPrivs, 0, 0), (PID, Filter, 0, 1), (PID, LoggingFilter, 1, 1), (THREAD, NoNewPrivs, 0, 0)],
            0,
        ),
        rows(&[(PID, Strict, 0, 0), (THREAD, NoNewPrivs, 0, 0), (THREAD, FilterByPrctl, 0, 2)], 0),
        rows(&[(THREAD, Filter, 1, 1)], 1),
        rows(
            &[
                (PID, NoNewPrivs, 0, 0),
                (PID, SharedFilter, 0, 1),
                (PID, SharedLoggingFilter, 0, 1),
                (THREAD, Filter, 1, 1),
            ],
            0,
        ),
        rows(&[(PID, SharedFilter, 0, 1), (PID, Filter, 0, 1), (THREAD, Filter, 1, 1)], 1),
    ] {
        check(programs(), sound.clone()).unwrap_or_else(|fault| panic!("{sound:?}: {fault}"));
    }
    let changed = |change: fn(&mut Vec<Seccomp>)| {
        let mut all = rows(&[(PID, NoNewPrivs, 0, 0), (PID, Filter, 0, 1), (THREAD, Filter, 1, 1)], 1);
        change(&mut all);
        all
    };
    for wrong in [
        rows(&[(THREAD, Filter, 0, 1), (PID, Filter, 0, 1)], 1),
        rows(&[(PID, Filter, 0, 1), (PID, NoNewPrivs, 0, 0)], 1),
        rows(&[(PID, Strict, 0, 0), (PID, Filter, 0, 1)], 0),
        rows(&[(PID, NoNewPrivs, 0, 0), (PID, NoNewPrivs, 0, 0)], 0),
        rows(&[(PID, Filter, 0, 0)], 1),
        rows(&[(THREAD, SharedFilter, 0, 1)], 1),
        rows(&[(PID, Filter, 0, 1), (PID, SharedFilter, 0, 1)], 1),
        rows(&[(PID, SharedFilter, 0, 1), (THREAD, NoNewPrivs, 0, 0), (THREAD, Filter, 0, 1)], 0),
        rows(&[(PID, Filter, 1, 2)], 1),
        rows(&[(PID, Strict, 0, 1)], 0),
        rows(&[(PID, Filter, 0, 1)], 0),
        rows(&[(7, Filter, 0, 1)], 1),
        rows(&[(0, Filter, 0, 1)], 1),
        vec![Seccomp { tid: PID.into(), ..rows(&[], 0)[0] }],
        changed(|all| all.truncate(3)),
        changed(|all| all[1].third = 0.into()),
        changed(|all| all[1].third = 24.into()),
        changed(|all| all[1].at = 0.into()),
        changed(|all| all[1].at = (all[1].at.get() + 1).into()),
        changed(|all| all[1].at = u64::MAX.into()),
        changed(|all| all[1].len = u64::MAX.into()),
        changed(|all| all[1].second = 8.into()),
        changed(|all| all[1].number = 59.into()),
    ] {
        assert!(check(programs(), wrong.clone()).is_err(), "{wrong:?}");
    }
    // As many instructions as a thread may have, and one more.
    let full = |len: usize| {
        let program = code(&vec![ALLOW; 4096]);
        let mut steps = vec![(PID, Filter, 0, 4096); 7];
        steps.push((PID, Filter, 0, len as u64));
        check(program, rows(&steps, 1))
    };
    full(32_768 - 8 * 4 - 7 * 4096).unwrap();
    assert!(full(32_768 - 8 * 4 - 7 * 4096 + 1).is_err());
}
