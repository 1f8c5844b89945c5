//! Bad images: each gets a message and an exit code of its own from `restart-stub` and `ckpt restart`, soon, in little
//! memory, and nothing is started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ckpt_tests::forge::Forgery;
use ckpt_tests::image::Bytes;
use ckpt_tests::{Ended, Job, Place, READY, User, left_out};
use image_format::record::memory::{Vma, VmaKind};
use image_format::{ExitCode, NoteType};
use rustix::process::{Resource, Rlimit, setrlimit};

#[path = "badimage/terminals.rs"]
mod terminals;
#[path = "badimage/trees.rs"]
mod trees;

/// The most address space that a refusal may take, bytes.
const MEMORY: u64 = 64 << 20;
/// The most processor time, seconds: whatever else the machine does.
const TIME: u64 = 1;

/// A sound image of a small guest, and a place to put forged ones.
struct Workshop {
    place: Place,
    sound: Bytes,
}

impl Workshop {
    fn new() -> Result<Self> {
        Self::of("regular")
    }

    fn of(guest: &str) -> Result<Self> {
        let place = Place::new(User::Own)?;
        let image = place.file("job.ckpt");
        let job = Job::start(&mut place.armed(place.guest(guest)?, &image))?;
        job.wait_line(READY)?;
        job.save_and_kill(&image)?;
        // Whatever were started would say PASS at once.
        place.go()?;
        let sound = Bytes::read(&image)?;
        Ok(Self { place, sound })
    }

    fn forgery(&self) -> Result<Forgery> {
        Forgery::of(&self.sound)
    }

    fn lay_out(&self, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.place.file("bad.ckpt");
        drop(fs::remove_file(&path));
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        Ok(path)
    }

    fn both(&self, path: &Path) -> [(Command, &'static str); 2] {
        let mut ckpt = self.place.ckpt();
        ckpt.arg("restart").arg(path);
        [(self.place.stub(path), "restart-stub: "), (ckpt, "")]
    }

    /// Both programs refuse these bytes with one of these codes.
    fn refused(&self, what: &str, bytes: &[u8], codes: &[ExitCode]) -> Result<()> {
        let path = self.lay_out(bytes)?;
        for (command, begin) in self.both(&path) {
            refusal(command, begin, codes).with_context(|| what.to_owned())?;
        }
        Ok(())
    }

    /// As [`Workshop::refused`], with the stub alone: for very many images.
    fn refused_by_stub(&self, what: &str, bytes: &[u8], codes: &[ExitCode]) -> Result<()> {
        let path = self.lay_out(bytes)?;
        refusal(self.place.stub(&path), "restart-stub: ", codes).map(drop).with_context(|| what.to_owned())
    }
}

fn refusal(mut command: Command, begin: &str, codes: &[ExitCode]) -> Result<Ended> {
    let limit = || {
        setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) })?;
        setrlimit(Resource::Cpu, Rlimit { current: Some(TIME), maximum: Some(TIME) })?;
        Ok(())
    };
    // SAFETY: two system calls between fork and exec.
    unsafe { command.pre_exec(limit) };
    let ended = Job::start(&mut command)?.end()?;
    let code = ended.code().unwrap_or(-1);
    ensure!(codes.iter().any(|c| *c as i32 == code), "exit code {code}, not one of {codes:?}: {ended:#?}");
    ensure!(ended.out.is_empty(), "something was started: {ended:#?}");
    ensure!(ended.err.starts_with(begin) && ended.err.lines().count() == 1, "not one line '{begin}…': {ended:#?}");
    Ok(ended)
}

/// What a change of any byte of the prefix may be called.
const ANY: &[ExitCode] = &[
    ExitCode::NotImage,
    ExitCode::WrongMachine,
    ExitCode::Truncated,
    ExitCode::Damaged,
    ExitCode::Malformed,
    ExitCode::BadAddress,
    ExitCode::Newer,
];

#[test]
fn a_sound_image_restarts() -> Result<()> {
    // Without this all refusals below would show nothing.
    let shop = Workshop::new()?;
    let path = shop.lay_out(&shop.forgery()?.sealed().bytes)?;
    Job::start(&mut shop.place.stub(&path))?.end()?.expect_pass()
}

#[test]
fn an_empty_file() -> Result<()> {
    Workshop::new()?.refused("empty", b"", &[ExitCode::Empty])
}

