//! Processes that go on in a virtual machine: several at once, each with its output in a file, as one that is let go on by a shell.

use std::fmt::Write as _;
use std::io::Write;
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};

use super::{Machine, Stream};
use crate::User;
use crate::user::NOBODY;

/// What runs a process in a virtual machine: name, user (`root` or `nobody`) and command; its pid is in NAME.pid, its output in NAME.out.
const GO: &str = r#"name=$1 user=$2 command=$3
cd /tmp
su "$user" -s /bin/sh -c "echo \$\$ > /tmp/$name.pid; cd /tmp; exec $command" < /dev/null 2>&1 | cat > "/tmp/$name.out"
touch "/tmp/$name.end"
"#;

/// The same out of a stream: name, user, the stream's number.
const FROM: &str = r#"name=$1 user=$2 number=$3
cd /tmp
su "$user" -s /bin/sh -c "stream from $number | ckpt restart - --pidfile /tmp/$name.pid" < /dev/null 2>&1 | cat > "/tmp/$name.out"
touch "/tmp/$name.end"
"#;

/// Waits until a process has written a line, or has ended, for some minutes at most; without a line for its end.
const AWAIT: &str = r#"name=$1 line=$2
now() { cut -d. -f1 /proc/uptime; }
until=$(($(now) + 150))
there() { if [ "$line" ]; then grep -qx "$line" "/tmp/$name.out" 2> /dev/null; else [ -e "/tmp/$name.end" ]; fi; }
until there || [ -e "/tmp/$name.end" ] || [ $(now) -ge $until ]; do
    usleep 100000
done
there
"#;

/// Saves the process whose pid is in NAME.pid, or the program that it supervises; with these options.
const SAVE: &str = r#"name=$1
shift
exec ckpt save "$(cat "/tmp/$name.pid")" "$@"
"#;

/// What the process whose pid is in NAME.pid does just now, each thread of it, and who else there is.
const LOOK: &str = r#"name=$1
ps -o pid,ppid,stat,args
cd "/proc/$(cat "/tmp/$name.pid")/task" && grep -E 'State|SigPnd|ShdPnd|SigBlk' */status && grep . */syscall */wchan */stack
"#;

/// A process to let go on in a virtual machine.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// A word that no other has.
    pub name: String,
    /// Who restarts it.
    pub user: User,
    /// The image.
    pub image: &'a [u8],
    /// The command in front of the image's path: `restart-stub`, `ckpt restart`.
    pub command: &'a str,
}

fn user(user: User) -> &'static str {
    if user == User::Nobody { "nobody" } else { "root" }
}

impl Machine {
    /// Lets processes go on, all at once.
    ///
    /// # Errors
    /// The virtual machine has no room.
    pub fn go_on(&mut self, guests: &[Guest<'_>]) -> Result<()> {
        self.scripts()?;
        let mut script = String::new();
        for guest in guests {
            let (name, command) = (&guest.name, guest.command);
            self.put(&format!("/tmp/{name}.ckpt"), guest.image)?;
            if guest.user == User::Nobody {
                writeln!(script, "chown {NOBODY}:{NOBODY} /tmp/{name}.ckpt")?;
            }
            writeln!(script, "chmod 400 /tmp/{name}.ckpt")?;
            let user = user(guest.user);
            writeln!(script, "sh /run/go {name} {user} '{command} /tmp/{name}.ckpt' > /dev/null 2>&1 &")?;
        }
        self.must(&script)?;
        Ok(())
    }

    fn scripts(&mut self) -> Result<()> {
        for (name, script) in [("go", GO), ("from", FROM), ("await", AWAIT), ("save", SAVE), ("look", LOOK)] {
            self.put(&format!("/run/{name}"), script.as_bytes())?;
        }
        Ok(())
    }

    /// Lets one go on out of a stream.
    ///
    /// # Errors
    /// The virtual machine does not answer.
    pub fn go_on_from(&mut self, stream: &Stream, name: &str, whose: User) -> Result<()> {
        self.scripts()?;
        let number = &stream.number;
        self.must(&format!("sh /run/from {name} {} {number} > /dev/null 2>&1 &", user(whose)))?;
        Ok(())
    }

    /// Saves a process there, as its user, with these options, into a stream; what comes out of it goes to `to`. The number of bytes.
    ///
    /// # Errors
    /// It is not saved, or `to` takes no more.
    pub fn save_into_stream(&mut self, name: &str, whose: User, options: &str, to: impl Write + Send) -> Result<u64> {
        let stream = self.stream()?;
        let pipeline = format!("sh /run/save {name} -q -o - {options} | stream to {}", stream.number);
        thread::scope(|scope| {
            let received = scope.spawn(|| stream.receive(to));
            let done = self.run_as(whose, &format!("set -o pipefail; {pipeline}"))?;
            let received = received.join().map_err(|_| anyhow!("the receiver has died"))?;
            ensure!(done.code == 0 && done.err.is_empty(), "virtual machine {}: {name}: {done:?}", self.name);
            received
        })
    }

    /// Waits for a line of a process's output; what it has written so far.
    ///
    /// # Errors
    /// It has ended without, or never says it.
    pub fn await_line(&mut self, name: &str, line: &str) -> Result<String> {
        let done = self.run(&format!("sh /run/await {name} '{line}'"))?;
        let said = self.get(&format!("/tmp/{name}.out"))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        if done.code != 0 {
            let looks = self.run(&format!("sh /run/look {name}"))?.text();
            bail!("virtual machine {}: {name} does not say '{line}' or end, but says:\n{said}\n{looks}", self.name);
        }
        Ok(said)
    }

    /// Saves a process there, as its user, which ends it; the image, and all that it has written.
    ///
    /// # Errors
    /// It is not saved.
    pub fn save_there(&mut self, name: &str, whose: User, line: &str) -> Result<(Vec<u8>, String)> {
        self.await_line(name, line)?;
        let done = self.run_as(whose, &format!("sh /run/save {name} -o /tmp/{name}.next --kill"))?;
        ensure!(done.code == 0, "virtual machine {}: {name}: {}", self.name, done.err);
        let said = self.end(name)?;
        let image = self.get(&format!("/tmp/{name}.next"))?;
        self.must(&format!("rm /tmp/{name}.*"))?;
        Ok((image, said))
    }

    /// Waits for a process's end; all that it has written.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self, name: &str) -> Result<String> {
        self.await_line(name, "")
    }
}
