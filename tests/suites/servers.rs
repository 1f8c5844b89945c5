//! Servers that know nothing of us, saved by their pid while a client is connected, killed, restarted: they serve again, with
//! the data that they had, and the old client finds its connection reset.

use std::io::Read;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ckpt_tests::net::{ask, connect, free_port};
use ckpt_tests::programs::tool;
use ckpt_tests::wait::timeout;
use ckpt_tests::{Job, Place, User, left_out, proc, wait};

/// A request and what comes back, before the save and behind the restart: the data is the same, a counter goes on.
struct Talk<'a> {
    /// Gives the server its data.
    first: (&'a str, &'a str),
    /// Asks for it while it goes on after the save, on the same connection.
    same: (&'a str, &'a str),
    /// Asks the restarted server.
    then: (&'a str, &'a str),
}

const GET: &str = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn survives(place: &Place, port: u16, server: &mut Command, talk: &Talk<'_>) -> Result<()> {
    let image = place.file("server.ckpt");
    let mut job = Job::start(server)?;
    let mut client = connect(port)?;
    ask(&mut client, talk.first.0, talk.first.1)?;
    let refused = place.try_save(job.pid(), &image, &[])?;
    ensure!(refused.code() == Some(88) && refused.err.contains("--tcp close"), "{refused:#?}");
    place.save(job.pid(), &image, &["--tcp", "close"])?;
    ask(&mut client, talk.same.0, talk.same.1).context("after a live save")?;
    for generation in 0..2 {
        place.save(job.pid(), &image, &["--tcp", "close", "--kill"])?;
        drop(job.end()?);
        let mut byte = [0];
        ensure!(!matches!(client.read(&mut byte), Ok(1)), "a killed server goes on talking");
        job = Job::start(&mut place.stub(&image))?;
        client = connect(port)?;
        ask(&mut client, talk.then.0, talk.then.1).with_context(|| format!("restart {generation}: {}", job.story()))?;
    }
    job.kill()?;
    Ok(())
}

#[test]
fn redis() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let mut command = place.command(tool("redis-server", "redis-server")?);
        command.args(["--save", "", "--daemonize", "no", "--bind", "127.0.0.1", "--port"]).arg(port.to_string());
        let fill =
            "EVAL \"for i = 1, 200000 do redis.call('SET', 'key:' .. i, 'value ' .. i * 7919) end\" 0\r\nDBSIZE\r\n";
        let get = ("GET key:12345\r\n", "value 97760055\r\n");
        survives(&place, port, &mut command, &Talk { first: (fill, ":200000\r\n"), same: get, then: get })
    })
}

/// Through a Unix socket, without any client at the time of the save: nothing stands in the way.
#[test]
fn redis_at_a_unix_socket() -> Result<()> {
    User::each(|user| {
        let place = Place::new(user)?;
        let (socket, image) = (place.file("redis.sock"), place.file("redis.ckpt"));
        let mut command = place.command(tool("redis-server", "redis-server")?);
        command.args(["--port", "0", "--save", "", "--daemonize", "no", "--unixsocket"]).arg(&socket);
        let mut job = Job::start(&mut command)?;
        job.wait_text("ready to accept connections")?;
        let client = tool("redis-cli", "redis-tools")?;
        let ask = |words: &[&str]| -> Result<String> {
            let mut command = place.command(&client);
            let ended = Job::start(command.arg("-s").arg(&socket).args(words))?.end()?;
            Ok(ended.out.trim().to_owned())
        };
        ask(&["SET", "key", "value"])?;
        place.save(job.pid(), &image, &[])?;
        ensure!(ask(&["GET", "key"])? == "value", "after a live save");
        let twice = Job::start(&mut place.stub(&image))?.end()?;
        ensure!(twice.code() == Some(84) && twice.err.contains("redis.sock"), "two at one socket: {twice:#?}");
        job.kill()?;
        job = Job::start(&mut place.stub(&image))?;
        let deadline = Instant::now() + timeout();
        while ask(&["GET", "key"])? != "value" {
            ensure!(Instant::now() < deadline, "{}", job.story());
        }
        job.kill()?;
        Ok(())
    })
}

