//! A real sshd on loopback: a port, keys and a configuration of its own, no file of the system's touched.
//!
//! As root it runs in a mount namespace where `/run` is empty and `/etc/passwd` gives the user a shell, and the place as home; as anybody else it can
//! only let its own user in.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::programs::tool;
use crate::{Job, Place, User, wait};

/// It runs as long as the value lives; connections that are open then go on.
#[derive(Debug)]
pub struct Sshd {
    job: Job,
    dir: PathBuf,
    port: u16,
    user: String,
}

impl Sshd {
    /// Starts one that lets the place's user in.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(place: &Place) -> Result<Self> {
        let (sshd, keygen) = (tool("sshd", "openssh-server")?, tool("ssh-keygen", "openssh-client")?);
        let dir = place.file("ssh");
        fs::create_dir(&dir)?;
        for key in ["host", "user"] {
            let path = dir.join(key);
            let made = Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).output()?;
            ensure!(made.status.success(), "{made:?}");
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized"))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        for file in ["user", "user.pub", "authorized"] {
            place.give(&dir.join(file))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = dir.display();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPrintMotd no\n\
             SetEnv HOME={home} PATH=/usr/local/bin:/usr/bin:/bin GUEST_GO={go}\n",
            home = place.work().display(),
            go = place.file("go").display()
        );
        fs::write(dir.join("config"), text)?;
        let root = rustix::process::geteuid().is_root();
        let user = match (root, place.user()) {
            (_, User::Nobody) => "nobody".to_owned(),
            (true, _) => "root".to_owned(),
            (false, _) => String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?.trim().to_owned(),
        };
        let lines = if root {
            r#"sed "s|^\($3:[^:]*:[^:]*:[^:]*:[^:]*\):.*|\1:$2:/bin/sh|" /etc/passwd > "$1/passwd" &&
               mount -t tmpfs none /run && mkdir -m 755 /run/sshd && mount --bind "$1/passwd" /etc/passwd &&
               exec "$4" -D -e -f "$1/config""#
        } else {
            r#"exec "$4" -D -e -f "$1/config""#
        };
        let mut command = Command::new(if root { "unshare" } else { "env" });
        if root {
            command.arg("-m");
        }
        command.args(["/bin/sh", "-c", lines, "sh"]).arg(&dir).arg(place.work()).arg(&user).arg(sshd);
        let job = Job::start(&mut command)?;
        let this = Self { job, dir, port, user };
        this.job.wait_err("Server listening").with_context(|| this.job.story())?;
        Ok(this)
    }

    /// The ssh that reaches it, as `ckpt migrate --ssh` takes it.
    #[must_use]
    pub fn ssh(&self) -> String {
        let at = self.dir.display();
        format!(
            "ssh -F none -p {} -i {at}/user -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile={at}/known -o GlobalKnownHostsFile=none -o LogLevel=ERROR",
            self.port
        )
    }

    /// The user and host.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }

    /// Ends it, and waits until it takes no connection any more.
    ///
    /// # Errors
    /// It stays.
    pub fn stop(self) -> Result<()> {
        let port = self.port;
        drop(self);
        let closed = || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
        wait::until(closed, || "sshd is still there".to_owned())
    }
}
