//! What `ckpt show` says: [`report`] collects it (and is the JSON), [`table`] draws it for people.

pub mod credentials;
pub mod files;
pub mod layout;
pub mod memory;
pub mod object;
pub mod overview;
pub mod report;
pub mod semaphore;
pub mod setting;
pub mod svg;
pub mod table;
pub mod thread;
