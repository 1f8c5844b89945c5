//! Programs in the middle of something that others wait for: a database that clients write to, a download, an open transaction. All
//! that was acknowledged is there after the restart, and what was under way goes on where connections are kept.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ckpt_tests::net::{Silence, connect, free_port, in_own_network, unless_kept};
use ckpt_tests::programs::tool;
use ckpt_tests::{Job, Place, User, proc, wait};

/// A client that adds one number after the other to a list of its own, as fast as they are acknowledged.
struct Writer {
    acknowledged: AtomicU64,
    /// How often its connection has ended.
    resets: AtomicU64,
}

impl Writer {
    const fn new() -> Self {
        Self { acknowledged: AtomicU64::new(0), resets: AtomicU64::new(0) }
    }

    fn write(&self, port: u16, list: usize, stop: &AtomicBool) -> Result<()> {
        let mut stream = connect(port)?;
        let mut length = 0;
        while !stop.load(Ordering::Relaxed) {
            let next = self.acknowledged.load(Ordering::Relaxed) + 1;
            match push(&mut stream, list, next) {
                // What was under way when the connection ended may be there, or not.
                Ok(now) if now == length + 1 || self.resets.load(Ordering::Relaxed) != 0 && now == length + 2 => {
                    length = now;
                    self.acknowledged.store(next, Ordering::Relaxed);
                }
                Ok(now) => bail!("list {list} has {now} numbers after {length}"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error).context("no answer"),
                Err(_) => {
                    self.resets.fetch_add(1, Ordering::Relaxed);
                    stream = connect(port)?;
                }
            }
        }
        Ok(())
    }
}

