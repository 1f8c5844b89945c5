//! The restart stub's library: what can be tested on a host. The bin `restart-stub` does the rest.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "embed")]
pub mod embedded;
