//! `ckpt`: a process saves itself to an image, on a signal or by a call, and goes on from it later.
//!
//! ```no_run
//! // First thing in main: if there is an image, this process becomes the saved one, and never returns here.
//! ckpt::restart_if_saved("job.ckpt")?;
//! ckpt::on_signal(10, "job.ckpt", ckpt::After::Continue)?;
//! // … days of work …
//! match ckpt::save("job.ckpt")? {
//!     ckpt::Outcome::Saved => println!("saved"),
//!     ckpt::Outcome::Restarted => println!("here again"),
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`session`] walks over a stopped process; [`local`] stops this one. Both are `no_std` and safe inside a signal
//! handler. The Rust API needs feature `std`; `libckpt.so` and `libckpt.a` are built without it (`c-abi`).
#![no_std]

#[cfg(feature = "std")]
extern crate std;

pub mod core_notes;
pub mod cpu;
pub mod handlers;
pub mod hooks;
pub mod local;
pub mod origin;
pub mod output;
pub mod pages;
#[cfg(feature = "std")]
pub mod remote;
pub mod session;
pub mod traces;

#[cfg(feature = "std")]
mod api;
#[cfg(feature = "c-abi")]
pub mod c_abi;
#[cfg(feature = "preload")]
pub mod preload;

#[cfg(feature = "std")]
pub use api::{After, at_restart, on_signal, restart, restart_if_saved, save};
pub use local::Outcome;

/// A panic in code that runs inside other people's programs: say where, and end as a bug does.
#[cfg(all(feature = "c-abi", not(feature = "std"), not(test)))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let line = sys::text::Text::<512>::of(format_args!("ckpt: internal error: {info}\n"));
    let _ = sys::fs::write_all(2, line.as_bytes());
    sys::process::exit(70)
}
