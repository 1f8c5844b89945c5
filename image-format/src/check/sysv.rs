//! Rules of System V segments: each is contents of that kind and of its size, and each mapping of them is a part of a whole attachment.

use super::{Check, Result};
use crate::Rule;
use crate::record::content::{Content, ContentKind};
use crate::record::header::Features;
use crate::record::memory::{Backing, BackingFlags, Vma, VmaKind};
use crate::record::sysv::Sysv;
use crate::{PAGE, align_up};

/// `SHM_RDONLY`.
const RDONLY: u32 = 0o10000;

impl Check<'_, '_> {
    pub(super) fn sysv(&self) -> Result {
        let mut least = 0;
        for one in self.image.each::<Sysv>() {
            let content = self.image.rows::<Content>().get(one.content.get() as usize);
            let fits = content.is_some_and(|content| {
                let size = content.identity.size.get();
                content.kind.get() == ContentKind::SysV as u32
                    && size.is_multiple_of(PAGE)
                    && size == align_up(one.size.get(), PAGE)
            });
            let kept = one.mode.get() & Sysv::DEST == 0 && !self.requires(Features::SYSV);
            if !fits
                || kept
                || one.content.get() < least
                || one.id.get() > i32::MAX as u32
                || one.flags.get() & !RDONLY != 0
            {
                return self.bad(Rule::SystemVSegmentNotRequiredWithoutContents, one);
            }
            least = one.content.get() + 1;
        }
        self.attachments()
    }

    /// The first part of an attachment stands for all of it: none may lack, and nothing else may lie in between.
    fn attachments(&self) -> Result {
        let (backings, segments) = (self.image.rows::<Backing>(), self.image.rows::<Sysv>());
        // Where the next part must begin, in memory and in which segment; none is open when the offset is 0.
        let (mut next, mut offset, mut id) = (0, 0, 0);
        for vma in self.image.each::<Vma>() {
            let backing = backings.get(vma.backing.get() as usize);
            let content = backing.filter(|b| b.flags.get() & BackingFlags::CONTENT.bits() != 0).map(|b| b.content);
            let found = content.map(|content| segments.binary_search_by_key(&content.get(), |one| one.content.get()));
            let segment = found.and_then(core::result::Result::ok).and_then(|index| segments.get(index));
            let Some(one) = segment else {
                if offset == 0 {
                    continue;
                }
                return self.bad(Rule::SystemVAttachmentNotWhole, vma);
            };
            let follows = offset == 0 || (vma.start.get(), one.content.get()) == (next, id);
            let shared = vma.kind.get() == VmaKind::FileShared as u32;
            let end = vma.offset.get().saturating_add(vma.end.get() - vma.start.get());
            let size = align_up(one.size.get(), PAGE);
            if !follows || !shared || vma.offset.get() != offset || end > size {
                return self.bad(Rule::SystemVAttachmentNotWhole, vma);
            }
            (next, offset, id) = (vma.end.get(), if end == size { 0 } else { end }, one.content.get());
        }
        if offset == 0 { Ok(()) } else { self.bad(Rule::SystemVAttachmentNotWhole, self.image.header()) }
    }
}
