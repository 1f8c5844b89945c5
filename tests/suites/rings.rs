//! Programs that use io_uring of their own accord: Node 22 and 24, whose event loops have rings, uvloop, and fio. Each goes on where it was,
//! twice from one image, and through six generations.

use std::path::Path;

use anyhow::{Result, ensure};
use ckpt_tests::programs::{Provided, tool};
use ckpt_tests::{Job, Place, READY, User, wait};

/// How often a program is saved, killed and restarted.
const GENERATIONS: u32 = 6;

/// A server that is asked by itself, until it may end. What it has counted shows that it was not begun anew.
const NODE: &str = r#"
const fs = require("fs"), http = require("http");
let count = 0;
const server = http.createServer((request, response) => response.end("answer " + count)).listen(0, "127.0.0.1", () => {
    console.log("ready");
    const ask = () => http.get({ port: server.address().port, host: "127.0.0.1", agent: false }, (response) => {
        let text = "";
        response.on("data", (data) => (text += data));
        response.on("end", () => {
            if (text !== "answer " + count) throw new Error(text);
            count += 1;
            fs.stat(process.env.GUEST_GO, (missing) => {
                if (missing) return setTimeout(ask, 5);
                if (count < 2) throw new Error("begun anew");
                console.log("PASS");
                process.exit(0);
            });
        });
    });
    ask();
});
"#;

const UVLOOP: &str = r#"
import asyncio, os, sys
sys.path.insert(0, "packages")
import uvloop
async def main():
    async def answer(reader, writer):
        writer.write(await reader.readexactly(4))
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address, count = server.sockets[0].getsockname(), 0
    print("ready", flush=True)
    while not os.path.exists(os.environ["GUEST_GO"]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
        count += 1
        await asyncio.sleep(0.005)
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop) and count > 0
    print("PASS", flush=True)
uvloop.run(main())
"#;

/// Whether a process has an io_uring instance.
fn has_ring(pid: u32) -> bool {
    let is_ring = |entry: std::io::Result<std::fs::DirEntry>| {
        let link = entry.and_then(|entry| std::fs::read_link(entry.path()));
        link.is_ok_and(|name| name.to_string_lossy() == "anon_inode:[io_uring]")
    };
    std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut all| all.any(is_ring))
}

/// A program that waits for its end by `GUEST_GO`.
fn lives_on(place: &Place, program: &Path, arguments: &[&str]) -> Result<()> {
    let image = place.file("job.ckpt");
    let mut job = Job::start(place.command(program).args(arguments))?;
    job.wait_line(READY)?;
    ensure!(has_ring(job.pid()), "it uses no io_uring: {}", job.story());
    let checked = Job::start(place.ckpt().arg("check").arg(job.pid().to_string()))?.end()?;
    ensure!(checked.code() == Some(0), "{checked:#?}");
    // Goes on, and leaves an image that is restarted twice.
    place.save(job.pid(), &image, &["--tcp", "close"])?;
    place.go()?;
    job.end()?.expect_pass()?;
    for _ in 0..2 {
        Job::start(&mut place.stub(&image))?.end()?.expect_pass()?;
    }
    place.halt()?;
    for _ in 0..GENERATIONS {
        let mut job = Job::start(&mut place.stub(&image))?;
        // It waits for the restart.
        place.save(job.pid(), &image, &["--tcp", "close", "--kill"])?;
        job.end()?;
    }
    place.go()?;
    Job::start(&mut place.stub(&image))?.end()?.expect_pass()
}

fn node(version: &'static str) -> Result<()> {
    let provided = Provided::by_npm(version)?;
    User::each(|user| {
        let place = Place::new(user)?;
        let node = place.bin().join("node");
        std::fs::copy(provided.program("node")?, &node)?;
        place.write("server.js", NODE)?;
        lives_on(&place, &node, &["server.js"])
    })
}

#[test]
fn node_22() -> Result<()> {
    node("node@22")
}

#[test]
fn node_24() -> Result<()> {
    node("node@24")
}

#[test]
fn uvloop() -> Result<()> {
    let provided = Provided::by_pip("uvloop")?;
    User::each(|user| {
        let place = Place::new(user)?;
        provided.copy_to(&place.file("packages"))?;
        place.write("server.py", UVLOOP)?;
        lives_on(&place, &tool("python3", "python3")?, &["server.py"])
    })
}

/// Writes a file and reads it again, with several requests in flight at almost any moment: a save waits for one at which there is none.
#[test]
fn fio() -> Result<()> {
    let fio = tool("fio", "fio")?;
    User::each(|user| {
        for depth in ["1", "8"] {
            let place = Place::new(user)?;
            let (image, data) = (place.file("job.ckpt"), place.file("data"));
            let mut command = place.command(&fio);
            command.args(["--name=rings", "--ioengine=io_uring", "--rw=write", "--bs=4k", "--size=24m", "--rate=8m"]);
            command.args(["--fallocate=none", "--verify=pattern", "--verify_pattern=0x5eed", "--iodepth", depth]);
            command.arg("--filename").arg(&data).arg("--output=report");
            let mut job = Job::start(&mut command)?;
            let has_begun = || Ok(std::fs::metadata(&data).is_ok_and(|data| data.len() > 1 << 20).then_some(()));
            wait::until(has_begun, || job.story())?;
            place.save(job.pid(), &image, &["--kill"])?;
            job.end()?;
            ensure!(std::fs::metadata(&data)?.len() < 24 << 20, "it had written all before the save");
            let mut job = Job::start(place.stub(&image).args(["--files", "ignore"]))?;
            let ended = job.end()?;
            let report = std::fs::read_to_string(place.file("report"))?;
            ensure!(ended.code() == Some(0) && report.contains("err= 0"), "depth {depth}: {ended:#?} {report}");
            ensure!(std::fs::metadata(&data)?.len() == 24 << 20, "depth {depth}: {report}");
        }
        Ok(())
    })
}
