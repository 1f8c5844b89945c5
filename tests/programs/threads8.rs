//! The Rust twin of threads8.c with std threads: mutex, condition variables, thread-locals, floating point, a running
//! interval timer; and `sched_getcpu()` follows each thread. Built by rustc alone.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;
use std::{env, thread};

unsafe extern "C" {
    fn sched_getcpu() -> i32;
    fn sched_getaffinity(pid: i32, size: usize, mask: *mut u64) -> i32;
    fn sched_setaffinity(pid: i32, size: usize, mask: *const u64) -> i32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> *const c_void;
    fn setitimer(which: i32, new: *const [i64; 4], old: *mut [i64; 4]) -> i32;
}

static TICKS: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

extern "C" fn on_tick(_: i32) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

fn fail(reason: &str) -> ! {
    println!("FAIL: {reason}");
    exit(1);
}

fn expect_core_follows() {
    let mut all = [0u64; 16];
    // SAFETY: the mask is as large as said.
    if unsafe { sched_getaffinity(0, 128, all.as_mut_ptr()) } < 0 {
        fail("sched_getaffinity");
    }
    for core in (0..1024).filter(|core| all[core / 64] >> (core % 64) & 1 == 1) {
        let mut one = [0u64; 16];
        one[core / 64] = 1 << (core % 64);
        // SAFETY: as above.
        let (moved, now) = unsafe { (sched_setaffinity(0, 128, one.as_ptr()), sched_getcpu()) };
        if moved != 0 || now != core as i32 {
            fail(&format!("moved to core {core}, sched_getcpu() says {now}"));
        }
    }
    // SAFETY: as above.
    unsafe { sched_setaffinity(0, 128, all.as_ptr()) };
}

/// Queue, number of values put, and how many producers ended.
type Shared = Arc<(Mutex<(VecDeque<u64>, u64, u32)>, Condvar)>;

fn produce(shared: &Shared) -> u64 {
    let (lock, changed) = &**shared;
    let mut next = 1u64;
    while !STOP.load(Ordering::Acquire) {
        next = next.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut state = lock.lock().unwrap();
        while state.0.len() > 15 {
            state = changed.wait(state).unwrap();
        }
        state.0.push_back(next);
        state.1 += 1;
        changed.notify_all();
        drop(state);
        OWN.with(|own| own.set(own.get().wrapping_add(next)));
        if next % 64 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    lock.lock().unwrap().2 += 1;
    changed.notify_all();
    OWN.with(Cell::get)
}

fn consume(shared: &Shared) -> u64 {
    let (lock, changed) = &**shared;
    let mut state = lock.lock().unwrap();
    loop {
        if let Some(value) = state.0.pop_front() {
            OWN.with(|own| own.set(own.get().wrapping_add(value)));
            changed.notify_all();
        } else if state.2 == 2 {
            return OWN.with(Cell::get);
        } else {
            state = changed.wait(state).unwrap();
        }
    }
}

/// Sums a slowly converging series over and over; each round must give the very same bits.
fn compute(seed: u64) -> u64 {
    let series = || (1..2000u64).fold(0f64, |sum, i| (sum + ((seed + i) as f64).sqrt()).mul_add(0.999, (i as f64).sin()));
    let first = series();
    let mut rounds = 0;
    while !STOP.load(Ordering::Acquire) {
        if series().to_bits() != first.to_bits() {
            fail("a sum of floating point numbers changed");
        }
        rounds += 1;
    }
    rounds
}

fn main() {
    // SAFETY: the handler only counts; the timer's value lives through the call.
    unsafe {
        signal(14, on_tick);
        setitimer(0, &[0, 5000, 0, 5000], std::ptr::null_mut());
    }
    let shared: Shared = Arc::default();
    let started = Arc::new(Barrier::new(9));
    let threads: Vec<_> = (0..8u64)
        .map(|i| {
            let (shared, started) = (shared.clone(), started.clone());
            let work = move || {
                started.wait();
                let result = match i {
                    0 | 1 => produce(&shared),
                    2 | 3 => consume(&shared),
                    _ => compute(i),
                };
                expect_core_follows();
                if thread::current().name() != Some(&format!("worker {i}")) {
                    fail("a thread forgot its name");
                }
                result
            };
            thread::Builder::new().name(format!("worker {i}")).spawn(work).unwrap()
        })
        .collect();
    started.wait();
    while TICKS.load(Ordering::Relaxed) < 3 {
        thread::sleep(Duration::from_millis(1));
    }

    println!("ready");
    std::io::stdout().flush().unwrap();
    let go = PathBuf::from(env::var_os("GUEST_GO").expect("GUEST_GO names a file"));
    while !go.exists() {
        thread::sleep(Duration::from_millis(1));
    }

    let before = TICKS.load(Ordering::Relaxed);
    for _ in 0..10_000 {
        thread::sleep(Duration::from_millis(1));
        if TICKS.load(Ordering::Relaxed) >= before + 3 {
            break;
        }
    }
    if TICKS.load(Ordering::Relaxed) < before + 3 {
        fail("the interval timer no longer runs");
    }
    STOP.store(true, Ordering::Release);
    let sums: Vec<u64> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    if sums[0].wrapping_add(sums[1]) != sums[2].wrapping_add(sums[3]) {
        fail("what was produced is not what was consumed");
    }
    if shared.0.lock().unwrap().1 == 0 || sums[4..].contains(&0) {
        fail("some thread did nothing");
    }
    expect_core_follows();
    println!("PASS");
}
