//! The restart stub.
fn main() {}
