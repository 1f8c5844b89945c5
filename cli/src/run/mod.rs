//! What `ckpt run` needs: the program to start, and the saves of it.

pub mod portable;
pub mod program;
pub mod saves;
