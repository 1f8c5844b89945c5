//! The notes that every core has, so that debuggers open an image: threads' registers, names, mapped files.
//!
//! Nothing of this is used at a restart. Layouts: include/linux/elfcore.h, arch/x86/include/asm/user_64.h.

use image_format::note::{self, standard};
use image_format::record::memory::{Backing, NO_BACKING, Vma};
use image_format::record::thread::Thread;
use image_format::writer::Full;
use image_format::{Notes, PAGE};
use sys::abi::signal::{FP_XSTATE_MAGIC1, Sigcontext};
use sys::arch::Context;
use sys::text::Text;

use crate::cpu::Components;

/// Bytes of the FXSAVE area.
const FXSAVE: usize = 512;

/// Offset of XCR0 in the XSAVE area of a core, and of ptrace(2).
pub const XCR0_IN_CORE: usize = 464;

/// Offset of XCR0 in the XSAVE area of a signal frame (`struct _fpx_sw_bytes`).
const XCR0_IN_SIGNAL_FRAME: usize = 472;

/// Number of registers in `struct user_regs_struct`.
pub const REGS: usize = 27;

/// A thread's registers as a debugger shall see them.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// `user_regs_struct`.
    pub regs: [u64; REGS],
    /// FXSAVE area; empty when unknown.
    pub fxsave: &'a [u8],
    /// Whole XSAVE area; empty when there is none.
    pub xsave: &'a [u8],
    /// Where the area has XCR0: at [`XCR0_IN_CORE`], or where a signal frame has it, behind its magic number.
    pub xcr0_at: usize,
}

impl<'a> Frame<'a> {
    /// The general-purpose registers but the stack pointer (`user_regs_struct` begins with them).
    #[must_use]
    pub fn general(&self) -> &[u64] {
        self.regs.get(..15).unwrap_or_default()
    }

    /// The vector registers: XMM0 to XMM15 in the FXSAVE area, the components behind the XSAVE header.
    pub fn vectors(&self) -> impl Iterator<Item = u64> {
        const XMM: core::ops::Range<usize> = 160..416;
        const BEHIND_HEADER: usize = 576;
        let low = self.fxsave.get(XMM).unwrap_or_default();
        let high = self.xsave.get(BEHIND_HEADER..).unwrap_or_default();
        [low, high].into_iter().flat_map(|bytes| bytes.as_chunks().0).map(|word| u64::from_le_bytes(*word))
    }

    /// The frame that a signal interrupted.
    ///
    /// # Safety
    /// The context is the kernel's own, and lives as long as the frame.
    #[must_use]
    pub unsafe fn of_signal(c: &Sigcontext, record: &Thread) -> Self {
        let mut fxsave: &[u8] = &[];
        let mut xsave: &[u8] = &[];
        if c.fpstate != 0 {
            // SAFETY: the kernel put an FXSAVE area of 512 bytes there.
            fxsave = unsafe { core::slice::from_raw_parts(c.fpstate as *const u8, FXSAVE) };
            // struct _fpx_sw_bytes at byte 464: magic1, extended_size, xfeatures, xstate_size.
            let word = |at: usize| fxsave.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
            let size = word(464 + 16) as usize;
            if word(464) == FP_XSTATE_MAGIC1 && (FXSAVE + 64..1 << 16).contains(&size) {
                // SAFETY: the magic says that an XSAVE area of this size lies there.
                xsave = unsafe { core::slice::from_raw_parts(c.fpstate as *const u8, size) };
            }
        }
        let segment = |n: u16| u64::from(n);
        let regs = [
            c.r15,
            c.r14,
            c.r13,
            c.r12,
            c.rbp,
            c.rbx,
            c.r11,
            c.r10,
            c.r9,
            c.r8,
            c.rax,
            c.rcx,
            c.rdx,
            c.rsi,
            c.rdi,
            u64::MAX,
            c.rip,
            segment(c.cs),
            c.eflags,
            c.rsp,
            segment(c.ss),
            record.jmp.fs_base.get(),
            record.jmp.gs_base.get(),
            0,
            0,
            segment(c.fs),
            segment(c.gs),
        ];
        Self { regs, fxsave, xsave, xcr0_at: XCR0_IN_SIGNAL_FRAME }
    }

    /// The frame of a call: what a jmp context knows.
    #[must_use]
    pub fn of_call(c: &Context) -> Self {
        let [r12, r13, r14, r15] = c.r12;
        let mut regs = [0; REGS];
        let known = [
            (0, r15),
            (1, r14),
            (2, r13),
            (3, r12),
            (4, c.rbp),
            (5, c.rbx),
            (15, u64::MAX),
            (16, c.rip),
            (17, 0x33),
            (18, 0x202),
            (19, c.rsp),
            (20, 0x2b),
            (21, c.fs_base),
            (22, c.gs_base),
        ];
        for (i, value) in known {
            if let Some(to) = regs.get_mut(i) {
                *to = value;
            }
        }
        Self { regs, fxsave: &[], xsave: &[], xcr0_at: 0 }
    }
}