/// The length of the list with one number more.
fn push(stream: &mut TcpStream, list: usize, number: u64) -> std::io::Result<u64> {
    stream.write_all(format!("RPUSH list:{list} {number}\r\n").as_bytes())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&line);
    text.trim().strip_prefix(':').and_then(|n| n.parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Clients, and what they have in common.
const WRITERS: usize = 4;

fn redis_under_load(user: User, how: &str) -> Result<()> {
    let (place, port) = (Place::new(user)?, free_port()?);
    let image = place.file("redis.ckpt");
    let mut command = place.command(tool("redis-server", "redis-server")?);
    command.args(["--save", "", "--bind", "127.0.0.1", "--port"]).arg(port.to_string());
    let mut job = Job::start(&mut command)?;
    let (writers, stop) = ([const { Writer::new() }; WRITERS], AtomicBool::new(false));
    let more = |job: &Job| {
        let then = writers.each_ref().map(|w| w.acknowledged.load(Ordering::Relaxed));
        let all = || Ok(writers.iter().zip(then).all(|(w, n)| w.acknowledged.load(Ordering::Relaxed) > n + 100));
        wait::until(|| all().map(|all| all.then_some(())), || format!("not all go on: {}", job.story()))
    };
    // At an end it may be twice: the kernel closes the listener last.
    let ended = |expected: bool| {
        let seen = writers.each_ref().map(|w| w.resets.load(Ordering::Relaxed));
        ensure!(seen.iter().all(|times| (*times != 0) == expected), "connections ended {seen:?} times");
        Ok(())
    };
    let generations = |job: &mut Job| -> Result<()> {
        more(job)?;
        if how == "close" {
            place.save(job.pid(), &image, &["--tcp", "close"])?;
            more(job).context("after a live save")?;
            ended(false)?;
        }
        for generation in 1..=3 {
            let threads = threads(job)?;
            // Who writes on while nobody is there would be told that the connection is gone.
            let silence = if how == "keep" { Some(Silence::at(port)?) } else { None };
            place.save(job.pid(), &image, &["--kill", "--tcp", how])?;
            drop(job.end()?);
            *job = Job::start(&mut place.stub(&image))?;
            if let Some(silence) = silence {
                proc::wait_threads_sleep(job.pid(), threads).with_context(|| job.story())?;
                silence.end()?;
            }
            more(job).with_context(|| format!("restart {generation}"))?;
            ended(how == "close")?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let stop = &stop;
        let each = writers.iter().enumerate();
        let running: Vec<_> = each.map(|(list, w)| scope.spawn(move || w.write(port, list, stop))).collect();
        let done = generations(&mut job);
        stop.store(true, Ordering::Relaxed);
        for one in running {
            one.join().map_err(|_| anyhow!("a client panicked"))?.with_context(|| format!("{done:?}"))?;
        }
        done
    })?;
    for (list, writer) in writers.iter().enumerate() {
        let mut command = place.command(tool("redis-cli", "redis-tools")?);
        command.args(["-p", &port.to_string(), "LRANGE", &format!("list:{list}"), "0", "-1"]);
        let mut numbers: Vec<u64> =
            Job::start(&mut command)?.end()?.out.lines().map(str::parse).collect::<Result<_, _>>()?;
        numbers.dedup();
        let last = writer.acknowledged.load(Ordering::Relaxed);
        let whole = numbers.iter().copied().eq(1..=last);
        ensure!(whole, "list {list} has {} numbers, the last one {:?}, not 1 to {last}", numbers.len(), numbers.last());
    }
    job.kill().map(drop)
}

#[test]
fn redis_whose_clients_come_again() -> Result<()> {
    User::each(|user| redis_under_load(user, "close"))
}

#[test]
fn redis_whose_clients_notice_nothing() -> Result<()> {
    unless_kept()?;
    in_own_network(|| redis_under_load(User::Own, "keep"))
}

/// What is downloaded: more than the buffers of both ends can hold.
const LARGE: usize = 24 << 20;

fn byte(index: usize) -> u8 {
    ((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Begins to download, and reads the header and this much.
fn begin(port: u16, some: usize) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = connect(port)?;
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n")?;
    let (mut got, end) = (Vec::new(), b"\r\n\r\n");
    loop {
        let mut buffer = [0; 4096];
        let now = stream.read(&mut buffer)?;
        ensure!(now != 0, "the download ends after {} bytes", got.len());
        got.extend_from_slice(&buffer[..now]);
        let header = got.windows(end.len()).position(|w| w == end);
        if let Some(header) = header.filter(|at| got.len() >= at + end.len() + some) {
            got.drain(..header + end.len());
            return Ok((stream, got));
        }
    }
}

/// Reads the rest, and compares all.
fn finish((mut stream, mut got): (TcpStream, Vec<u8>)) -> Result<()> {
    stream.read_to_end(&mut got).with_context(|| format!("after {} bytes", got.len()))?;
    let wrong = got.iter().enumerate().position(|(i, b)| *b != byte(i));
    ensure!(got.len() == LARGE && wrong.is_none(), "{} bytes came, byte {wrong:?} differs", got.len());
    Ok(())
}

fn download(user: User, how: &str) -> Result<()> {
    let (place, port) = (Place::new(user)?, free_port()?);
    let image = place.file("server.ckpt");
    place.write("large", (0..LARGE).map(byte).collect::<Vec<_>>())?;
    let mut command = place.command(tool("python3", "python3")?);
    command.args(["-m", "http.server", "--bind", "127.0.0.1"]).arg(port.to_string());
    let mut job = Job::start(&mut command)?;
    if how == "close" {
        let client = begin(port, 1 << 20)?;
        place.save(job.pid(), &image, &["--tcp", "close"])?;
        finish(client).context("after a live save")?;
    }
    for generation in 1..=2 {
        let threads = threads(&job)?;
        let client = begin(port, 1 << 20)?;
        let silence = if how == "keep" { Some(Silence::at(port)?) } else { None };
        place.save(job.pid(), &image, &["--kill", "--tcp", how])?;
        drop(job.end()?);
        // It reads on while there is nobody.
        let reader = thread::spawn(move || finish(client));
        job = Job::start(&mut place.stub(&image))?;
        if let Some(silence) = silence {
            // The one that serves it has come back, too.
            proc::wait_threads_sleep(job.pid(), threads + 1).with_context(|| job.story())?;
            silence.end()?;
        }
        let read = reader.join().map_err(|_| anyhow!("the client panicked"))?;
        ensure!(read.is_ok() == (how == "keep"), "restart {generation}: {read:?}, {}", job.story());
        finish(begin(port, 0)?).with_context(|| format!("restart {generation}: {}", job.story()))?;
        let alone = || Ok((self::threads(&job)? == threads).then_some(()));
        wait::until(alone, || format!("threads remain: {}", job.story()))?;
    }
    job.kill().map(drop)
}

fn threads(job: &Job) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", job.pid()))?.count())
}

#[test]
fn a_download_that_begins_again() -> Result<()> {
    User::each(|user| download(user, "close"))
}

#[test]
fn a_download_that_goes_on() -> Result<()> {
    unless_kept()?;
    in_own_network(|| download(User::Own, "keep"))
}

/// Write-ahead logging: what is committed lies in the log, and its index in a file that all who have the database open map and lock.
#[test]
fn sqlite_with_a_write_ahead_log() -> Result<()> {
    const BEFORE: &str = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT); \
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000) \
        INSERT INTO t SELECT n, printf('%032d', n) FROM c; BEGIN IMMEDIATE; \
        WITH RECURSIVE c(n) AS (SELECT 5001 UNION ALL SELECT n + 1 FROM c WHERE n < 9000) \
        INSERT INTO t SELECT n, printf('%032d', n) FROM c; SELECT 'open ' || count(*) FROM t;\n";
    const COUNT: &str = "SELECT 'rows ' || count(*) || ' ' || sum(n) FROM t;\n";
    let program = tool("sqlite3", "sqlite3")?;
    User::each(|user| {
        let place = Place::new(user)?;
        let image = place.file("job.ckpt");
        let start = || Job::start(place.command(&program).args(["-batch", "wal.db"]));
        let (mut job, mut other) = (start()?, start()?);
        job.type_in(BEFORE)?;
        job.wait_line("open 9000")?;
        // Another process has the database open all the time: it alone would make an end of the log.
        other.type_in(COUNT)?;
        other.wait_line("rows 5000 12502500")?;
        for generation in 1..=3 {
            place.save(
                job.pid(),
                &image,
                &if generation == 1 { vec!["--kill"] } else { vec!["--kill", "--compress", "zstd"] },
            )?;
            drop(job.end()?);
            job = Job::start(place.ckpt().arg("restart").arg(&image))?;
            job.type_in(&format!("SELECT 'again {generation} ' || count(*) FROM t;\n"))?;
            job.wait_line(&format!("again {generation} 9000"))?;
            // Its transaction is open still: it can be seen by nobody, and nobody else may write.
            let sql = "SELECT 'rows ' || count(*) FROM t; INSERT INTO t VALUES (0, '');";
            let third = Job::start(place.command(&program).args(["-batch", "wal.db", sql]))?.end()?;
            ensure!(third.out.contains("rows 5000\n") && third.err.contains("locked"), "{third:#?}");
        }
        job.type_in("COMMIT; PRAGMA integrity_check;\n")?;
        job.wait_line("ok")?;
        other.type_in(&format!("{COUNT}PRAGMA integrity_check;\n"))?;
        other.wait_line("rows 9000 40504500")?;
        other.wait_line("ok")?;
        job.type_in("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (9001, ''); SELECT 'written';\n")?;
        job.wait_line("written")?;
        for mut one in [job, other] {
            one.close_stdin();
            let ended = one.end()?;
            ensure!(ended.status.success() && ended.err.is_empty(), "{ended:#?}");
        }
        Ok(())
    })
}

