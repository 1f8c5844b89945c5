//! Images of CPUs that keep their vector registers at other places: all come back; and of such that have what this one has not: refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use ckpt_tests::image::Bytes;
use ckpt_tests::relaid::{self, Place as At};
use ckpt_tests::{Job, Place, READY, User};

/// Components that this test is about: AVX, AVX-512's three. Protection keys and AMX are not in images.
const VECTORS: [u32; 4] = [2, 5, 6, 7];

/// Where an XSAVE area's own components begin.
const FIRST: u32 = 576;

/// A guest with values in all registers, saved from outside while it holds them.
fn saved(place: &Place) -> Result<Bytes> {
    let mut job = Job::start(&mut place.command(place.guest("threads8")?))?;
    job.wait_line(READY)?;
    let image = place.file("here.ckpt");
    place.save(job.pid(), &image, &["--kill"])?;
    drop(job.end()?);
    place.go()?;
    Ok(Bytes::read(&image)?)
}

/// Components one after the other from `at` on, in this order, each at a multiple of `align`; and the end of the last one.
fn packed(mut components: Vec<At>, mut at: u32, align: u32, descending: bool) -> (Vec<At>, usize) {
    if descending {
        components.reverse();
    }
    for component in &mut components {
        component.at = at.next_multiple_of(align);
        at = component.at + component.len;
    }
    components.sort_by_key(|component| component.number);
    (components, at as usize)
}

fn write(place: &Place, name: &str, image: &[u8]) -> Result<std::path::PathBuf> {
    // An older one may be read alone.
    let _ = fs::remove_file(place.file(name));
    let path = place.write(name, image)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
    Ok(path)
}

#[test]
fn registers_move_to_where_this_cpu_has_them() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let sound = saved(&place)?;
        let all = relaid::components(&sound)?;
        let vectors: Vec<At> = all.iter().copied().filter(|c| VECTORS.contains(&c.number)).collect();
        println!("here: {all:?}");
        let numbers: Vec<u32> = vectors.iter().map(|c| c.number).collect();
        ensure!(numbers.starts_with(&[2]), "this CPU has no AVX: {numbers:?}");
        let layouts = [
            // As it is: the way of writing an image anew changes nothing.
            ("same", (all.clone(), all.iter().map(|c| c.at + c.len).max().unwrap_or(FIRST) as usize)),
            // Without gaps, as AMD's CPUs have it: opmask at 832.
            ("packed", packed(vectors.clone(), FIRST, 64, false)),
            ("descending", packed(vectors.clone(), FIRST, 64, true)),
            // Far away, in areas twice as long, and not aligned to cache lines.
            ("far", packed(vectors.clone(), 6000, 8, true)),
        ];
        for (name, (places, total)) in layouts {
            let made = relaid::relaid(&sound, &places, total).context(name)?;
            let path = write(&place, &format!("{name}.ckpt"), &made)?;
            Job::start(place.ckpt().arg("verify").arg(&path))?.end()?.expect_code(0)?;
            Job::start(&mut place.stub(&path))?.end()?.expect_pass().with_context(|| name)?;
            Job::start(place.ckpt().arg("restart").arg(&path))?.end()?.expect_pass().with_context(|| name)?;
        }
        // And it would be seen: of an image that has lost the last one.
        let (less, total) = packed(vectors[..vectors.len() - 1].to_vec(), FIRST, 64, false);
        let path = write(&place, "less.ckpt", &relaid::relaid(&sound, &less, total)?)?;
        let ended = Job::start(&mut place.stub(&path))?.end()?;
        ensure!(ended.code() == Some(1) && ended.out.contains("vector registers changed"), "{ended:#?}");
        Ok(())
    })
}

/// One that this CPU does not have, and one of another size; where they are in use.
#[test]
fn what_is_missing_here_is_refused_by_name() -> Result<()> {
    const CPU: i32 = 79;
    let place = Place::new(User::Own)?;
    let sound = saved(&place)?;
    let all = relaid::components(&sound)?;
    let vectors: Vec<At> = all.iter().copied().filter(|c| VECTORS.contains(&c.number)).collect();
    let last = *vectors.last().context("AVX")?;
    let mut unknown = vectors.clone();
    unknown.push(At { number: 40, ..last });
    let mut larger = vectors.clone();
    larger.last_mut().context("AVX")?.len *= 2;
    for (name, components, number) in [("unknown", unknown, 40), ("larger", larger, last.number)] {
        let (places, total) = packed(components, FIRST, 64, false);
        let path = write(&place, &format!("{name}.ckpt"), &relaid::relaid(&sound, &places, total)?)?;
        let stub = Job::start(&mut place.stub(&path))?.end()?;
        let named = format!("XSAVE component {number}");
        ensure!(stub.code() == Some(CPU) && stub.err.contains(&named) && stub.out.is_empty(), "{name}: {stub:#?}");
        for command in ["restart", "check"] {
            let ended = Job::start(place.ckpt().arg(command).arg(&path))?.end()?;
            let said = format!("{}{}", ended.out, ended.err);
            let named = if name == "unknown" { "XSAVE component 40" } else { "AVX" };
            ensure!(ended.code() == Some(CPU) && said.contains(named), "{name}, ckpt {command}: {ended:#?}");
        }
        if name == "unknown" {
            // All else is there.
            Job::start(place.stub(&path).args(["--cpu", "ignore"]))?.end()?.expect_pass()?;
        }
    }
    Ok(())
}
