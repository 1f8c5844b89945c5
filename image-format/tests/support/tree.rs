//! The sample as the root of a tree.

use image_format::elf::PF_PROCESS;
use image_format::record::header::Features;
use image_format::record::process::Process;

use super::{PID, Parts, Run, zeroed};

impl Parts {
    /// A child, which lives, and two that have ended; as its parent's, the child's image is any bytes.
    pub fn give_tree(&mut self) {
        self.header.required = (self.header.required.get() | Features::TREE.bits()).into();
        for (pid, parent, ended) in [(PID, 0, 0), (70, PID, 0), (71, 70, 1), (72, PID, 2)] {
            let (group, session) = (PID.into(), PID.into());
            let one = Process { pid: pid.into(), parent: parent.into(), group, session, ..zeroed() };
            self.processes.push(Process { ended: ended.into(), ..one });
        }
        self.runs.push(Run { addr: 70, flags: PF_PROCESS, bytes: vec![7; 5000] });
    }
}
