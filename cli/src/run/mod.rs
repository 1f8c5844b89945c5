//! What `ckpt run` needs: the program to start, the library to load into it, the clock that saves it.

pub mod every;
pub mod library;
pub mod program;