/// Ids that the process has, for the notes.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Pid.
    pub pid: i32,
    /// Uid.
    pub uid: u32,
}

/// Writes one thread's notes, together, as debuggers want them. Returns where its XSAVE area begins among the notes, and
/// how long it is there, bytes.
///
/// # Errors
/// No room.
pub fn thread(
    notes: &mut Notes<'_>,
    ids: Ids,
    tid: u32,
    signal: i32,
    sigmask: u64,
    frame: &Frame<'_>,
    components: &Components,
) -> Result<(u64, u32), Full> {
    notes.open(note::CORE, standard::NT_PRSTATUS)?;
    notes.bytes(&signal.to_le_bytes())?;
    notes.bytes(&[0; 8])?;
    notes.bytes(&(signal as u16 as u32).to_le_bytes())?;
    notes.bytes(&0u64.to_le_bytes())?;
    notes.bytes(&sigmask.to_le_bytes())?;
    for id in [tid, 0, ids.pid as u32, ids.pid as u32] {
        notes.bytes(&id.to_le_bytes())?;
    }
    notes.bytes(&[0; 64])?;
    for reg in frame.regs {
        notes.bytes(&reg.to_le_bytes())?;
    }
    notes.bytes(&u32::from(!frame.fxsave.is_empty()).to_le_bytes())?;
    notes.bytes(&[0; 4])?;
    notes.end()?;
    if !frame.fxsave.is_empty() {
        notes.open(note::CORE, standard::NT_FPREGSET)?;
        notes.bytes(frame.fxsave)?;
        notes.end()?;
    }
    let xcr0 = frame.xsave.get(frame.xcr0_at..frame.xcr0_at + 8);
    let size = xcr0.and_then(|b| b.try_into().ok()).map_or(0, |b| components.core_size(u64::from_le_bytes(b)));
    if let (Some(head), Some(xcr0), Some(tail)) = (frame.xsave.get(..XCR0_IN_CORE), xcr0, frame.xsave.get(480..size)) {
        // A core's area has XCR0 where a signal frame's has its magic number.
        notes.open(note::LINUX, standard::NT_X86_XSTATE)?;
        let at = notes.position();
        notes.bytes(head)?;
        notes.bytes(xcr0)?;
        notes.bytes(&[0; 8])?;
        notes.bytes(tail)?;
        notes.end()?;
        return Ok((at, size as u32));
    }
    Ok((0, 0))
}

/// Writes `NT_PRPSINFO` (name and arguments) and `NT_SIGINFO`.
///
/// # Errors
/// No room.
pub fn process(notes: &mut Notes<'_>, ids: Ids, comm: &[u8; 16], arguments: &[u8], signal: i32) -> Result<(), Full> {
    notes.open(note::CORE, standard::NT_PRPSINFO)?;
    notes.bytes(&[0, b'R', 0, 0])?;
    notes.bytes(&[0; 4])?;
    notes.bytes(&0u64.to_le_bytes())?;
    for id in [ids.uid, 0, ids.pid as u32, 0, ids.pid as u32, ids.pid as u32] {
        notes.bytes(&id.to_le_bytes())?;
    }
    notes.bytes(comm)?;
    let mut line = [0u8; 80];
    for (to, from) in line.iter_mut().take(79).zip(arguments) {
        *to = if *from == 0 { b' ' } else { *from };
    }
    notes.bytes(&line)?;
    notes.end()?;
    notes.open(note::CORE, standard::NT_SIGINFO)?;
    notes.bytes(&signal.to_le_bytes())?;
    notes.bytes(&[0; 124])?;
    notes.end()
}

/// Writes `NT_FILE`: which files are mapped where.
///
/// # Errors
/// No room.
pub fn files(notes: &mut Notes<'_>, vmas: &[Vma], backings: &[Backing]) -> Result<(), Full> {
    let mapped = || vmas.iter().filter(|v| v.backing.get() != NO_BACKING);
    notes.open(note::CORE, standard::NT_FILE)?;
    notes.bytes(&(mapped().count() as u64).to_le_bytes())?;
    notes.bytes(&PAGE.to_le_bytes())?;
    for vma in mapped() {
        for word in [vma.start.get(), vma.end.get(), vma.offset.get() / PAGE] {
            notes.bytes(&word.to_le_bytes())?;
        }
    }
    for vma in mapped() {
        let backing = backings.get(vma.backing.get() as usize).ok_or(Full)?;
        let mut path = Text::<4097>::new();
        path.push(notes.kept(backing.path));
        notes.bytes(path.as_c_str().to_bytes_with_nul())?;
    }
    notes.end()
}
