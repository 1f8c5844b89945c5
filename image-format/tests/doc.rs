//! docs/image-format.md says what the code does: types, sizes, offsets without holes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use image_format::record::content::{Content, ContentFile};
use image_format::record::cwd::Cwd;
use image_format::record::deadline::Deadline;
use image_format::record::descriptor::Descriptor;
use image_format::record::device::Device;
use image_format::record::directory::Directory;
use image_format::record::epoll::{Epoll, Watch};
use image_format::record::eventfd::Eventfd;
use image_format::record::frame::{Component, Frame, SignalFrame};
use image_format::record::guard::Guard;
use image_format::record::header::Header;
use image_format::record::inotify::{Inotify, InotifyWatch};
use image_format::record::io_uring::IoUring;
use image_format::record::itimer::Itimer;
use image_format::record::job::Job;
use image_format::record::lock::Lock;
use image_format::record::memory::{Backing, Vma};
use image_format::record::mm::Mm;
use image_format::record::pending::Pending;
use image_format::record::pidfd::Pidfd;
use image_format::record::pipe::{Pipe, PipeData};
use image_format::record::pkey::Pkey;
use image_format::record::posix_timer::PosixTimer;
use image_format::record::process::Process;
use image_format::record::pty::{Pty, PtyStep};
use image_format::record::regular::Regular;
use image_format::record::rlimit::Rlimit;
use image_format::record::sched::{Affinity, Sched};
use image_format::record::seccomp::{Instruction, Seccomp};
use image_format::record::semaphore::Semaphore;
use image_format::record::setting::Setting;
use image_format::record::shared_file::SharedFile;
use image_format::record::sigaction::Sigaction;
use image_format::record::signalfd::Signalfd;
use image_format::record::socket::{Socket, SocketStep};
use image_format::record::sysv::Sysv;
use image_format::record::terminal::Terminal;
use image_format::record::thread::Thread;
use image_format::record::timerfd::Timerfd;
use image_format::record::umask::Umask;
use image_format::{NoteType, Record};

const DOC: &str = include_str!("../../docs/image-format.md");

/// The section of one record: its heading's type and size, and a table whose rows follow each other to that size.
#[track_caller]
fn described<R: Record>() {
    let name = format!("{:?}", R::TYPE);
    let heading = format!("### {name}: type `{:#x}`, records of {} bytes\n", R::TYPE as u32, size_of::<R>());
    let at = DOC.find(&heading).unwrap_or_else(|| panic!("docs/image-format.md has no line {heading:?}"));
    let rows = DOC[at..].lines().skip_while(|line| !line.starts_with("| offset")).skip(2);
    let mut end = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (offset, size): (usize, usize) = (cells[1].parse().unwrap(), cells[2].parse().unwrap());
        assert_eq!(offset, end, "{name}: {row}");
        end = offset + size;
    }
    assert_eq!(end, size_of::<R>(), "{name}");
}

#[test]
fn each_record_is_described() {
    described::<Header>();
    described::<Thread>();
    described::<Frame>();
    described::<Component>();
    described::<Deadline>();
    described::<SignalFrame>();
    described::<Vma>();
    described::<Backing>();
    described::<Mm>();
    described::<Sigaction>();
    described::<Pending>();
    described::<Itimer>();
    described::<PosixTimer>();
    described::<Process>();
    described::<Job>();
    described::<Cwd>();
    described::<Umask>();
    described::<Rlimit>();
    described::<Sched>();
    described::<Affinity>();
    described::<Setting>();
    described::<Descriptor>();
    described::<Regular>();
    described::<Directory>();
    described::<Device>();
    described::<Pipe>();
    described::<Terminal>();
    described::<Lock>();
    described::<PipeData>();
    described::<Eventfd>();
    described::<Timerfd>();
    described::<Signalfd>();
    described::<Epoll>();
    described::<Watch>();
    described::<Content>();
    described::<ContentFile>();
    described::<Guard>();
    described::<SharedFile>();
    described::<Pty>();
    described::<PtyStep>();
    described::<Socket>();
    described::<SocketStep>();
    described::<IoUring>();
    described::<Inotify>();
    described::<InotifyWatch>();
    described::<Pidfd>();
    described::<Pkey>();
    described::<Instruction>();
    described::<Seccomp>();
    described::<Sysv>();
    described::<Semaphore>();
}

#[test]
fn the_other_numbers_agree() {
    for (what, number) in [("Strings: type", NoteType::Strings as u32), ("owner `CKPT`, type", NoteType::Seal as u32)] {
        assert!(DOC.contains(&format!("{what} `{number:#x}`")), "{what}");
    }
    let (major, minor) = image_format::record::header::VERSION;
    assert!(DOC.contains(&format!("Format version: **{major}.{minor}**")));
    assert_eq!(image_format::elf::PF_FILE_BYTES, 0x0010_0000);
    assert!(DOC.contains("`0x0010_0000`"));
    assert!(DOC.contains(&format!("type `{:#x}`", image_format::elf::PT_CONTENT)));
}
