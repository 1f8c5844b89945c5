//! A running virtual machine: a shell at the other end of a virtio port, a second port for streams, and what the kernel says.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::kinds::libraries;
use super::{Archive, Kernel};
use crate::capture::Capture;
use crate::programs::tool;
use crate::user::NOBODY;
use crate::wait::{self, timeout};
use crate::{User, dist};

/// What a virtual machine is like.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// QEMU's `-cpu`: `max` has all that it can emulate (AVX2, no AVX-512), `qemu64` what every x86_64 has. MPX is left out, which
    /// no CPU has any more.
    pub cpu: &'a str,
    /// Number of its CPUs.
    pub cpus: u32,
    /// MiB of memory.
    pub memory: u32,
    /// More words for the kernel's command line.
    pub append: &'a str,
    /// More arguments for QEMU.
    pub arguments: &'a [&'a str],
    /// Files besides: path there (not under `/tmp`), path here.
    pub files: &'a [(String, PathBuf)],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { cpu: "max,mpx=off", cpus: 2, memory: 768, append: "", arguments: &[], files: &[] }
    }
}

/// A virtual machine that runs; turned off with the value.
#[derive(Debug)]
pub struct Machine {
    /// Its kernel's name in reports.
    pub name: &'static str,
    child: Child,
    console: Capture,
    control: BufReader<UnixStream>,
    pub(super) streams: Cell<u32>,
    dir: TempDir,
}

/// How a script ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// How much slower than here anything may be in a virtual machine.
const SLOWER: u32 = 8;

