//! Rules of contents: each segment belongs to one of them, lies within its size, and ascends.

use super::{Check, Result};
use crate::record::content::{Content, ContentFile, ContentKind};
use crate::record::header::Features;
use crate::{PAGE, align_up};

/// `F_SEAL_SEAL` to `F_SEAL_EXEC`.
const SEALS: u32 = 0x3f;

/// The longest name of a memfd (`MFD_NAME_MAX_LEN`), and `/memfd:` before it.
const NAME_MAX: usize = 256;

impl Check<'_, '_> {
    pub(super) fn contents(&self) -> Result {
        let table = self.image.rows::<Content>();
        let segments = self.image.content_segments();
        let mut used = 0;
        for (index, content) in table.iter().enumerate() {
            if !self.requires(Features::CONTENTS) {
                return self.bad("shared contents, but the header does not require them", content);
            }
            let (kind, size) = (ContentKind::from_number(content.kind.get()), content.identity.size.get());
            let name = self.string(content.name)?;
            let fits = match kind {
                Some(ContentKind::Deleted) => name.first() == Some(&b'/'),
                Some(_) => name.len() < NAME_MAX,
                None => false,
            };
            if !fits || content.id.get() as usize != index || content.seals.get() & !SEALS != 0 {
                return self.bad("shared contents of an unknown kind, id, name or seal", content);
            }
            if size > i64::MAX as u64 - PAGE || content.first.get() as usize != used {
                return self.bad("shared contents of an impossible size, or out of order", content);
            }
            let mut end = 0;
            for _ in 0..content.segments.get() {
                let Some(segment) = segments.get(used).filter(|s| s.addr >= end) else {
                    return self.bad("shared contents whose parts are missing or out of order", content);
                };
                end = segment.addr.saturating_add(segment.len);
                if end > align_up(size, PAGE) {
                    return self.bad("a part of shared contents lies behind their end", content);
                }
                used += 1;
            }
        }
        if used != segments.len() {
            return self.bad("parts of shared contents that belong to none", self.image.header());
        }
        for file in self.image.rows::<ContentFile>() {
            if file.content.get() as usize >= table.len() {
                return self.bad("an open file whose contents the image does not have", file);
            }
        }
        Ok(())
    }
}
