//! Bundles: an image and the stub in one executable, which is the saved program, wherever it is started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::{Ended, Job, Place, READY, User};

/// Where the image lies: behind the stub, at a multiple of the page size.
fn start(app: &Path) -> Result<usize> {
    let bytes = fs::read(app)?;
    let flags = bytes.get(48..52).context("too short")?.try_into()?;
    Ok(u32::from_le_bytes(flags) as usize)
}

/// A guest that waits, saved with its end.
fn saved(place: &Place, guest: &str, options: &[&str]) -> Result<PathBuf> {
    let mut job = Job::start(&mut place.command(place.guest(guest)?))?;
    job.wait_line(READY)?;
    let image = place.file("job.ckpt");
    place.save(job.pid(), &image, &[&["--kill"], options].concat())?;
    drop(job.end()?);
    Ok(image)
}

fn ckpt(place: &Place, command: &str, image: &Path, more: &[&str]) -> Result<Ended> {
    Job::start(place.ckpt().arg(command).arg(image).args(more))?.end()
}

/// The bundle of an image, which is gone then.
fn bundle(place: &Place, image: &Path) -> Result<PathBuf> {
    let app = place.file("app");
    ckpt(place, "bundle", image, &["-o", "app"])?.expect_code(0)?;
    fs::remove_file(image)?;
    Ok(app)
}

fn app(place: &Place, app: &Path, args: &[&str]) -> Result<Ended> {
    Job::start(place.command(app).args(args))?.end()
}

/// As often as an image, with options of the restart.
#[test]
fn it_is_started_again() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let bundle = bundle(&place, &saved(&place, "umask", &[])?)?;
        place.go()?;
        for args in [&[][..], &["--ckpt-files=ignore", "--ckpt-pid", "auto"], &["--ckpt-verbose", "--ckpt-pidfile=pid"]]
        {
            app(&place, &bundle, args)?.expect_pass()?;
        }
        ensure!(place.file("pid").exists(), "--ckpt-pidfile was not taken");
        Ok(())
    })
}

/// Memory, contents without a named file, pages that a child shares with its parent, System V memory: all that is read from an image.
#[test]
fn it_is_the_program() -> Result<()> {
    User::each(|user| {
        for (guest, options) in [
            ("memory", &[][..]),
            ("memory", &["--compress", "zstd"]),
            ("content", &[]),
            ("inherited", &[]),
            ("sysv", &[]),
        ] {
            let place = Place::new(user)?;
            let bundle = bundle(&place, &saved(&place, guest, options)?)?;
            place.go()?;
            app(&place, &bundle, &[]).and_then(|ended| ended.expect_pass()).with_context(|| guest.to_owned())?;
        }
        Ok(())
    })
}

/// What is in it can be looked at and restarted as in an image; the image lies there as it was.
#[test]
fn it_is_an_image_too() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = saved(&place, "inherited", &[])?;
    let bytes = fs::read(&image)?;
    let shown = ckpt(&place, "show", &image, &["--json"])?;
    let app = bundle(&place, &image)?;
    let (all, start) = (fs::read(&app)?, start(&app)?);
    ensure!(start != 0 && start.is_multiple_of(4096) && all[start..] == bytes[..], "begins at {start}");
    ensure!(fs::metadata(&app)?.permissions().mode() & 0o7777 == 0o700);
    let of_app = ckpt(&place, "show", &app, &["--json"])?;
    let named = |ended: &Ended| ended.out.replace("job.ckpt", "app");
    ensure!(named(&of_app) == named(&shown), "{of_app:#?}");
    ckpt(&place, "verify", &app, &[])?.expect_code(0)?;
    ckpt(&place, "check", &app, &[])?.expect_code(0)?;
    place.go()?;
    ckpt(&place, "restart", &app, &[])?.expect_pass()?;
    // A bundle of a bundle is that bundle.
    ckpt(&place, "bundle", &app, &["-o", "app"])?.expect_code(0)?;
    ensure!(fs::read(&app)? == all);
    let mut sh = place.command("/bin/sh");
    let streamed =
        Job::start(sh.env("CKPT", place.bin().join("ckpt")).args(["-c", r#""$CKPT" restart - < app"#]))?.end()?;
    streamed.expect_code(71)?;
    ensure!(streamed.err.contains("is a bundle"), "{streamed:#?}");
    Ok(())
}

#[test]
fn what_is_wrong_is_named() -> Result<()> {
    let place = Place::new(User::Own)?;
    let image = saved(&place, "umask", &[])?;
    let other = place.write("precious", "no bundle")?;
    let refused = ckpt(&place, "bundle", &image, &["-o", "precious"])?;
    refused.expect_code(88)?;
    ensure!(fs::read(&other)? == b"no bundle", "it was replaced");
    ckpt(&place, "bundle", &image, &["-o", "precious", "--force"])?.expect_code(0)?;
    let bundle = bundle(&place, &image)?;
    place.go()?;
    for (args, code) in
        [(&["x"][..], 64), (&["--ckpt-nonsense"], 64), (&["--ckpt-files=some"], 64), (&["--ckpt-version"], 0)]
    {
        app(&place, &bundle, args)?.expect_code(code)?;
    }
    let whole = fs::read(&bundle)?;
    let begin = start(&bundle)?;
    let end = whole.len();
    for (change, code) in [((begin + 200, 1), 74), ((end - 1, 1), 74), ((begin, 1), 71)] {
        let mut bytes = whole.clone();
        bytes[change.0] ^= change.1;
        fs::write(&bundle, &bytes)?;
        app(&place, &bundle, &[])?.expect_code(code).with_context(|| format!("byte {change:?} of {begin}..{end}"))?;
    }
    fs::write(&bundle, &whole[..end - 4096])?;
    app(&place, &bundle, &[])?.expect_code(73)?;
    fs::write(&bundle, &whole)?;
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o777))?;
    app(&place, &bundle, &[])?.expect_code(78)?;
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o700))?;
    app(&place, &bundle, &[])?.expect_pass()
}
