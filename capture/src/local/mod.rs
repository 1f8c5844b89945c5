//! A process saves itself: one thread stops the others with a signal, walks over the process, lets them go on.
//!
//! Everything here may run inside a signal handler: raw system calls, no allocation, no libc, no lock that an
//! interrupted thread could hold. The walk runs on memory of its own, the window, which is no part of the image.
//! After a restart only what the image carried exists: statics and the threads' own stacks, never the window.

pub mod arm;
mod own;
pub mod save;
mod shared;
mod stop;
mod target;
mod vdso;
mod window;

pub use arm::After;
pub use save::{Outcome, save};
