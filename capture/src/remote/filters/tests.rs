//! What filters say, and what is installed again.

use std::vec;

use super::*;

fn filter(program: &[(u16, u8, u8, u32)]) -> Filter {
    let program = program.iter();
    let program = program.map(|&(code, jt, jf, k)| Instruction { code: code.into(), jt, jf, k: k.into() }).collect();
    Filter { how: How::Filter, program }
}

fn of(filters: Vec<Filter>) -> FilterChain {
    FilterChain { rules: Rules::Read(filters, true), withheld: AtomicUsize::new(0) }
}

/// An answer to one call; all others are allowed.
fn on(number: u32, answer: u32) -> Filter {
    filter(&[(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, answer), (0x06, 0, 0, 0x7fff_0000)])
}

#[test]
fn the_strictest_answer_counts() {
    let answers = [0x7fff_0000, 0x7ffc_0000, TRACE, NOTIFY, ERRNO | 1, 0x0003_0000, 0, KILL];
    for (place, stricter) in answers.iter().enumerate() {
        for milder in &answers[..=place] {
            for filters in [vec![on(9, *milder), on(9, *stricter)], vec![on(9, *stricter), on(9, *milder)]] {
                assert_eq!(evaluate(&filters, 9, 0, [0; 6]), stricter & ACTION, "{milder:#x} {stricter:#x}");
                assert_eq!(evaluate(&filters, 8, 0, [0; 6]), 0x7fff_0000);
            }
        }
    }
}

#[test]
fn what_would_end_the_thread_is_not_spared() {
    for (answer, tolerates, allows) in [
        (0x7fff_0000, true, true),
        (0x7ffc_0000, true, true),
        (TRACE, true, false),
        (ERRNO | 38, true, false),
        (NOTIFY, false, false),
        (0x0003_0000, false, false),
        (0, false, false),
        (KILL, false, false),
        (0x1234_0000, false, false),
    ] {
        let chain = of(vec![on(15, answer)]);
        assert_eq!(chain.tolerates(15, 0, [0; 6]), tolerates, "{answer:#x}");
        assert_eq!(chain.allows(Sysno::rt_sigreturn, 0, [0; 6]), allows, "{answer:#x}");
    }
    let strict = of(Vec::new());
    assert!(strict.tolerates(15, 0, [0; 6]) && !strict.tolerates(9, 0, [0; 6]));
    assert!(strict.check_withheld().is_ok());
    strict.withhold(9);
    assert!(strict.check_withheld().is_err());
}

#[test]
fn programs_see_what_the_kernel_shows_them() {
    // Each part of the data, compared with what it is to be.
    let data = [(0, 7), (4, ARCH), (8, 0x5566_7788), (12, 0x1122_3344), (16, 1), (20, 2), (56, 11), (60, 12)];
    let args = [1 | 2 << 32, 3, 4, 5, 6, 11 | 12 << 32];
    for (at, value) in data {
        let same = filter(&[(0x20, 0, 0, at), (0x15, 0, 1, value), (0x06, 0, 0, KILL), (0x06, 0, 0, 0x7fff_0000)]);
        assert_eq!(evaluate(&[same], 7, 0x1122_3344_5566_7788, args), KILL, "{at}");
    }
    // 5 * 6 - 2 = 28, by way of a word of memory and X; 28 >> 2 = 7; 7 / 0 ends with 0.
    let sums = [(0x00, 0, 0, 5), (0x24, 0, 0, 6), (0x14, 0, 0, 2), (0x02, 0, 0, 3), (0x61, 0, 0, 3), (0x87, 0, 0, 0)];
    let rest = [(0x74, 0, 0, 2), (0x15, 1, 0, 7), (0x06, 0, 0, KILL), (0x06, 0, 0, 0x7fff_0000)];
    assert_eq!(evaluate(&[filter(&[&sums[..], &rest].concat())], 0, 0, [0; 6]), 0x7fff_0000);
    let by_zero = [(0x01, 0, 0, 0), (0x3c, 0, 0, 0), (0x06, 0, 0, 0x7fff_0000)];
    assert_eq!(evaluate(&[filter(&by_zero)], 0, 0, [0; 6]), 0);
    // Code that no filter has, and one that runs off its end.
    for wrong in [&[(0x28, 0, 0, 0)][..], &[(0x05, 0, 0, 7)], &[(0x60, 0, 0, 16)]] {
        assert_eq!(evaluate(&[filter(wrong)], 0, 0, [0; 6]), KILL);
    }
}

#[test]
fn each_program_is_kept_once() {
    let mut programs = Vec::new();
    let chain = of(vec![on(9, KILL), on(8, KILL), on(9, KILL)]);
    let steps = chain.steps(7, (0, true), &mut programs);
    assert_eq!(programs.len(), 8);
    let places: Vec<_> = steps.iter().map(|step| (step.at.get(), step.len.get())).collect();
    assert_eq!(places, [(0, 0), (0, 4), (32, 4), (0, 4)]);
    assert_eq!(steps.len() + 1, chain.steps(8, (0, false), &mut programs).len() + 1);
    assert_eq!(programs.len(), 8);
}
#[test]
fn what_all_threads_have_is_installed_once() {
    let kind = |how: &Seccomp| How::of(how).unwrap_or(How::Strict);
    let one = |filters: Vec<Filter>| Some(Arc::new(of(filters)));
    let chain = |last: u32| vec![on(9, KILL), on(8, KILL), on(last, KILL)];
    let all = [one(chain(1)), one(chain(2)), one(vec![on(9, KILL), on(8, KILL)])];
    assert_eq!(FilterChain::common(&all), 2);
    assert_eq!(FilterChain::common(&all[..1]), 0, "nobody shares with one");
    assert_eq!(FilterChain::common(&[one(chain(1)), None]), 0);
    assert_eq!(FilterChain::common(&[one(vec![on(9, KILL)]), one(vec![on(8, KILL)])]), 0);
    // The first forbids what would install the second for all.
    let forbids = || vec![on(Sysno::seccomp as u32, ERRNO), on(9, KILL)];
    assert_eq!(FilterChain::common(&[one(forbids()), one(forbids())]), 1);
    let (mut programs, of_all) = (Vec::new(), [2; 3]);
    let steps = |place: usize, programs: &mut Vec<_>| {
        let chain = all.get(place).and_then(Option::as_ref);
        let steps = chain.map(|chain| chain.steps(7, (of_all.get(place).copied().unwrap_or(0), place == 0), programs));
        steps.unwrap_or_default().iter().map(kind).collect::<Vec<_>>()
    };
    let first = [How::NoNewPrivs, How::SharedFilter, How::SharedFilter, How::Filter];
    assert_eq!(steps(0, &mut programs), first);
    assert_eq!(steps(1, &mut programs), [How::Filter]);
    assert_eq!(steps(2, &mut programs), []);
}
