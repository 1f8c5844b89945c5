//! Mappings of an image, and their sums by kind.

use image_format::record::content::{Content, ContentKind};
use image_format::record::memory::{Backing, Vma, VmaFlags, VmaKind};
use image_format::record::shared_file::SharedFile;
use image_format::record::sysv::Sysv;
use image_format::{Fault, Image};
use serde::Serialize;

use super::report::string;

/// All memory.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Bytes of address space.
    pub mapped: u64,
    /// Bytes whose contents are in the image.
    pub saved: u64,
    /// The same by kind.
    pub kinds: Vec<Sum>,
    /// Each mapping, ascending.
    pub mappings: Vec<Mapping>,
    /// Contents that no named file holds, mapped or open.
    pub contents: Vec<Contents>,
    /// Named files that are written through shared mappings.
    pub shared_files: Vec<SharedBytes>,
}

/// A named file that must hold at the restart what it held: its bytes are not in the image.
#[derive(Debug, Serialize)]
pub struct SharedBytes {
    /// The file.
    pub path: String,
    /// Bytes whose checksums are in the image.
    pub bytes: u64,
}

fn shared_files(image: &Image<'_>) -> Result<Vec<SharedBytes>, Fault> {
    let mut files: Vec<SharedBytes> = Vec::new();
    for piece in image.table::<SharedFile>()? {
        let (path, bytes) = (string(image, piece.path)?, u64::from(piece.len.get()));
        match files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.bytes += bytes,
            None => files.push(SharedBytes { path, bytes }),
        }
    }
    Ok(files)
}

/// The contents of a memfd, of a deleted file, of shared memory.
#[derive(Debug, Serialize)]
pub struct Contents {
    /// By which descriptors name it.
    pub id: u32,
    /// `memfd`, `deleted`, `anonymous` or `sysv`.
    pub kind: &'static str,
    /// The kernel's name for it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Bytes in the image: all others are zero.
    pub saved: u64,
    /// `F_SEAL_*` bits.
    pub seals: u32,
    /// Of a System V segment that is attached again.
    pub segment: Option<Segment>,
}

/// A System V segment, as the system knows it.
#[derive(Debug, Serialize)]
pub struct Segment {
    /// Its id.
    pub id: u32,
    /// Its key.
    pub key: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Whether it was marked for removal.
    pub removed: bool,
}

impl Segment {
    fn of(one: &Sysv) -> Self {
        let mode = one.mode.get();
        let removed = mode & Sysv::DEST != 0;
        Self { id: one.id.get(), key: one.key.get(), mode: mode & 0o777, uid: one.uid.get(), removed }
    }
}

fn contents(image: &Image<'_>) -> Result<Vec<Contents>, Fault> {
    let segments = image.content_segments();
    let sysv = image.table::<Sysv>()?;
    let one = |content: &Content| {
        let (first, count) = (content.first.get() as usize, content.segments.get() as usize);
        let kind = match ContentKind::from_number(content.kind.get()) {
            Some(ContentKind::Memfd) => "memfd",
            Some(ContentKind::Deleted) => "deleted",
            Some(ContentKind::SysV) => "sysv",
            Some(ContentKind::Named) => "file",
            _ => "anonymous",
        };
        Ok(Contents {
            id: content.id.get(),
            kind,
            name: string(image, content.name)?,
            bytes: content.identity.size.get(),
            saved: (first..first + count).filter_map(|i| segments.get(i)).map(|s| s.len).sum(),
            seals: content.seals.get(),
            segment: sysv.iter().find(|one| one.content == content.id).map(Segment::of),
        })
    };
    image.table::<Content>()?.iter().map(one).collect()
}

/// The mappings of one kind.
#[derive(Debug, Serialize)]
pub struct Sum {
    /// What they are.
    pub kind: Kind,
    /// How many.
    pub mappings: usize,
    /// Bytes of address space.
    pub mapped: u64,
    /// Bytes in the image.
    pub saved: u64,
}

