//! The stub's bytes, for programs that carry it as their restore entry.

/// The restart stub, a whole executable; empty when this crate was built without one (see [`is_present`]).
pub static STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/restart-stub"));

/// Whether a stub was built in: in this repository `cargo xtask` does that, a plain `cargo build` does not; elsewhere any build does.
#[must_use]
pub fn is_present() -> bool {
    !STUB.is_empty()
}
