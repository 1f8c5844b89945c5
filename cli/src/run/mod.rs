//! What `ckpt run` needs: whose job an image is, the program to start, the saves of it, and what is said of them.

pub mod attempt;
pub mod hooks;
pub mod images;
pub mod job;
pub mod lock;
pub mod low_ids;
pub mod notify;
pub mod portable;
pub mod program;
pub mod resumed;
pub mod rollback;
pub mod saves;
pub mod speaker;
pub mod streams;
pub mod trouble;
pub mod witness;
