//! Rules of contents: each segment belongs to one of them, lies within its size, and ascends.

use super::{Check, Result};
use crate::Rule;
use crate::record::content::{Content, ContentFile, ContentKind};
use crate::record::header::Features;
use crate::{PAGE, align_up};

/// `F_SEAL_SEAL` to `F_SEAL_EXEC`.
const SEALS: u32 = 0x3f;

/// The longest name of a memfd (`MFD_NAME_MAX_LEN`), and `/memfd:` before it.
const NAME_MAX: usize = 256;

impl Check<'_, '_> {
    /// Whether these contents are there, and what is open or mapped can lead to them: no file with a name.
    pub(super) fn is_nameless(&self, id: u32) -> bool {
        let content = self.image.rows::<Content>().get(id as usize);
        content.is_some_and(|content| content.kind.get() != ContentKind::Named as u32)
    }

    pub(super) fn contents(&self) -> Result {
        let segments = self.image.content_segments();
        let (mut count, mut used) = (0, 0);
        for content in self.image.each::<Content>() {
            if !self.requires(Features::CONTENTS) {
                return self.bad(Rule::FeatureHeaderDoesNotRequire, content);
            }
            let (kind, size) = (ContentKind::from_number(content.kind.get()), content.identity.size.get());
            let name = self.string(content.name)?;
            let named = match kind {
                Some(ContentKind::Named) if !self.requires(Features::CARRIED_FILES) => false,
                Some(ContentKind::Deleted | ContentKind::Named) => name.first() == Some(&b'/'),
                Some(_) => name.len() < NAME_MAX,
                None => false,
            };
            let known = named && content.id.get() == count && content.seals.get() & !SEALS == 0;
            if !known || size > i64::MAX as u64 - PAGE || content.first.get() as usize != used {
                return self.bad(Rule::SharedContentsImpossibleKindNameSizeOrder, content);
            }
            let mut end = 0;
            for _ in 0..content.segments.get() {
                let segment = segments.get(used).filter(|s| s.addr >= end);
                end = segment.map_or(u64::MAX, |s| s.addr.saturating_add(s.len));
                if end > align_up(size, PAGE) {
                    return self.bad(Rule::SharedContentsWhosePartsMissingOutOrder, content);
                }
                used += 1;
            }
            count += 1;
        }
        if used != segments.len() {
            return self.bad(Rule::PartsSharedContentsBelongNone, self.image.header());
        }
        for file in self.image.each::<ContentFile>() {
            if !self.is_nameless(file.content.get()) {
                return self.bad(Rule::FileSharedContentsNotThere, file);
            }
        }
        Ok(())
    }
}