#[test]
fn memcached() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let mut command = place.command(tool("memcached", "memcached")?);
        command.args(["-l", "127.0.0.1", "-u", "root", "-p"]).arg(port.to_string());
        let get = ("get key\r\n", "VALUE key 0 5\r\nvalue\r\nEND\r\n");
        let talk = Talk { first: ("set key 0 0 5\r\nvalue\r\n", "STORED\r\n"), same: get, then: get };
        survives(&place, port, &mut command, &talk)
    })
}

#[test]
fn nginx() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        place.write("page", "the page of nginx")?;
        let work = place.work().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {work}/{kind};\n"))
            .concat();
        let conf = format!(
            "daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/error.log;\n\
             events {{}}\nhttp {{ access_log off; {temporary}\n\
             server {{ listen 127.0.0.1:{port}; root {work}; }} }}\n"
        );
        let conf = place.write("nginx.conf", conf)?;
        let mut command = place.command(tool("nginx", "nginx-light")?);
        command.arg("-c").arg(conf).arg("-e").arg(place.file("error.log"));
        let get = (GET, "the page of nginx");
        survives(&place, port, &mut command, &Talk { first: get, same: get, then: get })
    })
}

/// A tree of two users: its master is root's, its worker is not. It is saved by the master's id while a client waits for the rest of what
/// it asked for; restarted, the worker is still who it was, and the master rules over it.
#[test]
fn nginx_as_root() -> Result<()> {
    left_out::unless_root("only root can be several users")?;
    let (place, port) = (Place::new(User::Own)?, free_port()?);
    let (work, image) = (place.work().display().to_string(), place.file("server.ckpt"));
    place.write("page", "the page of nginx")?;
    place.write("large", vec![b'x'; 64 << 20])?;
    let conf = |page: &str| {
        format!(
            "daemon off; user www-data; worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log;\n\
             events {{}}\nhttp {{ access_log off;\n\
             server {{ listen 127.0.0.1:{port}; root {work}; location = /named {{ return 200 {page}; }} }} }}\n"
        )
    };
    let file = place.write("nginx.conf", conf("first"))?;
    let mut command = place.command(tool("nginx", "nginx-light")?);
    command.arg("-c").arg(&file).arg("-e").arg(place.file("error.log"));
    let mut job = Job::start(&mut command)?;
    ask(&mut connect(port)?, GET, "the page of nginx")?;
    let mut client = connect(port)?;
    ask(&mut client, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", "xxx")?;
    let master = job.pid();
    place.save(master, &image, &["--tcp", "close"])?;
    ask(&mut client, "", "xxx").context("after a live save")?;
    let shown = Job::start(place.ckpt().arg("show").arg(&image))?.end()?;
    ensure!(shown.out.contains("user 33, group 33") && shown.out.contains("async"), "{shown:#?}");
    // Nobody else may have its ids: an ordinary user, or root without the right.
    let mut less = place.command("/usr/bin/setpriv");
    less.args(["--bounding-set", "-setuid", "--inh-caps", "-setuid"]).arg(place.bin().join("ckpt"));
    for options in [&[][..], &["--namespace"]] {
        let refused = Job::start(
            place.command(less.get_program()).args(less.get_args()).arg("restart").args(options).arg(&image),
        )?
        .end()?;
        ensure!(refused.code() == Some(80) && refused.err.contains("CAP_SETUID"), "{options:?}: {refused:#?}");
    }
    for (generation, options) in [(0, &[][..]), (1, &["--namespace"]), (2, &[])] {
        place.save(job_root(&place, &job, generation)?, &image, &["--tcp", "close", "--kill"])?;
        drop(job.end()?);
        let _ = std::fs::remove_file(place.file("root.pid"));
        let mut restart = place.ckpt();
        restart.args(["restart", "--pidfile"]).arg(place.file("root.pid")).args(options).arg(&image);
        job = Job::start(&mut restart)?;
        ask(&mut connect(port)?, GET, "the page of nginx")
            .with_context(|| format!("restart {generation}: {}", job.story()))?;
        let root = job_root(&place, &job, 1)?;
        let [worker] = proc::children(root)[..] else { anyhow::bail!("not one worker: {:?}", proc::children(root)) };
        let status = std::fs::read_to_string(format!("/proc/{worker}/status"))?;
        for line in ["Uid:\t33\t33\t33\t33\n", "Gid:\t33\t33\t33\t33\n", "CapEff:\t0000000000000000\n"] {
            ensure!(status.contains(line), "{line:?} is not there: {status}");
        }
    }
    // The master is still obeyed: a new worker with a new configuration, and an end.
    let root = job_root(&place, &job, 1)?;
    place.write("nginx.conf", conf("second"))?;
    let named = |until: &str| ask(&mut connect(port)?, "GET /named HTTP/1.0\r\n\r\n", until);
    named("first")?;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(root as i32).context("no id")?,
        rustix::process::Signal::HUP,
    )?;
    let deadline = Instant::now() + timeout();
    while named("second").is_err() {
        ensure!(Instant::now() < deadline, "it has not read its configuration again: {}", job.story());
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(root as i32).context("no id")?,
        rustix::process::Signal::QUIT,
    )?;
    let ended = job.end()?;
    ensure!(ended.code() == Some(0), "{ended:#?}");
    let errors = std::fs::read_to_string(place.file("error.log"))?;
    ensure!(!["[alert]", "[crit]", "[emerg]"].iter().any(|bad| errors.contains(bad)), "{errors}");
    Ok(())
}

