//! What this kernel and this user can do for a save and a restart, each thing found out by trying it.
//!
//! Must never go by a version number, and never change anything that outlives the question.

pub mod facts;
pub mod trial;

use serde::Serialize;

/// One thing that was found out.
#[derive(Debug, Serialize)]
pub struct Fact {
    /// Stable name.
    pub name: &'static str,
    /// Whether it is there; none for what is neither good nor bad.
    pub ok: Option<bool>,
    /// A value, or the kernel's word why not.
    pub value: String,
    /// What it means for a save or a restart.
    pub meaning: &'static str,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this object.
    pub schema: u32,
    /// Whether `ckpt run` and the like can save from outside.
    pub save: bool,
    /// Whether images can be restarted in place.
    pub restart: bool,
    /// Whether `--pid keep` can work.
    pub keep: bool,
    /// Whether `--namespace` can work.
    pub namespace: bool,
    /// Features that an image may require of this version.
    pub features: Vec<String>,
    /// Everything in detail.
    pub facts: Vec<Fact>,
}

impl Report {
    /// Tries everything.
    pub fn new() -> Self {
        let facts = facts::all();
        let all = |names: &[&str]| {
            names.iter().all(|name| facts.iter().any(|fact| fact.name == *name && fact.ok == Some(true)))
        };
        Self {
            schema: 1,
            save: all(&["proc", "ptrace", "signal-masks", "tracer-memory"]),
            restart: all(&["proc", "mm-map", "vdso-movable", "stub"]),
            keep: all(&["ids-here"]),
            namespace: all(&["ids-in-namespace"]),
            features: crate::show::report::features(u64::MAX),
            facts,
        }
    }
}
