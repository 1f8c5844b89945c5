//! The rules of program headers: what follows what, in the file and in memory.

use super::Image;
use crate::elf::{PF_INHERITED, PT_CONTENT, PT_NOTE, PT_PROCESS, ProgramHeader, SIZEOF_PHDR};
use crate::{Fault, PAGE, Rule, SEGMENT_MAX, USER_END, seal};

impl Image<'_> {
    /// Checks that the pages of the parent lie before this image, which begins at `base` of the file.
    ///
    /// # Errors
    /// They do not.
    pub fn check_inherited(&self, base: u64) -> Result<(), Fault> {
        for segment in self.segments().filter(|segment| segment.inherited) {
            if segment.offset % PAGE != 0 || segment.offset.saturating_add(segment.len) > base {
                return Err(Fault::address(Rule::PagesParentDoNotLieImageBefore, segment.addr));
            }
        }
        Ok(())
    }

    pub(super) fn check_headers(&self, last: &ProgramHeader, phoff: u64) -> Result<(), Fault> {
        let mut end_in_file = crate::align_up(self.prefix.len() as u64, PAGE);
        let mut end_in_memory = 0;
        for (i, ph) in self.all.iter().enumerate() {
            let at = phoff + (i as u64 + 1) * SIZEOF_PHDR as u64;
            let bad = |what| Err(Fault::malformed(what, at));
            let of_memory = i < self.of_memory as usize;
            // Those of memory and contents lead, each kind by itself.
            let of_process = i >= self.of_both as usize;
            let kind = if of_process { PT_PROCESS } else { PT_CONTENT };
            if !of_memory && ph.p_type != kind {
                return bad(Rule::ProgramHeaderUnknownTypeOutOrder);
            }
            let (longest, whole) = if of_process { (i64::MAX as u64, 1) } else { (SEGMENT_MAX, PAGE) };
            if ph.p_filesz == 0 || ph.p_filesz > longest || ph.p_filesz % whole != 0 || ph.p_memsz != ph.p_filesz {
                return bad(Rule::SegmentNotWholePagesTooLong);
            }
            let inherited = of_memory && ph.p_flags & PF_INHERITED != 0;
            // Where the pages of the parent lie is the business of whoever knows the whole file: `check_inherited`.
            if !inherited && ph.p_offset != end_in_file {
                return bad(Rule::SegmentDoesNotFollowOneBefore);
            }
            let addr = ph.p_vaddr;
            if addr % whole != 0 {
                return Err(Fault::address(Rule::SegmentNotPageAligned, addr));
            }
            if !inherited {
                end_in_file = crate::align_up(end_in_file.saturating_add(ph.p_filesz), PAGE);
            }
            if !of_memory {
                // Where contents may lie, and whose image it is, is the business of their tables.
                continue;
            }
            if addr < end_in_memory {
                return Err(Fault::address(Rule::SegmentOutOrderOverlapsAnother, addr));
            }
            let end = addr.saturating_add(ph.p_filesz);
            if end > USER_END {
                return Err(Fault::address(Rule::SegmentReachesIntoKernelSpace, addr));
            }
            end_in_memory = end;
        }
        let at = phoff + (self.all.len() as u64 + 1) * SIZEOF_PHDR as u64;
        if last.p_type != PT_NOTE || last.p_offset != end_in_file || last.p_filesz != seal::size(self.all.len() as u64)
        {
            return Err(Fault::malformed(Rule::LastProgramHeaderNotSeal, at));
        }
        let need = last.p_offset.saturating_add(last.p_filesz);
        if self.file_len < need {
            return Err(Fault::truncated(need, self.file_len));
        }
        if self.file_len > need {
            return Err(Fault::malformed(Rule::BytesFollowSeal, need));
        }
        Ok(())
    }
}
