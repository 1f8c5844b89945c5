//! Rules of pipes: which ends are of one pipe, and what those inside the process hold.

use zerocopy::FromBytes;

use super::description::Files;
use super::{Check, Result};
use crate::NoteType;
use crate::Rule;
use crate::record::header::Features;
use crate::record::pipe::{HUNG_UP, NONE, OPENED, Pipe, PipeData};

impl Check<'_, '_> {
    pub(super) fn pipes(&self, files: &Files<'_>) -> Result {
        let find = |id: u32| files.find(NoteType::Pipe, id).and_then(|bytes| Pipe::ref_from_bytes(bytes).ok());
        let data = self.image.rows::<PipeData>();
        let is_inside = |pipe: &Pipe| self.image.each::<PipeData>().place(pipe.pipe.get()).is_some();
        let mut unseen = self.image.each::<Pipe>().len();
        for first in self.image.each::<Pipe>().filter(|pipe| pipe.pipe == pipe.id) {
            let (mut end, mut made) = (first, [false; 2]);
            loop {
                unseen = unseen.saturating_sub(1);
                if (end.pipe, end.named) != (first.id, first.named) || end.how.get() & !(OPENED | HUNG_UP) != 0 {
                    return self.bad(Rule::EndPipeNotPipe, end);
                }
                let opened = end.how.get() & OPENED != 0;
                let twice = made.get_mut((end.flags.get() & 3) as usize).map(|made| core::mem::replace(made, !opened));
                if end.named.get() == 0 && is_inside(end) {
                    if opened && !self.requires(Features::PIPES_AGAIN) {
                        return self.bad(Rule::FeatureHeaderDoesNotRequire, end);
                    }
                    if !opened && twice != Some(false) {
                        return self.bad(Rule::EndPipePipe2DoesNotMake, end);
                    }
                }
                let next = end.next.get();
                if next == NONE {
                    break;
                }
                match find(next).filter(|_| next > end.id.get()) {
                    Some(other) => end = other,
                    None => return self.bad(Rule::EndPipeFollowedNone, end),
                }
            }
        }
        if unseen != 0 {
            return self.bad(Rule::EndPipeNoOtherEndLeads, self.image.header());
        }
        self.pipe_data(data, find)
    }

    fn pipe_data<'p>(&self, data: &[PipeData], find: impl Fn(u32) -> Option<&'p Pipe>) -> Result {
        let mut least = 0;
        for one in data {
            let pipe = one.pipe.get();
            if !self.requires(Features::INNER_PIPES) {
                return self.bad(Rule::FeatureHeaderDoesNotRequire, one);
            }
            if find(pipe).is_none_or(|first| first.pipe.get() != pipe) {
                return self.bad(Rule::PipeContentsWithoutEnd, one);
            }
            let size = one.size.get() as usize;
            if self.image.bytes(one.bytes).is_none_or(|bytes| bytes.len() > size) || one.packet.get() > 1 {
                return self.bad(Rule::PipeContentsDoNotFitStringsBuffer, one);
            }
            if pipe < least {
                return self.bad(Rule::ContentsPipesOutOrder, one);
            }
            least = pipe;
        }
        Ok(())
    }
}