/// A tree for a moment: a child writes the database as it was, and its parent hears of its end after the restart.
#[test]
fn redis_while_it_saves() -> Result<()> {
    const FILL: &str = "for i = 1, 20000 do redis.call('SET', 'key:' .. i, 'value ' .. i * 7919) end";
    User::each(|user| {
        let place = Place::new(user)?;
        let (socket, image) = (place.file("redis.sock"), place.file("redis.ckpt"));
        let mut command = place.command(tool("redis-server", "redis-server")?);
        command.args(["--port", "0", "--save", "", "--rdb-key-save-delay", "100", "--unixsocket"]).arg(&socket);
        let mut job = Job::start(&mut command)?;
        job.wait_text("ready to accept connections")?;
        let client = tool("redis-cli", "redis-tools")?;
        let ask = |words: &[&str]| -> Result<String> {
            Ok(Job::start(place.command(&client).arg("-s").arg(&socket).args(words))?.end()?.out)
        };
        ask(&["EVAL", FILL, "0"])?;
        ask(&["BGSAVE"])?;
        ensure!(proc::children(job.pid()).len() == 1, "nobody saves: {}", job.story());
        place.save(job.pid(), &image, &["--kill"])?;
        drop(job.end()?);
        ensure!(!place.file("dump.rdb").exists(), "it came too late");
        let job = Job::start(place.ckpt().arg("restart").arg(&image))?;
        let done = || Ok(ask(&["INFO", "persistence"])?.contains("rdb_bgsave_in_progress:0").then_some(()));
        wait::until(done, || job.story())?;
        ensure!(ask(&["INFO", "persistence"])?.contains("rdb_last_bgsave_status:ok"), "{}", job.story());
        ensure!(ask(&["GET", "key:12345"])?.trim() == "value 97760055", "{}", job.story());
        let check = Job::start(place.command(tool("redis-check-rdb", "redis-tools")?).arg("dump.rdb"))?.end()?;
        ensure!(check.code() == Some(0) && check.out.contains("20000 keys read"), "{check:#?}");
        job.kill().map(drop)
    })
}