/// The first file system: busybox, and `dist/restart-stub` and `dist/ckpt` in `/bin`.
///
/// # Errors
/// Something is not built, or not installed.
fn base(kernel: &Kernel, files: &[(String, PathBuf)]) -> Result<Archive> {
    let mut archive = Archive::default();
    for (path, mode) in [("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("modules", 0o755), ("proc", 0o555)] {
        archive.directory(path, mode);
    }
    for (path, mode) in [("run", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("root", 0o700)] {
        archive.directory(path, mode);
    }
    archive.device("dev/console", 0o600, (5, 1));
    archive.device("dev/null", 0o666, (1, 3));
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("bin/stream", 0o755, include_bytes!("stream.sh"));
    archive.file(
        "etc/passwd",
        0o644,
        format!("root:x:0:0::/:/bin/sh\nnobody:x:{NOBODY}:{NOBODY}::/tmp:/bin/sh\n").as_bytes(),
    );
    archive.file("etc/group", 0o644, format!("root:x:0:\nnogroup:x:{NOBODY}:\n").as_bytes());
    archive.copy("bin/busybox", 0o755, &tool("busybox", "busybox-static")?)?;
    for name in ["restart-stub", "ckpt"] {
        archive.copy(&format!("bin/{name}"), 0o755, &dist::dir()?.join(name))?;
    }
    for (i, module) in kernel.modules.iter().enumerate() {
        archive.copy(&format!("modules/{i}.ko"), 0o644, module)?;
    }
    // Where `ckpt` could not be linked statically it needs the C library, which programs from images bring along.
    for library in libraries(&dist::dir()?.join("ckpt"))? {
        archive.bring(&library.display().to_string(), &library)?;
    }
    for (there, here) in files {
        archive.bring(there, here)?;
    }
    Ok(archive)
}

impl Machine {
    /// Boots a kernel, with these files besides busybox, `restart-stub` and `ckpt`.
    ///
    /// # Errors
    /// It does not come up: with what the kernel said.
    pub fn boot(kernel: &Kernel, options: &Options<'_>) -> Result<Self> {
        let qemu = tool("qemu-system-x86_64", "qemu-system-x86")?;
        let dir = tempfile::Builder::new().prefix("ckpt-vm-").tempdir()?;
        let initrd = dir.path().join("initrd");
        fs::write(&initrd, base(kernel, options.files)?.finish())?;
        let ports = ["control", "data"].map(|name| dir.path().join(name));
        let control = UnixListener::bind(&ports[0])?;
        let mut command = Command::new(qemu);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-accel",
            "tcg,thread=multi",
        ]);
        command.args(["-machine", "pc", "-cpu", options.cpu, "-smp", &options.cpus.to_string()]);
        command.args(["-m", &options.memory.to_string(), "-serial", "stdio"]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initrd);
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 {}", options.append)]);
        command.args(["-device", "virtio-serial-pci"]);
        // Each stream through `data` is a connection of its own, which we make.
        for ((name, port), side) in ["control", "data"].iter().zip(&ports).zip(["", ",server=on,wait=off"]) {
            command.args(["-chardev", &format!("socket,id={name},path={}{side}", port.display())]);
            command.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        command.args(options.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let console = Capture::of(child.stdout.take().context("piped")?);
        let errors = Capture::of(child.stderr.take().context("piped")?);
        let said = || format!("{}: {} {}", kernel.name, errors.text(), console.text());
        let control = match accept(&control, &mut child).with_context(said) {
            Ok(control) => control,
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                return Err(error.context("qemu does not start"));
            }
        };
        // From here on the value turns it off.
        let control = BufReader::new(control);
        let mut machine = Self { name: kernel.name, child, console, control, streams: Cell::new(0), dir };
        machine.control.get_ref().set_read_timeout(Some(timeout() * SLOWER))?;
        let hello = machine.line()?;
        ensure!(hello == format!("hello {}", kernel.release), "kernel {} says '{hello}'", kernel.release);
        Ok(machine)
    }

    /// What the kernel and QEMU said.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// A new connection to `/dev/data` in the virtual machine.
    ///
    /// # Errors
    /// QEMU is gone.
    pub(super) fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.dir.path().join("data")).context("the data port")?;
        stream.set_read_timeout(Some(timeout() * SLOWER))?;
        stream.set_write_timeout(Some(timeout() * SLOWER))?;
        Ok(stream)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let got = self.control.read_line(&mut line);
        let failed = got.as_ref().map_or_else(|e| Some(e.to_string()), |n| (*n == 0).then(|| "closed".to_owned()));
        if let Some(why) = failed {
            bail!("virtual machine {} does not answer ({why}); it said:\n{}", self.name, self.console());
        }
        Ok(line.trim_end().to_owned())
    }

    fn order(&mut self, head: &str, body: &[u8]) -> Result<Done> {
        let stream = self.control.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let line = self.line()?;
        let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [code, out, err] = numbers[..] else { bail!("virtual machine {} answers '{line}'", self.name) };
        let mut bytes = vec![0; out + err];
        self.control.read_exact(&mut bytes)?;
        let err = String::from_utf8_lossy(&bytes[out..]).into_owned();
        bytes.truncate(out);
        Ok(Done { code: i32::try_from(code)?, out: bytes, err })
    }

    /// Runs a shell script as root, in `/tmp`, to its end.
    ///
    /// # Errors
    /// The virtual machine does not answer.
    pub fn run(&mut self, script: &str) -> Result<Done> {
        self.order(&format!("run {}\n", script.len()), script.as_bytes())
    }

    /// The same, which must succeed; its standard output.
    ///
    /// # Errors
    /// With all that it wrote.
    pub fn must(&mut self, script: &str) -> Result<String> {
        let done = self.run(script)?;
        ensure!(done.code == 0, "virtual machine {}: '{script}': {done:?}", self.name);
        Ok(done.text())
    }

    /// Runs a shell script as some user, in `/tmp`.
    ///
    /// # Errors
    /// The virtual machine does not answer.
    pub fn run_as(&mut self, user: User, script: &str) -> Result<Done> {
        if user == User::Own {
            return self.run(script);
        }
        self.put("/run/as", script.as_bytes())?;
        self.run("chmod 644 /run/as; exec su nobody -s /bin/sh -c '. /run/as'")
    }

    /// Writes a file, which is root's.
    ///
    /// # Errors
    /// It has no room.
    pub fn put(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        let done = self.order(&format!("put {} {path}\n", contents.len()), contents)?;
        ensure!(done.code == 0, "virtual machine {}: {path}: {}", self.name, done.err);
        Ok(())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is not there.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let done = self.run(&format!("cat '{path}'"))?;
        ensure!(done.code == 0, "virtual machine {}: {}", self.name, done.err);
        Ok(done.out)
    }
}

/// Waits until QEMU has connected.
fn accept(port: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    port.set_nonblocking(true)?;
    let look = || match port.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            ensure!(child.try_wait()?.is_none(), "it has ended");
            Ok(None)
        }
        Err(e) => Err(e.into()),
    };
    let stream = wait::until(look, || "it does not connect".to_owned())?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
