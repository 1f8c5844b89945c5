//! Contents without a named file, for the sample process.

use image_format::elf::{PF_CONTENT, PF_R};
use image_format::record::content::{Content, ContentFile, ContentKind};
use image_format::record::descriptor::Descriptor;
use image_format::record::header::Features;
use image_format::record::memory::{Backing, BackingFlags, Vma, VmaKind};
use image_format::record::semaphore::Semaphore;
use image_format::record::sysv::Sysv;
use image_format::{Notes, PAGE};

use super::{HEAP, Parts, put, run, vma, zeroed};

/// Their tables.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub contents: Vec<Content>,
    pub files: Vec<ContentFile>,
    pub segments: Vec<Sysv>,
    pub semaphores: Vec<Semaphore>,
}

impl Contents {
    pub fn put(&self, notes: &mut Notes<'_>) {
        put(notes, &self.contents);
        put(notes, &self.files);
        put(notes, &self.segments);
        put(notes, &self.semaphores);
    }
}

impl Parts {
    /// A memfd of three pages with a hole, open as descriptor 20 and mapped; an empty deleted file.
    pub fn give_contents(&mut self) {
        self.header.required = (self.header.required.get() | Features::CONTENTS.bits()).into();
        let names = [self.string(b"/memfd:ring"), self.string(b"/tmp/gone")];
        let mut memfd: Content = zeroed();
        (memfd.kind, memfd.name, memfd.seals) = ((ContentKind::Memfd as u32).into(), names[0], 6.into());
        (memfd.identity.size, memfd.segments) = ((2 * PAGE + 5).into(), 2.into());
        let mut gone: Content = zeroed();
        (gone.id, gone.kind, gone.name) = (1.into(), (ContentKind::Deleted as u32).into(), names[1]);
        gone.first = 2.into();
        self.contents.contents = vec![memfd, gone];
        self.runs.extend([run(0, PF_CONTENT | PF_R, 1), run(2 * PAGE, PF_CONTENT | PF_R, 1)]);
        let mut file: ContentFile = zeroed();
        (file.id, file.flags, file.offset) = (20.into(), 0o100_002.into(), 7.into());
        self.contents.files = vec![file];
        let (fd, file, cloexec, reserved) = (20.into(), 20.into(), 0.into(), 0.into());
        self.descriptors.push(Descriptor { fd, file, cloexec, reserved });
        let mut backing: Backing = zeroed();
        (backing.path, backing.flags) = (names[0], BackingFlags::CONTENT.bits().into());
        self.backings.push(backing);
        let index = u32::try_from(self.backings.len() - 1).unwrap();
        let none = image_format::StrRef::default();
        let at = self.vmas.iter().position(|v| v.start.get() > HEAP + 8 * PAGE).unwrap();
        self.vmas.insert(at, vma(HEAP + 10 * PAGE, 2, 3, VmaKind::FileShared, index, none));
    }

    /// Two System V semaphores, one of which the process was the last to use.
    pub fn give_semaphores(&mut self) {
        let features = Features::SEMAPHORES | Features::SYSV;
        self.header.required = (self.header.required.get() | features.bits()).into();
        let values = self.string(&[1, 0, 0xff, 0x7f]);
        let users = self.string(&[0x92, 0x10, 0, 0, 0, 0, 0, 0]);
        let (mode, id) = (0o640.into(), 7.into());
        self.contents.semaphores =
            vec![Semaphore { key: 0x1111.into(), mode, id, count: 2.into(), values, users, ..zeroed() }];
    }

    /// A System V segment of two pages, attached twice, once in two parts.
    pub fn give_segment(&mut self) {
        self.header.required = (self.header.required.get() | (Features::CONTENTS | Features::SYSV).bits()).into();
        let name = self.string(b"/SYSV00001111");
        let mut content: Content = zeroed();
        (content.kind, content.name, content.segments) = ((ContentKind::SysV as u32).into(), name, 1.into());
        content.identity.size = (2 * PAGE).into();
        self.contents.contents = vec![content];
        self.runs.push(run(0, PF_CONTENT | PF_R, 1));
        let (mode, size, id) = (0o600.into(), (PAGE + 1).into(), 7.into());
        self.contents.segments = vec![Sysv { key: 0x1111.into(), mode, size, id, ..zeroed() }];
        let mut backing: Backing = zeroed();
        (backing.path, backing.flags) = (name, BackingFlags::CONTENT.bits().into());
        self.backings.push(backing);
        let index = u32::try_from(self.backings.len() - 1).unwrap();
        let part = |page, pages, offset: u64| {
            let vma = vma(HEAP + page * PAGE, pages, 3, VmaKind::FileShared, index, image_format::StrRef::default());
            Vma { offset: (offset * PAGE).into(), ..vma }
        };
        let at = self.vmas.iter().position(|v| v.start.get() > HEAP + 8 * PAGE).unwrap();
        self.vmas.splice(at..at, [part(10, 2, 0), part(12, 1, 0), part(13, 1, 1)]);
    }
}
