//! A picture of an image: the tree of its processes, and of each the address space, from low addresses to high ones.
//!
//! Sizes are drawn by their logarithm: pages lie beside gibibytes. Must never let a name from an image be more than text in the picture.

use std::fmt::{self, Write};

use super::memory::{Kind, Mapping};
use super::overview::in_order;
use super::report::{Process, Report};
use crate::text::size;

/// Width of the picture, of its margins, and of the names at the left.
const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 16.0;
const NAMES: f64 = 300.0;

/// Height of a process, and of the strip in it.
const ROW: f64 = 34.0;
const STRIP: f64 = 20.0;

/// Height above the first process, and below the last one for the legend.
const HEAD: f64 = 48.0;
const LEGEND: f64 = 40.0;

/// Further to the right for each generation of children.
const STEP: f64 = 14.0;

/// Letters of a command.
const LETTERS: usize = 28;

/// In the order of the legend.
const KINDS: [(Kind, &str); 6] = [
    (Kind::Heap, "#d1495b"),
    (Kind::Stack, "#edae49"),
    (Kind::Anonymous, "#66a182"),
    (Kind::FilePrivate, "#2e4057"),
    (Kind::FileShared, "#8d6a9f"),
    (Kind::Kernel, "#9a9a9a"),
];

/// The picture.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let all = in_order(&report.processes);
    let height = HEAD + all.len() as f64 * ROW + LEGEND;
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(out, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
    let title = format!("{}: {}, saved {}", report.image.path, size(report.image.bytes), report.saved.at);
    writeln!(out, r#"<text x="{MARGIN}" y="28" font-size="16">{}</text>"#, escaped(&title))?;
    for (row, (depth, process)) in all.iter().enumerate() {
        one(out, process, *depth, HEAD + row as f64 * ROW)?;
    }
    let y = height - LEGEND / 2.0;
    for (place, (kind, colour)) in KINDS.iter().enumerate() {
        let x = MARGIN + place as f64 * 150.0;
        writeln!(out, r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/>"#, y - 10.0)?;
        writeln!(out, r#"<text x="{}" y="{y}">{}</text>"#, x + 18.0, kind.title())?;
    }
    writeln!(out, "</svg>")
}

/// A process: its id, its command, how much of it is saved; its mappings.
fn one(out: &mut String, process: &Process, depth: usize, y: f64) -> fmt::Result {
    let command = if process.command.is_empty() { &process.executable } else { &process.command };
    let x = MARGIN + (depth as f64 * STEP).min(NAMES / 2.0);
    let baseline = y + STRIP - 6.0;
    let short: String = command.chars().take(LETTERS).collect();
    writeln!(
        out,
        r#"<text x="{x}" y="{baseline}"><title>{}</title><tspan font-weight="bold">{}</tspan> {}</text>"#,
        escaped(command),
        process.pid,
        escaped(&short)
    )?;
    let mappings = &process.memory.mappings;
    let weights: Vec<f64> = mappings.iter().map(weight).collect();
    let whole: f64 = weights.iter().sum();
    let (mut at, room) = (MARGIN + NAMES, WIDTH - NAMES - 2.0 * MARGIN - 80.0);
    for (mapping, weight) in mappings.iter().zip(weights) {
        let width = weight / whole * room;
        let colour = KINDS.iter().find(|(kind, _)| *kind == mapping.kind).map_or("#000000", |(_, colour)| colour);
        // What is not in the image is pale.
        let opacity = if mapping.saved > 0 { 1.0 } else { 0.35 };
        writeln!(
            out,
            r#"<rect x="{at:.2}" y="{y}" width="{width:.2}" height="{STRIP}" fill="{colour}" opacity="{opacity}"><title>{}</title></rect>"#,
            escaped(&told(mapping))
        )?;
        at += width;
    }
    writeln!(out, r#"<text x="{}" y="{baseline}">{}</text>"#, at + 8.0, size(process.memory.saved))
}

/// How wide it is, beside others.
fn weight(mapping: &Mapping) -> f64 {
    ((mapping.bytes / 4096) as f64).max(1.0).log2() + 1.0
}

/// What a browser shows of a mapping under the pointer.
fn told(mapping: &Mapping) -> String {
    let path = mapping.path.as_deref().unwrap_or(mapping.kind.title());
    let (bytes, saved) = (size(mapping.bytes), size(mapping.saved));
    format!("{}-{} {} {path}: {bytes}, {saved} in the image", mapping.start, mapping.end, mapping.protection)
}

/// As text of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
