//! A box that allows less: a restart there succeeds, or is refused by name before anything is lost, and `ckpt check` knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ckpt_tests::{Ended, Job, Place, READY, User, left_out, wait};
use image_format::ExitCode;

/// A saved guest that checks itself when it goes on, in a place of its own.
struct Saved {
    place: Place,
    image: PathBuf,
}

impl Saved {
    fn new(user: User, guest: &str) -> Result<Self> {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut words = guest.split(' ');
        let mut command = place.command(place.guest(words.next().unwrap_or_default())?);
        let mut job = Job::start(command.args(words))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        place.go()?;
        Ok(Self { place, image })
    }

    /// These lines of a shell: `$CKPT`, `$STUB` and `$IMAGE` are at hand.
    fn shell(&self, lines: &str) -> Result<Ended> {
        let mut sh = self.place.command("/bin/bash");
        sh.env("CKPT", self.place.bin().join("ckpt")).env("STUB", self.place.bin().join("restart-stub"));
        Job::start(sh.env("IMAGE", &self.image).args(["-c", lines]))?.end()
    }

    /// `ckpt restart` under this is refused with a line that says so, and `ckpt check IMAGE` says the same.
    fn refused(&self, limit: &str, says: &str) -> Result<()> {
        let restart = self.shell(&format!("{limit}; exec \"$CKPT\" restart \"$IMAGE\""))?;
        ensure!(restart.code() == Some(80) && restart.err.contains(says), "{limit}: {restart:#?}");
        let check = self.shell(&format!("{limit}; exec \"$CKPT\" check \"$IMAGE\""))?;
        ensure!(check.code() == Some(80) && check.out.contains(says), "{limit}: {check:#?}");
        let json = self.shell(&format!("{limit}; exec \"$CKPT\" check --json \"$IMAGE\""))?;
        ensure!(json.code() == Some(80) && json.out.contains("\"blockers\""), "{limit}: {json:#?}");
        Ok(())
    }

    /// The stub alone ends with one of these codes and one line.
    fn stub_says(&self, limit: &str, codes: &[i32]) -> Result<()> {
        let ended = self.shell(&format!("{limit}; exec \"$STUB\" \"$IMAGE\""))?;
        let named = ended.code().is_some_and(|code| codes.contains(&code)) && ended.err.starts_with("restart-stub: ");
        ensure!(named && ended.err.lines().count() == 1, "{limit}: {ended:#?}");
        Ok(())
    }

    /// It does not fit, which nobody finds out too late; and the image stays whole.
    fn is_too_large(&self, limit: &str, says: &str) -> Result<()> {
        self.refused(limit, says)?;
        self.stub_says(limit, &[80, 86, 87])?;
        self.passes("true")
    }

    /// Both restart under it.
    fn passes(&self, limit: &str) -> Result<()> {
        for program in ["\"$STUB\"", "\"$CKPT\" restart"] {
            self.shell(&format!("{limit}; exec {program} \"$IMAGE\""))?
                .expect_pass()
                .with_context(|| limit.to_owned())?;
        }
        Ok(())
    }
}

#[test]
fn no_limit() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user, "sigaction")?;
        let check = saved.shell(r#"exec "$CKPT" check "$IMAGE""#)?;
        ensure!(check.code() == Some(0) && check.out.contains("nothing here prevents a restart"), "{check:#?}");
        saved.passes("true")
    })
}

#[test]
fn address_space() -> Result<()> {
    User::each(|user| {
        Saved::new(user, "large holes 64")?.is_too_large("ulimit -v 60000", "address space: more than the limit")
    })
}

#[test]
fn writable_memory() -> Result<()> {
    User::each(|user| {
        Saved::new(user, "large holes 64")?.is_too_large("ulimit -d 30000", "writable memory: more than the limit")
    })
}

#[test]
fn descriptors() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user, "descriptor")?;
        saved.refused("ulimit -n 12", "above the limit")?;
        saved.stub_says("ulimit -n 12", &[80])?;
        saved.refused("ulimit -n 502", "numbers above it")?;
        // The image is whole.
        saved.passes("true")
    })
}

