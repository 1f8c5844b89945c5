//! Images are ELF cores for everybody: gdb shows the guest's own functions in all threads, readelf has no complaint, and an
//! independent reader finds the same segments and notes as the project's own.

use std::arch::x86_64::__cpuid_count;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Bytes;
use ckpt_tests::left_out::Needs;
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, READY, User, left_out};
use object::elf::{FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// A saved guest that ended: its program and its image.
fn saved(place: &Place, guest: &str, arguments: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let image = place.file("job.ckpt");
    let program = place.guest(guest)?;
    let job = Job::start(place.armed(&program, &image).args(arguments))?;
    job.wait_line(READY)?;
    job.save_and_kill(&image)?;
    Ok((program, image))
}

fn gdb(place: &Place, program: &Path, image: &Path, command: &str) -> Result<String> {
    let mut gdb = place.command(tool("gdb", "gdb")?);
    gdb.args(["-nx", "-batch", "-ex", command]).arg(program).arg(image);
    let ended = Job::start(&mut gdb)?.end()?;
    ensure!(ended.status.success(), "{ended:#?}");
    Ok(format!("{}{}", ended.out, ended.err))
}

#[test]
fn gdb_shows_all_threads() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (program, image) = saved(&place, "threads8", &[])?;
    let threads = gdb(&place, &program, &image, "info threads")?;
    ensure!(threads.matches("Thread 0x").count() + threads.matches("LWP ").count() >= 9, "{threads}");
    let frames = gdb(&place, &program, &image, "thread apply all bt")?;
    // Four holders, two producers, two consumers, and the first thread.
    for (function, least) in [("hold_", 4), ("holder (", 4), ("producer (", 2), ("consumer (", 2), ("main (", 1)] {
        let count = frames.lines().filter(|line| line.starts_with('#') && line.contains(function)).count();
        ensure!(count >= least, "{function} is in {count} frames, not {least}:\n{frames}");
    }
    let too_small = |line: &str| line.contains(".reg-xstate/") && line.ends_with("in core file too small.");
    let foreign = !is_laid_out_as_intels();
    if foreign {
        // gdb before 14 says it of the kernel's own cores, too.
        left_out::in_part(Needs::Machine, "this CPU's XSAVE area is another one: gdb may say `too small`");
    }
    let mut warnings = frames.lines().filter(|line| line.contains("warning:") && !(foreign && too_small(line)));
    ensure!(warnings.next().is_none(), "gdb warns:\n{frames}");
    Ok(())
}

/// Whether the last components of this CPU's XSAVE area (AVX-512's last registers, protection keys) lie where Intel's CPUs have them;
/// AMD's leave out the room for others before them.
fn is_laid_out_as_intels() -> bool {
    [(7, 1664), (9, 2688)].into_iter().all(|(component, at)| [0, at].contains(&__cpuid_count(0xd, component).ebx))
}

#[test]
fn gdb_shows_a_plain_program() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (program, image) = saved(&place, "rlimit", &[])?;
    let frames = gdb(&place, &program, &image, "bt")?;
    ensure!(frames.contains("main ("), "{frames}");
    let variable = gdb(&place, &program, &image, "info auxv")?;
    ensure!(variable.contains("AT_ENTRY") && variable.contains("AT_PHDR"), "{variable}");
    Ok(())
}

#[test]
fn gdb_shows_a_second_generation() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (program, image) = saved(&place, "rlimit", &[])?;
    let job = Job::start(&mut place.stub(&image))?;
    job.save_and_kill(&image)?;
    let frames = gdb(&place, &program, &image, "bt")?;
    ensure!(frames.contains("main ("), "{frames}");
    Ok(())
}

fn readelf(place: &Place, image: &Path) -> Result<String> {
    let ended = Job::start(place.command(tool("readelf", "binutils")?).arg("-lnW").arg(image))?.end()?;
    ensure!(ended.status.success() && ended.err.is_empty(), "{ended:#?}");
    for word in ["Warning", "Error", "corrupt", "out of range"] {
        ensure!(!ended.out.contains(word), "readelf says '{word}':\n{}", ended.out);
    }
    Ok(ended.out)
}

#[test]
fn readelf_has_no_complaint() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (_, image) = saved(&place, "threads8", &[])?;
    let text = readelf(&place, &image)?;
    ensure!(text.contains("CORE (Core file)"), "{text}");
    for note in ["NT_PRSTATUS", "NT_FPREGSET", "NT_X86_XSTATE", "NT_PRPSINFO", "NT_AUXV", "NT_FILE", "CKPT"] {
        ensure!(text.contains(note), "no {note}:\n{text}");
    }
    Ok(())
}

/// The two readers see the same.
fn readers_agree(bytes: &Bytes) -> Result<usize> {
    let ours = bytes.image()?;
    let data = bytes.as_slice();
    let header = FileHeader64::<object::Endianness>::parse(data)?;
    let endian = header.endian()?;
    let all = header.program_headers(endian, data)?;
    let loads: Vec<_> = all.iter().filter(|p| p.p_type(endian) == PT_LOAD).collect();
    ensure!(loads.len() == ours.segments().count(), "{} segments against {}", loads.len(), ours.segments().count());
    for (theirs, own) in loads.iter().zip(ours.segments()) {
        let spans = (theirs.p_vaddr(endian), theirs.p_filesz(endian), theirs.p_offset(endian));
        ensure!(spans == (own.addr, own.len, own.offset), "{spans:x?} against {own:x?}");
    }
    let mut theirs = Vec::new();
    for header in all.iter().filter(|p| p.p_type(endian) == PT_NOTE) {
        let mut notes = header.notes(endian, data)?.context("a note segment")?;
        while let Some(note) = notes.next()? {
            theirs.push((note.name().to_vec(), note.n_type(endian).0, note.desc().to_vec()));
        }
    }
    let (seal, theirs) = theirs.split_last().context("notes")?;
    ensure!(seal.0 == b"CKPT", "the last note is not the seal: {:?}", seal.0);
    let own: Vec<_> = ours.notes().collect::<Result<_, _>>()?;
    ensure!(own.len() == theirs.len(), "{} notes against {}", theirs.len(), own.len());
    for (theirs, own) in theirs.iter().zip(own) {
        let same = (theirs.0.as_slice(), theirs.1, theirs.2.as_slice()) == (own.owner, own.kind, own.desc);
        ensure!(same, "note {:?} {:#x} against {:?} {:#x}", theirs.0, theirs.1, own.owner, own.kind);
    }
    Ok(loads.len())
}

#[test]
fn an_independent_reader_agrees() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (_, image) = saved(&place, "threads8", &[])?;
    readers_agree(&Bytes::read(&image)?).map(drop)
}

#[test]
fn also_about_more_segments_than_the_header_counts() -> Result<()> {
    let place = Place::new(User::Own)?;
    let (_, image) = saved(&place, "manysegs", &["550"])?;
    let count = readers_agree(&Bytes::read(&image)?)?;
    ensure!(count > 65_534, "only {count} segments");
    let text = readelf(&place, &image)?;
    ensure!(text.contains(&format!("There are {} program headers", count + 2)), "{}", &text[..300]);
    Ok(())
}
