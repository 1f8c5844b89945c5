//! Full-screen programs in tmux: saved, killed, restarted in a pane of another size. The screen is drawn anew, what was typed
//! is there, keys work.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use ckpt_tests::image::Mark;
use ckpt_tests::programs::tool;
use ckpt_tests::tmux::Tmux;
use ckpt_tests::{Place, User, proc, wait};
use rustix::process::{Pid, Signal, kill_process};

fn preloaded(place: &Place, image: &Path, command: &str) -> String {
    let library = place.bin().join("libckpt.so");
    let (library, image) = (library.display(), image.display());
    // Only the program is preloaded, not the shell that starts it.
    format!("exec env LD_PRELOAD={library} CKPT_IMAGE={image} CKPT_SIGNAL=USR1 {command}")
}

/// Saves the pane's program and kills it.
fn save_and_kill(tmux: &Tmux<'_>, image: &Path) -> Result<()> {
    let pid = tmux.pid()?;
    proc::wait_catches(pid, Signal::USR1.as_raw())?;
    let handle = Pid::from_raw(pid as i32);
    let Some(handle) = handle else { anyhow::bail!("no pid") };
    let before = Mark::of(image);
    kill_process(handle, Signal::USR1)?;
    let look = || Ok(Some(Mark::of(image)).filter(|now| now.is_there() && *now != before));
    wait::until(look, || format!("no image; the screen shows:\n{}", tmux.screen().unwrap_or_default()))?;
    kill_process(handle, Signal::KILL)?;
    let dead = || Ok((tmux.run(&["display-message", "-p", "#{pane_dead}"])? == "1").then_some(()));
    wait::until(dead, || "the pane's program is still there".to_owned())
}

fn restarted(place: &Place, image: &Path) -> String {
    format!("exec {} {}", place.bin().join("restart-stub").display(), image.display())
}

fn vim(user: User) -> Result<()> {
    let place = Place::new(user)?;
    // The full vim: it also keeps a POSIX timer, with a thread of the libc's, for the time of a redraw.
    let vim = tool("vim.basic", "vim")?;
    let image = place.file("vim.ckpt");
    place.write("text.txt", "first line\n")?;
    let command = preloaded(&place, &image, &format!("{} -u NONE -n -i NONE -N text.txt", vim.display()));
    let tmux = Tmux::start(&place, 80, 24, &command)?;
    tmux.wait_screen(|screen| screen.contains("first line"))?;
    tmux.press(&["o", "typed before", "Escape"])?;
    tmux.wait_screen(|screen| screen.contains("typed before"))?;
    save_and_kill(&tmux, &image)?;
    tmux.reopen(100, 30, &restarted(&place, &image))?;
    let screen = tmux.wait_screen(|screen| screen.contains("first line") && screen.contains("typed before"))?;
    // 30 rows: vim's tildes fill the new height.
    let look = |screen: &str| screen.lines().filter(|line| line.starts_with('~')).count() >= 27;
    tmux.wait_screen(look).map_err(|e| e.context(format!("not drawn in the new size:\n{screen}")))?;
    tmux.press(&["o", "typed after", "Escape"])?;
    tmux.wait_screen(|screen| screen.contains("typed after"))?;
    tmux.press(&[":wq", "Enter"])?;
    let written = || Ok(fs::read_to_string(place.file("text.txt")).ok().filter(|t| t.contains("typed after")));
    let text = wait::until(written, || format!("not written; {}", tmux.screen().unwrap_or_default()))?;
    ensure!(text == "first line\ntyped before\ntyped after\n", "the file holds {text:?}");
    Ok(())
}

#[test]
fn vim_keeps_what_was_typed() -> Result<()> {
    User::each(vim)
}

fn less(user: User) -> Result<()> {
    let place = Place::new(user)?;
    tool("less", "less")?;
    let image = place.file("less.ckpt");
    let text: String = (1..=500).map(|i| format!("line number {i}\n")).collect();
    place.write("long.txt", text)?;
    let tmux = Tmux::start(&place, 80, 24, &preloaded(&place, &image, "/usr/bin/less long.txt"))?;
    tmux.wait_screen(|screen| screen.contains("line number 1\n"))?;
    tmux.press(&["200g"])?;
    tmux.wait_screen(|screen| screen.starts_with("line number 200\n"))?;
    save_and_kill(&tmux, &image)?;
    tmux.reopen(60, 40, &restarted(&place, &image))?;
    tmux.wait_screen(|screen| screen.contains("line number 200\n") && screen.lines().count() >= 39)?;
    tmux.press(&["/number 333", "Enter"])?;
    tmux.wait_screen(|screen| screen.starts_with("line number 333\n"))?;
    let pid = tmux.pid()?;
    tmux.press(&["q"])?;
    // tmux itself is not asked: it sometimes notices late that a program has ended.
    let ended = || Ok(matches!(proc::state(pid), None | Some('Z' | 'X')).then_some(()));
    wait::until(ended, || format!("less does not end: {}", tmux.screen().unwrap_or_default()))
}

#[test]
fn less_stays_where_it_was() -> Result<()> {
    User::each(less)
}
