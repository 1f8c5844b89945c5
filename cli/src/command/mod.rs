//! The subcommands, one file each: its arguments and its `main`.

pub mod bundle;
pub mod check;
pub mod completions;
pub mod list;
pub mod man;
pub mod migrate;
pub mod receive;
pub mod restart;
pub mod run;
pub mod save;
pub mod show;
pub mod verify;