/// What memory is for, as a person sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `[heap]`: grown by brk(2).
    Heap,
    /// `[stack]`: the main thread's.
    Stack,
    /// Other private memory without a file.
    Anonymous,
    /// A program's or a library's private mapping.
    FilePrivate,
    /// A shared mapping of a file.
    FileShared,
    /// The kernel's code and data.
    Kernel,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Heap, Self::Stack, Self::Anonymous, Self::FilePrivate, Self::FileShared, Self::Kernel];

    /// The word in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::Anonymous => "anonymous",
            Self::FilePrivate => "files, private",
            Self::FileShared => "files, shared",
            Self::Kernel => "kernel (vdso)",
        }
    }

    fn of(vma: &Vma, name: &str) -> Self {
        match VmaKind::from_number(vma.kind.get()) {
            Some(VmaKind::FilePrivate) => Self::FilePrivate,
            Some(VmaKind::FileShared) => Self::FileShared,
            Some(VmaKind::Vdso | VmaKind::Vvar) => Self::Kernel,
            _ if name == "[heap]" => Self::Heap,
            _ if name == "[stack]" => Self::Stack,
            _ => Self::Anonymous,
        }
    }
}

/// One mapping.
#[derive(Debug, Serialize)]
pub struct Mapping {
    /// First address.
    pub start: String,
    /// First address behind it.
    pub end: String,
    /// As in /proc/PID/maps: `rw-`.
    pub protection: String,
    /// What it is.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// Bytes in the image.
    pub saved: u64,
    /// The mapped file.
    pub path: Option<String>,
    /// Offset in that file.
    pub offset: u64,
    /// `[heap]`, `[stack]`, or empty.
    pub name: String,
    /// `grows-down`, `locked`, …
    pub flags: Vec<String>,
    /// Its memory protection key; 0: none.
    pub protection_key: u32,
}

impl Memory {
    /// Collects and sums all mappings.
    pub fn new(image: &Image<'_>) -> Result<Self, Fault> {
        let backings = image.table::<Backing>()?;
        let mut segments = image.segments().peekable();
        let mut mappings = Vec::new();
        for vma in image.table::<Vma>()? {
            let mut saved = 0;
            while let Some(segment) = segments.next_if(|segment| segment.addr < vma.end.get()) {
                saved += segment.len;
            }
            let name = string(image, vma.name)?;
            let backing = backings.get(vma.backing.get() as usize);
            mappings.push(Mapping {
                start: format!("{:#x}", vma.start.get()),
                end: format!("{:#x}", vma.end.get()),
                protection: protection(vma.prot.get()),
                kind: Kind::of(vma, &name),
                bytes: vma.end.get() - vma.start.get(),
                saved,
                path: backing.map(|backing| string(image, backing.path)).transpose()?,
                offset: vma.offset.get(),
                name,
                flags: flags(vma.flags.get()),
                protection_key: vma.key.get(),
            });
        }
        let kinds = Kind::ALL.map(|kind| sum(kind, mappings.iter().filter(|m| m.kind == kind)));
        Ok(Self {
            mapped: mappings.iter().map(|m| m.bytes).sum(),
            saved: mappings.iter().map(|m| m.saved).sum(),
            kinds: kinds.into_iter().filter(|sum| sum.mappings > 0).collect(),
            mappings,
            contents: contents(image)?,
            shared_files: shared_files(image)?,
        })
    }
}

fn sum<'m>(kind: Kind, mappings: impl Iterator<Item = &'m Mapping>) -> Sum {
    mappings.fold(Sum { kind, mappings: 0, mapped: 0, saved: 0 }, |sum, m| Sum {
        mappings: sum.mappings + 1,
        mapped: sum.mapped + m.bytes,
        saved: sum.saved + m.saved,
        ..sum
    })
}

fn protection(prot: u32) -> String {
    ["r", "w", "x"].into_iter().enumerate().map(|(bit, c)| if prot & (1 << bit) != 0 { c } else { "-" }).collect()
}

fn flags(bits: u32) -> Vec<String> {
    VmaFlags::from_bits_truncate(bits).iter_names().map(|(n, _)| n.to_ascii_lowercase().replace('_', "-")).collect()
}
