//! `cargo xtask dist`: all that users get, each file put into `dist/` whole or not at all.

use std::fs;

use anyhow::Result;

use crate::product::{self, Library};
use crate::workspace::Workspace;
use crate::{build_stub, elf_check};

/// Builds the stub, the library with its header, and the command, into `dist/`.
///
/// # Errors
/// Something does not build, or is not what it must be (named).
pub fn run(ws: &Workspace) -> Result<()> {
    build_stub::run(ws)?;
    let library = product::library(ws, Library::Shared)?;
    let header = ws.root.join("capture/ckpt.h");
    let declared = declared_calls(&fs::read_to_string(&header)?);
    let declared: Vec<_> = declared.iter().map(String::as_str).collect();
    println!("libckpt.so:");
    elf_check::report("libckpt.so", &elf_check::library(&fs::read(&library)?, &declared)?)?;
    ws.publish(&library, "libckpt.so")?;
    ws.publish(&product::library(ws, Library::Static)?, "libckpt.a")?;
    ws.publish(&header, "ckpt.h")?;

    ws.publish(&product::command(ws)?, "ckpt")?;
    println!("dist/: restart-stub libckpt.so libckpt.a ckpt.h ckpt");
    Ok(())
}

/// The functions that a C header declares: words that begin with `ckpt_` before a parenthesis, outside comments.
fn declared_calls(header: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    code.push_str(rest);
    for line in code.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])) {
        for (at, _) in line.match_indices("ckpt_") {
            let name: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let called = line[at + name.len()..].trim_start().starts_with('(');
            if called && !calls.contains(&name) {
                calls.push(name);
            }
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_its_calls() {
        let header = "/* ckpt_never(x) */\n#define ckpt_macro(x) x\nint ckpt_save(const char *path);\n\
                      int ckpt_at_restart(void (*hook)(void *), void *arg);\ntypedef int ckpt_type;\n";
        assert_eq!(declared_calls(header), ["ckpt_save", "ckpt_at_restart"]);
    }
}