/// The root of a tree: the job itself, until it was restarted.
fn job_root(place: &Place, job: &Job, generation: u32) -> Result<u32> {
    if generation == 0 {
        return Ok(job.pid());
    }
    let written = || Ok(std::fs::read_to_string(place.file("root.pid")).ok().and_then(|pid| pid.trim().parse().ok()));
    wait::until(written, || format!("no id of the root: {}", job.story()))
}

/// It counts its answers: the count goes on.
#[test]
fn node() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let mut command = place.command(tool("node", "nodejs")?);
        let script = "let n = 0; require('http').createServer((q, a) => a.end(`answer ${++n}.`)).listen(+process.argv[1], '127.0.0.1')";
        command.args(["-e", script]).arg(port.to_string());
        let talk = Talk { first: (GET, "answer 1."), same: (GET, "answer 2."), then: (GET, "answer ") };
        survives(&place, port, &mut command, &talk)
    })
}

#[test]
fn python_http_server() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        place.write("page", "the page of python")?;
        let mut command = place.command(tool("python3", "python3")?);
        let script = "import http.server, sys\n\
             class H(http.server.SimpleHTTPRequestHandler): protocol_version = 'HTTP/1.1'\n\
             http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()";
        command.args(["-c", script]).arg(port.to_string());
        let get = (GET, "the page of python");
        survives(&place, port, &mut command, &Talk { first: get, same: get, then: get })
    })
}

/// `ckpt run` saves a server with connections, and takes it up again.
#[test]
fn redis_under_ckpt_run() -> Result<()> {
    User::each(|user| {
        let (place, port) = (Place::new(user)?, free_port()?);
        let start = || -> Result<Job> {
            let mut command = place.ckpt();
            command
                .args(["run", "-o", "redis.ckpt", "--tcp", "close", "--"])
                .arg(tool("redis-server", "redis-server")?);
            Job::start(command.args(["--save", "", "--bind", "127.0.0.1", "--port"]).arg(port.to_string()))
        };
        let mut job = start()?;
        let mut client = connect(port)?;
        ask(&mut client, "SET key value\r\n", "+OK\r\n")?;
        job.send(rustix::process::Signal::TERM)?;
        job.end()?.expect_code(85)?;
        job = start()?;
        let mut client = connect(port)?;
        ask(&mut client, "GET key\r\n", "value\r\n").with_context(|| job.story())?;
        drop(client);
        job.send(rustix::process::Signal::TERM)?;
        job.end()?.expect_code(85)
    })
}

/// A program whose standard input and output are sockets, as node and sshd give them.
#[test]
fn standard_streams_that_are_sockets() -> Result<()> {
    const PARENT: &str = "import os, socket, subprocess, sys\n\
        a, b = socket.socketpair()\n\
        child = subprocess.Popen([sys.argv[1]], stdin=b, stdout=b)\n\
        b.close(); a.recv(100)\n\
        print('pid', child.pid, flush=True)\n\
        child.wait()";
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let mut command = place.command(tool("python3", "python3")?);
        let mut parent = Job::start(command.args(["-c", PARENT]).arg(place.guest("umask")?))?;
        parent.wait_text("pid ")?;
        parent.wait_text("\n")?;
        let pid = parent.out().trim().strip_prefix("pid ").context("a pid")?.parse()?;
        place.save(pid, &image, &["--kill"])?;
        drop(parent.end()?);
        place.go()?;
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()
    })
}
