//! Pipes that lead out of the saved processes, under numbers that no restart has by itself: named when they are saved, as the restart will
//! need something in their place.
//!
//! Must never read an image for it where there can be none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use image_format::record::descriptor::Descriptor;
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::process::{FD_BITS, FD_MASK};

use crate::failure::Failure;
use crate::image::ImageFile;
use crate::text;

/// Whether one of these processes has a pipe under another number than those of the standard streams.
pub fn may_lead(all: &BTreeSet<i32>) -> bool {
    all.iter().any(|pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let numbers = entries.filter(|entry| entry.file_name().to_str().and_then(|n| n.parse().ok()) > Some(2u32));
        numbers
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|to| to.as_os_str().as_encoded_bytes().starts_with(b"pipe:"))
    })
}

/// A line for each, of an image.
pub fn pipes(image: &Path) -> Result<Vec<String>, Failure> {
    let file = ImageFile::describe(image)?;
    let checked = file.checked()?;
    let fault = |fault| file.fault(fault);
    let inner = checked.image.table::<PipeData>().map_err(fault)?;
    let pipes = checked.image.table::<Pipe>().map_err(fault)?;
    let mut lines = Vec::new();
    for descriptor in checked.image.table::<Descriptor>().map_err(fault)? {
        let (fd, place) = (descriptor.fd.get() & FD_MASK, descriptor.fd.get() >> FD_BITS);
        let Some(pipe) = pipes.iter().find(|pipe| pipe.id == descriptor.file && fd > 2) else { continue };
        let is_inside = inner.binary_search_by_key(&pipe.pipe.get(), |data| data.pipe.get()).is_ok();
        if pipe.named.get() != 0 || is_inside {
            continue;
        }
        let name = text::plain(checked.image.string(pipe.path).map_err(fault)?);
        let whose = if place == 0 { "" } else { " of another process of the tree" };
        lines.push(format!(
            "descriptor {fd}{whose} ({name}): leads to another process: the restart will need a descriptor {fd} of its own, \
             or --fd {fd}=PATH, or --fd {fd}=closed"
        ));
    }
    Ok(lines)
}
