//! What `ckpt run` needs: the program to start, and the saves of it.

pub mod program;
pub mod saves;
