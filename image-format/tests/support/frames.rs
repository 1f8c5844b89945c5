//! The sample as a save from outside writes it.

use image_format::record::frame::Frame;
use image_format::record::header::{Features, Header};

use super::{Parts, zeroed};

impl Parts {
    /// Full frames instead of jmp contexts, as a save from outside writes them.
    pub fn give_frames(&mut self) {
        self.header.required = (Features::FULL_FRAME | Features::LOCKS).bits().into();
        // Room for what tests make of the length.
        self.xstate = vec![0; 17_000];
        for thread in &self.threads {
            let mut frame: Frame = zeroed();
            let (rip, rsp) = (thread.jmp.rip, thread.jmp.rsp);
            let named = [(16, rip), (17, 0x33.into()), (18, 0x202.into()), (19, rsp), (20, 0x2b.into())];
            for (register, value) in named {
                frame.regs[register] = value;
            }
            // The header's note comes first, then the area's.
            frame.xstate_at = (20 + size_of::<Header>() as u64 + 20).into();
            frame.xstate_len = 2696.into();
            self.frames.push(frame);
        }
    }
}
