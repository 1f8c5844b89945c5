//! The stub's bytes, for programs that carry it as their restore entry.

/// The restart stub, a whole executable; empty when this crate was built without one (see [`is_present`]).
pub static STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/restart-stub"));

/// The larger one, which restarts trees of processes, too; empty as [`STUB`].
pub static TREE_STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/restart-stub-tree"));

/// Whether a stub was built in: `cargo xtask dist` does, a plain `cargo build` does not.
#[must_use]
pub fn is_present() -> bool {
    !STUB.is_empty()
}
