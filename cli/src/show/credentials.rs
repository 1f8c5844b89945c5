//! Users, groups and capabilities of a process of a tree whose processes have different ones.

use image_format::record::credentials;
use image_format::{Fault, Image};
use serde::Serialize;

/// A process's credentials.
#[derive(Debug, Serialize)]
pub struct Credentials {
    /// Real, effective and saved user id, and that for files.
    pub uid: [u32; 4],
    /// The same of groups.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Sets of capabilities, hexadecimal.
    pub capabilities: Capabilities,
}

/// Sets of capabilities.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "as in capabilities(7)")]
pub struct Capabilities {
    pub effective: String,
    pub permitted: String,
    pub inheritable: String,
    pub bounding: String,
    pub ambient: String,
}

impl Credentials {
    /// Those of an image's process; `None`: they are those of the restart.
    pub fn of(image: &Image<'_>) -> Result<Option<Self>, Fault> {
        let Some(one) = image.table::<credentials::Credentials>()?.first() else { return Ok(None) };
        let groups = image.bytes(one.groups).unwrap_or_default();
        let set = |set: zerocopy::little_endian::U64| format!("{:#x}", set.get());
        Ok(Some(Self {
            uid: one.uid.map(|id| id.get()),
            gid: one.gid.map(|id| id.get()),
            groups: groups.as_chunks().0.iter().map(|group| u32::from_le_bytes(*group)).collect(),
            capabilities: Capabilities {
                effective: set(one.effective),
                permitted: set(one.permitted),
                inheritable: set(one.inheritable),
                bounding: set(one.bounding),
                ambient: set(one.ambient),
            },
        }))
    }

    /// For people, on one line.
    pub fn line(&self) -> String {
        let ids = |ids: &[u32; 4]| match ids {
            [real, rest @ ..] if rest == &[*real; 3] => real.to_string(),
            all => all.map(|id| id.to_string()).join("/"),
        };
        let groups = self.groups.iter().map(u32::to_string).collect::<Vec<_>>();
        let groups = if groups.is_empty() { String::new() } else { format!(", groups {}", groups.join(" ")) };
        format!(
            "user {}, group {}{groups}, capabilities {}",
            ids(&self.uid),
            ids(&self.gid),
            self.capabilities.effective
        )
    }
}