#[test]
fn no_file_and_no_regular_file() -> Result<()> {
    let shop = Workshop::new()?;
    for path in [shop.place.file("nothing-here"), shop.place.work(), "/dev/null".into()] {
        for (command, begin) in shop.both(&path) {
            let codes = [ExitCode::NoImage, ExitCode::Empty, ExitCode::NotImage, ExitCode::Untrusted];
            refusal(command, begin, &codes).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[test]
fn other_files() -> Result<()> {
    let shop = Workshop::new()?;
    shop.refused("text", b"#!/bin/sh\necho no image\n", &[ExitCode::NotImage])?;
    shop.refused("a program", &fs::read("/bin/true")?, &[ExitCode::NotImage])?;
    shop.refused("zeros", &[0; 65536], &[ExitCode::NotImage])
}

#[test]
fn wrong_identity() -> Result<()> {
    let shop = Workshop::new()?;
    let cases: [(&str, usize, &[u8], ExitCode); 6] = [
        ("magic", 0, b"\x7eELF", ExitCode::NotImage),
        ("32 bits", 4, &[1], ExitCode::WrongMachine),
        ("big endian", 5, &[2], ExitCode::WrongMachine),
        ("aarch64", 18, &183u16.to_le_bytes(), ExitCode::WrongMachine),
        ("an executable", 16, &2u16.to_le_bytes(), ExitCode::NotImage),
        ("no header note", 0, b"", ExitCode::NotImage),
    ];
    for (what, at, bytes, code) in cases {
        let mut forged = shop.forgery()?;
        if bytes.is_empty() {
            let (note, _) = forged.note(NoteType::Header)?;
            forged = forged.put(note, b"NOTCKPT!");
        }
        shop.refused(what, &forged.put(at, bytes).sealed().bytes, &[code])?;
    }
    Ok(())
}

#[test]
fn a_newer_format() -> Result<()> {
    let shop = Workshop::new()?;
    let (header, _) = shop.forgery()?.note(NoteType::Header)?;
    let newer = shop.forgery()?.put(header + 8, &2u16.to_le_bytes()).sealed();
    shop.refused("major version", &newer.bytes, &[ExitCode::Newer])?;
    let feature = shop.forgery()?.flip(header + 16 + 7, 6).sealed();
    shop.refused("a required feature", &feature.bytes, &[ExitCode::Newer])
}

#[test]
fn truncated_at_every_64th_byte_of_the_prefix() -> Result<()> {
    let shop = Workshop::new()?;
    let whole = shop.sound.as_slice();
    let prefix = shop.forgery()?.prefix_len();
    for len in (64..prefix + 64).step_by(64) {
        let what = format!("cut to {len} bytes of {prefix} and more");
        shop.refused_by_stub(&what, &whole[..len], &[ExitCode::Truncated])?;
    }
    for len in (1..64).chain((64..prefix).step_by(prefix / 16)) {
        shop.refused(&format!("cut to {len} bytes"), &whole[..len], &[ExitCode::Truncated, ExitCode::NotImage])?;
    }
    Ok(())
}

#[test]
fn truncated_anywhere_else() -> Result<()> {
    let shop = Workshop::new()?;
    let (whole, seal) = (shop.sound.as_slice(), shop.forgery()?.seal_at());
    let sampled = (shop.forgery()?.prefix_len()..seal).step_by(whole.len() / 60 + 1);
    for len in sampled.chain([seal - 1, seal, seal + 1, seal + 64, whole.len() - 8, whole.len() - 1]) {
        shop.refused(&format!("cut to {len} of {}", whole.len()), &whole[..len], &[ExitCode::Truncated])?;
    }
    let longer = [whole, b"more"].concat();
    shop.refused("bytes behind the seal", &longer, &[ExitCode::Malformed])
}

#[test]
fn flipped_bits_in_headers_and_notes() -> Result<()> {
    let shop = Workshop::new()?;
    let prefix = shop.forgery()?.prefix_len();
    // All of the ELF header, the program headers and notes at a stride that meets every field.
    for at in (0..64).chain((64..prefix).step_by(prefix / 1500 + 1)) {
        let forged = shop.forgery()?.flip(at, at as u32 % 8);
        shop.refused_by_stub(&format!("bit {} of byte {at}", at % 8), &forged.bytes, ANY)?;
    }
    let seal = shop.forgery()?.seal_at();
    for at in (seal..shop.sound.as_slice().len()).step_by(7) {
        shop.refused_by_stub(&format!("byte {at} of the seal"), &shop.forgery()?.flip(at, 3).bytes, ANY)?;
    }
    Ok(())
}

#[test]
fn flipped_bits_in_memory() -> Result<()> {
    let shop = Workshop::new()?;
    let image = shop.sound.image()?;
    let segments: Vec<_> = image.segments().collect();
    let mut own = 0;
    for segment in segments.iter().step_by(segments.len() / 40 + 1) {
        let at = usize::try_from(segment.offset + segment.len / 2)?;
        let path = shop.lay_out(&shop.forgery()?.flip(at, 5).bytes)?;
        let verified = Job::start(shop.place.ckpt().arg("verify").arg(&path))?.end()?;
        verified.expect_code(ExitCode::DamagedMemory as i32).with_context(|| format!("byte {at}"))?;
        let vdso =
            image.table::<Vma>()?.iter().any(|v| v.kind.get() == VmaKind::Vdso as u32 && v.start.get() == segment.addr);
        if segment.file_bytes || vdso {
            // A restart does not read what it maps from the file itself, nor the kernel's code (there for debuggers).
            continue;
        }
        own += 1;
        for (mut command, begin) in shop.both(&path) {
            let ended = Job::start(&mut command)?.end()?;
            ended.expect_code(ExitCode::DamagedMemory as i32).with_context(|| format!("byte {at}"))?;
            ensure!(ended.out.is_empty() && ended.err.starts_with(begin), "{ended:#?}");
        }
    }
    ensure!(own > 3, "only {own} segments with bytes of their own");
    Ok(())
}

#[test]
fn absurd_counts_and_lengths() -> Result<()> {
    let shop = Workshop::new()?;
    const HUGE: &[u8] = &[0xff; 8];
    let header = |at: usize, bytes: &[u8]| Ok::<_, anyhow::Error>(shop.forgery()?.put(at, bytes).bytes);
    let codes = &[ExitCode::NotImage, ExitCode::Truncated, ExitCode::Malformed];
    shop.refused("65,534 program headers", &header(56, &0xfffeu16.to_le_bytes())?, codes)?;
    shop.refused("no program header", &header(56, &0u16.to_le_bytes())?, codes)?;
    shop.refused("PN_XNUM without a section", &header(56, &0xffffu16.to_le_bytes())?, codes)?;
    shop.refused("program headers nowhere", &header(32, HUGE)?, codes)?;
    // PN_XNUM with a section header 0 that counts four billion.
    let mut xnum = shop.forgery()?.bytes;
    xnum[56..58].copy_from_slice(&[0xff; 2]);
    xnum[40..48].copy_from_slice(&64u64.to_le_bytes());
    xnum[32..40].copy_from_slice(&128u64.to_le_bytes());
    xnum[64 + 44..64 + 48].copy_from_slice(&[0xff; 4]);
    shop.refused("four billion program headers", &xnum, codes)?;
    let notes = 64 + 32;
    shop.refused("endless notes", &shop.forgery()?.put(notes, HUGE).bytes, codes)?;
    let half_gib = shop.forgery()?.put(notes, &(512u64 << 20).to_le_bytes());
    shop.refused("half a GiB of notes", &half_gib.bytes, codes)?;
    for kind in [NoteType::Thread, NoteType::Vma, NoteType::Sigaction, NoteType::Descriptor, NoteType::Strings] {
        let (body, _) = shop.forgery()?.note(kind)?;
        let length = body - 8 - 8;
        for len in [u32::MAX, 0x7fff_fff0, 1 << 20] {
            let forged = shop.forgery()?.put(length, &len.to_le_bytes()).sealed();
            shop.refused(&format!("{kind:?} of {len} bytes"), &forged.bytes, &[ExitCode::Malformed])?;
        }
    }
    let seals = shop.forgery()?.segments() + 1;
    let forged = shop.forgery()?;
    let at = 64 + seals * 56 + 32;
    shop.refused("an endless seal", &forged.put(at, HUGE).sealed().bytes, codes)
}

#[test]
fn bad_segments() -> Result<()> {
    let shop = Workshop::new()?;
    let address = |index: usize, value: u64| {
        let forged = shop.forgery()?;
        let at = forged.segment_word(index, 16);
        Ok::<_, anyhow::Error>(forged.put(at, &value.to_le_bytes()).sealed().bytes)
    };
    let first = {
        let forged = shop.forgery()?;
        let at = forged.segment_word(0, 16);
        u64::from_le_bytes(std::array::from_fn(|i| forged.bytes[at + i]))
    };
    let last = shop.forgery()?.segments() - 1;
    let bad = &[ExitCode::BadAddress];
    shop.refused("overlapping segments", &address(1, first)?, bad)?;
    shop.refused("a segment in kernel space", &address(last, 0xffff_8000_0000_0000)?, bad)?;
    shop.refused("a segment that wraps", &address(last, 0xffff_ffff_ffff_f000)?, bad)?;
    shop.refused("a segment across the end of user space", &address(last, 0x7fff_ffff_f000)?, bad)?;
    shop.refused("a segment between two pages", &address(0, first + 1)?, bad)?;
    shop.refused("a segment in no mapping", &address(0, 0x1000)?, bad)?;
    for (what, at, value) in [("in the file", 32, u64::MAX), ("in the file", 32, 100), ("in memory", 40, 1 << 40)] {
        let forged = shop.forgery()?;
        let word = forged.segment_word(0, at);
        let codes = &[ExitCode::Malformed, ExitCode::Truncated];
        shop.refused(&format!("{value} bytes {what}"), &forged.put(word, &value.to_le_bytes()).sealed().bytes, codes)?;
    }
    Ok(())
}

#[test]
fn bad_mappings() -> Result<()> {
    let shop = Workshop::new()?;
    let (vmas, len) = shop.forgery()?.note(NoteType::Vma)?;
    let last = vmas + (len / 56 - 1) * 56;
    let put =
        |at: usize, value: u64| Ok::<_, anyhow::Error>(shop.forgery()?.put(at, &value.to_le_bytes()).sealed().bytes);
    let bad = &[ExitCode::BadAddress, ExitCode::Malformed];
    shop.refused("an empty mapping", &put(vmas + 8, 0)?, bad)?;
    shop.refused("a mapping of half a page", &put(last + 8, 0x7fff_ffff_e800)?, bad)?;
    shop.refused("a mapping in kernel space", &put(last + 8, 0xffff_ffff_ffff_f000)?, bad)?;
    shop.refused("overlapping mappings", &put(last, 0x1000)?, bad)?;
    shop.refused("an unknown kind", &put(vmas + 24, 99)?, bad)?;
    shop.refused("a file that is in no table", &put(vmas + 28, 0xfffe)?, bad)
}

#[test]
fn hostile_records() -> Result<()> {
    let shop = Workshop::new()?;
    let bad = &[ExitCode::Malformed, ExitCode::BadAddress];
    // (what, note, offset in the first record, value)
    let cases: [(&str, NoteType, usize, &[u8]); 8] = [
        ("a descriptor beyond all limits", NoteType::Descriptor, 0, &[0xff, 0xff, 0xff, 0x7f]),
        ("a descriptor of no file", NoteType::Descriptor, 4, &[0x77, 0x77, 0x77, 0x77]),
        ("a path outside the strings", NoteType::Cwd, 0, &[0xff, 0xff, 0xff, 0xff, 16, 0, 0, 0]),
        ("an endless path", NoteType::Cwd, 4, &[0xff, 0xff, 0xff, 0xff]),
        ("a regular file's path outside", NoteType::Regular, 16, &[0xf0, 0xff, 0xff, 0xff]),
        ("a thread that goes on in the kernel", NoteType::Thread, 8 + 56, &[0, 0, 0, 0, 0, 0x80, 0xff, 0xff]),
        ("a thread pointer in the kernel", NoteType::Thread, 8 + 72, &[0, 0, 0, 0, 0, 0x80, 0xff, 0xff]),
        ("a heap in the kernel", NoteType::Mm, 40, &[0, 0, 0, 0, 0, 0x80, 0xff, 0xff]),
    ];
    for (what, kind, at, value) in cases {
        let (body, _) = shop.forgery()?.note(kind)?;
        shop.refused(what, &shop.forgery()?.put(body + at, value).sealed().bytes, bad)?;
    }
    Ok(())
}

#[test]
fn somebody_elses_image() -> Result<()> {
    left_out::unless_root("only root can become nobody")?;
    // nobody's image, which root must not run; and one that others may write.
    let place = Place::new(User::Nobody)?;
    let image = place.file("job.ckpt");
    let job = Job::start(&mut place.armed(place.guest("umask")?, &image))?;
    job.wait_line(READY)?;
    job.save_and_kill(&image)?;
    place.go()?;
    let mut as_root = Command::new(place.bin().join("restart-stub"));
    ckpt_tests::job::in_own_session(&mut as_root, false);
    refusal(
        {
            as_root.arg(&image);
            as_root
        },
        "restart-stub: ",
        &[ExitCode::Untrusted],
    )?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o666))?;
    refusal(place.stub(&image), "restart-stub: ", &[ExitCode::Untrusted])?;
    Job::start(place.stub(&image).arg("--trust"))?.end()?.expect_pass()
}

#[test]
fn a_wrong_command_line() -> Result<()> {
    let place = Place::new(User::Own)?;
    for arguments in [&[][..], &["--no-such-option", "x"], &["--files"], &["--fd", "x=y", "z"], &["a", "b"]] {
        let mut stub = place.command(place.bin().join("restart-stub"));
        let ended = Job::start(stub.args(arguments))?.end()?;
        ended.expect_code(ExitCode::Usage as i32).with_context(|| format!("{arguments:?}"))?;
        ensure!(ended.out.is_empty() && ended.err.starts_with("restart-stub: "), "{ended:#?}");
    }
    for flag in ["--help", "--version"] {
        let ended = Job::start(place.command(place.bin().join("restart-stub")).arg(flag))?.end()?;
        ended.expect_code(0)?;
        ensure!(ended.out.contains("restart-stub") && ended.err.is_empty(), "{ended:#?}");
    }
    Ok(())
}