/// The limit of locked memory is an ordinary user's.
#[test]
fn locked_memory() -> Result<()> {
    left_out::unless_root("only root can become nobody")?;
    let saved = Saved::new(User::Nobody, "memory")?;
    saved.refused("ulimit -l 0", "locked memory: more than the limit")?;
    saved.stub_says("ulimit -l 0", &[80, 87])
}

/// The kernel looks at it when the stack grows.
#[test]
fn stack() -> Result<()> {
    User::each(|user| Saved::new(user, "sigaction")?.passes("ulimit -s 64"))
}

/// As root in a mount namespace; `$1` and on are what the lines get.
fn in_mounts(place: &Place, user: User, mounts: &str, lines: &str, image: &Path) -> Result<Ended> {
    let mut unshare = std::process::Command::new("unshare");
    let switch = if user == User::Nobody { "exec setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "exec" };
    let script = format!("set -e; cd \"$WORK\"; {mounts}; set +e; {switch} /bin/bash -c '{lines}'");
    unshare.args(["-m", "/bin/bash", "-c", &script]).env("WORK", place.work()).env("BIN", place.bin());
    unshare.env("CKPT", place.bin().join("ckpt")).env("STUB", place.bin().join("restart-stub")).env("IMAGE", image);
    Job::start(unshare.env("GUEST_GO", place.file("go")))?.end()
}

fn as_root(test: impl Fn(User) -> Result<()>) -> Result<()> {
    left_out::unless_root("only root can mount")?;
    User::each(test)
}

/// The program's own files lie where nothing may be executed: its code comes from the image; so does the stub from `ckpt`.
#[test]
fn noexec() -> Result<()> {
    as_root(|user| {
        let saved = Saved::new(user, "sigaction")?;
        let mounts = r#"cp "$CKPT" "$STUB" /tmp/; mount --bind "$BIN" "$BIN"; mount -o remount,bind,noexec "$BIN""#;
        // Copies of the tools lie in a place of this namespace's own.
        let mounts = mounts.replace("/tmp/", "/mnt/").replace("cp ", "mount -t tmpfs none /mnt; cp ");
        for lines in [r#"exec /mnt/restart-stub "$IMAGE""#, r#"exec /mnt/ckpt restart "$IMAGE""#] {
            in_mounts(&saved.place, user, &mounts, lines, &saved.image)?.expect_pass()?;
        }
        let refused = in_mounts(&saved.place, user, &mounts, r#""$STUB" "$IMAGE"; exit $?"#, &saved.image)?;
        refused.expect_code(126)
    })
}

#[test]
fn no_proc() -> Result<()> {
    as_root(|user| {
        let saved = Saved::new(user, "sigaction")?;
        let mounts = "mount -t tmpfs none /proc";
        let stub = in_mounts(&saved.place, user, mounts, r#"exec "$STUB" "$IMAGE""#, &saved.image)?;
        ensure!(stub.code() == Some(80) && stub.err.contains("/proc: is not mounted"), "{stub:#?}");
        let restart = in_mounts(&saved.place, user, mounts, r#"exec "$CKPT" restart "$IMAGE""#, &saved.image)?;
        ensure!(restart.code() == Some(80) && restart.err.contains("/proc: is not mounted"), "{restart:#?}");
        let check = in_mounts(&saved.place, user, mounts, r#"exec "$CKPT" check"#, &saved.image)?;
        let told =
            check.out.contains("restart: no") && check.out.contains("save: no") && check.out.contains("not mounted");
        ensure!(check.code() == Some(80) && told, "{check:#?}");
        let save = in_mounts(&saved.place, user, mounts, r#"exec "$CKPT" save $$ -o x.ckpt"#, &saved.image)?;
        ensure!(save.code() == Some(88) && save.err.contains("is not there, or may not be read"), "{save:#?}");
        saved.passes("true")
    })
}

/// What a container engine's default filter leaves: restarts work; namespaces, and programs that are inside, are refused by name.
#[test]
fn a_containers_filter() -> Result<()> {
    User::each(|user| {
        let saved = Saved::new(user, "sigaction")?;
        let place = &saved.place;
        let container = place.guest("container")?;
        let enter = |lines: &str, strict: &str| {
            saved.shell(&format!("exec {} {strict} /bin/bash -c '{lines}'", container.display()))
        };
        for strict in ["", "-p"] {
            for program in [r#""$STUB""#, r#""$CKPT" restart"#] {
                // Whether the old ids could be kept is a matter of which they are.
                enter(&format!(r#"exec {program} --pid new "$IMAGE""#), strict)?.expect_pass()?;
            }
            let check = enter(r#"exec "$CKPT" check"#, strict)?;
            let told = check.out.contains("restart: yes, --pid keep: no, --namespace: no");
            ensure!(told && check.out.contains("filter"), "{check:#?}");
            ensure!(check.out.contains("save: no") == (strict == "-p"), "{check:#?}");
            let namespace = enter(r#"exec "$CKPT" restart --namespace "$IMAGE""#, strict)?;
            ensure!(namespace.code() == Some(80), "{namespace:#?}");
            // Nobody may choose ids, but whoever has time counts up to them; unless somebody has them meanwhile.
            for program in [r#""$STUB""#, r#""$CKPT" restart"#] {
                let counts_up = || {
                    let saved = Saved::new(user, "thread")?;
                    let line = format!(r#"exec {} {strict} {program} --pid keep "$IMAGE""#, container.display());
                    let ended = saved.shell(&line)?;
                    if ended.err.contains(": is taken by ") {
                        return Ok(None);
                    }
                    ended.expect_pass().map(Some)
                };
                wait::until(counts_up, || "the ids are always taken".to_owned())?;
            }
        }
        // A process outside of it, saved from inside: allowed, or refused by name; and one inside is refused, and goes on.
        place.halt()?;
        let mut outside = Job::start(&mut place.command(place.bin().join("sigaction")))?;
        outside.wait_line(READY)?;
        let pid = outside.pid();
        let lenient = enter(&format!(r#"exec "$CKPT" save {pid} -q -o lenient.ckpt"#), "")?;
        if user.is_root() {
            // Root of a container has fewer rights than root outside, and may not trace its processes (ptrace(2)).
            ensure!(lenient.code() == Some(88) && lenient.err.contains("may not be traced"), "{lenient:#?}");
        } else {
            lenient.expect_code(0)?;
        }
        let strict = enter(&format!(r#"exec "$CKPT" save {pid} -q -o strict.ckpt"#), "-p")?;
        ensure!(strict.code() == Some(88) && !place.file("strict.ckpt").exists(), "{strict:#?}");
        let mut inside = place.command(&container);
        let mut inside = Job::start(inside.arg(place.bin().join("sigaction")))?;
        inside.wait_line(READY)?;
        let saved_inside = place.try_save(inside.pid(), &place.file("inside.ckpt"), &[])?;
        // Filters are told to root alone.
        if user.is_root() {
            saved_inside.expect_code(0)?;
        } else {
            let named = saved_inside.code() == Some(88) && saved_inside.err.contains("seccomp");
            ensure!(named, "{saved_inside:#?}");
        }
        place.go()?;
        inside.end()?.expect_pass()?;
        outside.end()?.expect_pass()?;
        saved.passes("true")
    })
}

/// No user namespaces: what `unshare` would be told there, by a limit of this user's own.
#[test]
fn no_user_namespaces() -> Result<()> {
    as_root(|user| {
        let saved = Saved::new(user, "sigaction")?;
        // Inside one user namespace the limit for further ones is that namespace's own.
        let lines = r#"unshare -U -r /bin/bash -c "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$CKPT\" restart --namespace \"$IMAGE\"" "#;
        let ended = saved.shell(lines)?;
        ensure!(ended.code() == Some(80) || ended.code() == Some(0), "{ended:#?}");
        let check = saved.shell(
            r#"unshare -U -r /bin/bash -c "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$CKPT\" check" "#,
        )?;
        ensure!(check.out.contains("user-namespace"), "{check:#?}");
        fs::metadata(&saved.image)?;
        saved.passes("true")
    })
}

/// A limit of the saver's own is an error like any other, after which the program goes on; where no more processes or threads may be made,
/// one does the work.
#[test]
fn a_saver_with_less() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let mut job = Job::start(&mut place.command(place.guest("memory")?))?;
        job.wait_line(READY)?;
        let saved = |lines: &str| {
            let mut sh = place.command("/bin/bash");
            sh.env("CKPT", place.bin().join("ckpt")).env("PID", job.pid().to_string());
            Job::start(sh.args(["-c", lines]))?.end()
        };
        let names = || -> Result<Vec<_>> {
            Ok(fs::read_dir(place.file("."))?
                .collect::<Result<Vec<_>, _>>()?
                .iter()
                .map(fs::DirEntry::file_name)
                .collect())
        };
        let before = names()?;
        for options in ["", "--freeze", "--compress zstd", "-q -o - > stream.ckpt"] {
            let large = saved(&format!("ulimit -f 1; exec \"$CKPT\" save $PID {options}"))?;
            large.expect_code(ExitCode::SaveFailed as i32)?;
            let named = ["EFBIG", "File too large"].iter().any(|word| large.err.contains(word));
            ensure!(named && large.err.lines().count() == 1, "{options}: {large:#?}");
            let _ = fs::remove_file(place.file("stream.ckpt"));
            ensure!(names()? == before, "{options}: {:?}", names()?);
        }
        if !user.is_root() {
            saved("ulimit -u 1; exec \"$CKPT\" save $PID -o alone.ckpt")?.expect_code(0)?;
            let thread = saved("ulimit -u 1; exec \"$CKPT\" save $PID --compress zstd")?;
            thread.expect_code(ExitCode::SaveFailed as i32)?;
            ensure!(thread.err.contains("a thread: cannot be made") && thread.err.lines().count() == 1, "{thread:#?}");
            Job::start(place.ckpt().arg("verify").arg(place.file("alone.ckpt")))?.end()?.expect_code(0)?;
        }
        place.go()?;
        job.end()?.expect_pass()
    })
}

/// A restart in a namespace that fails early says so at once, and leaves nothing behind.
#[test]
fn a_namespace_that_ends_early() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut job = Job::start(place.command("/bin/bash").args(["-c", "exec 3> data; echo ready; exec sleep 1000"]))?;
        job.wait_line(READY)?;
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        fs::remove_file(place.file("data"))?;
        for way in ["ckpt restart --namespace", "ckpt restart --namespace --detach", "restart-stub --namespace"] {
            let mut words = way.split(' ');
            let mut command = place.command(place.bin().join(words.next().unwrap_or_default()));
            let ended = Job::start(command.args(words).arg(&image))?.end()?;
            ended.expect_code(ExitCode::FileMissing as i32)?;
        }
        Ok(())
    })
}

/// A program of 32-bit code is named by `ckpt check`, too.
#[test]
fn a_program_of_32_bits() -> Result<()> {
    let place = Place::new(User::Own)?;
    // An ELF file whose code is a jump to itself.
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    file.extend([2, 0, 3, 0]);
    file.extend(words(&[1, 0x0804_8054, 52, 0, 0]));
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(words(&[1, 0, 0x0804_8000, 0x0804_8000, 86, 86, 5, 0x1000]));
    file.extend([0xeb, 0xfe]);
    let program = place.write("program", file)?;
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let Ok(job) = Job::start(&mut place.command(&program)) else {
        return Err(left_out::whole(left_out::Needs::Machine, "this kernel runs no 32-bit programs"));
    };
    let checked = Job::start(place.ckpt().arg("check").arg(job.pid().to_string()))?.end()?;
    ensure!(checked.code() != Some(0) && checked.out.contains("32-bit code"), "{checked:#?}");
    let saved = Job::start(place.ckpt().arg("save").arg(job.pid().to_string()))?.end()?;
    saved.expect_code(ExitCode::SaveFailed as i32)?;
    ensure!(saved.err.contains("32-bit code"), "{saved:#?}");
    job.kill().map(drop)
}
