//! The mm fields: where code, data, heap, stack, arguments and the auxiliary vector lie.
//!
//! With them `ps` shows the old command line, `brk` grows the old heap, and `[stack]` is the stack.

use image_format::note::{self, standard};
use image_format::record::mm::Mm;
use sys::Sysno;
use sys::abi::PrctlMmMap;

use crate::process::Stat;
use crate::{Arg, Error, Question, Result, Save, Target};

/// Asks where the heap ends.
// SAFETY: returns a number; no break lies at 0.
pub const BREAK: Question = unsafe { Question::new(Sysno::brk, Arg::Value(0), Arg::Value(0), 0) };

/// Saves the fields, the executable's name, and the auxiliary vector as the standard note.
///
/// # Errors
/// They cannot be read.
pub fn save<T: Target>(save: &mut Save<'_, '_, T>) -> Result<()> {
    let failed = |e| Error::failed(format_args!("mm fields"), "cannot be read from /proc/PID", e);
    let proc = save.target.memory_proc();
    let stat = Stat::read(proc).map_err(failed)?;
    let field = |n: usize| stat.field(n).cast_unsigned();
    let mut mm = Mm {
        start_code: field(26).into(),
        end_code: field(27).into(),
        start_stack: field(28).into(),
        start_data: field(45).into(),
        end_data: field(46).into(),
        start_brk: field(47).into(),
        arg_start: field(48).into(),
        arg_end: field(49).into(),
        env_start: field(50).into(),
        env_end: field(51).into(),
        brk: 0.into(),
        exe: Default::default(),
        reserved: 0.into(),
    };
    let (brk, []) = BREAK.ask(save.target).map_err(failed)?;
    mm.brk = (brk as u64).into();
    let mut buffer = [0; 4096];
    let exe = sys::fs::read_link_at(proc, c"exe", &mut buffer).map_err(failed)?;
    mm.exe = save.notes.string(exe)?;
    save.notes.table(&[mm])?;
    let auxv = sys::fs::read_file_at(proc, c"auxv", &mut buffer).map_err(failed)?;
    save.notes.open(note::CORE, standard::NT_AUXV)?;
    save.notes.bytes(auxv)?;
    save.notes.end()?;
    Ok(())
}

/// Sets them, with the executable's link when the kernel lets this user (`exe` is it, open, or -1).
///
/// # Errors
/// EINVAL: fields that contradict each other; EPERM never without `exe`.
pub fn restore(mm: &Mm, auxv: &[u8], exe: i32) -> sys::Result<()> {
    let mut map = PrctlMmMap {
        start_code: mm.start_code.get(),
        end_code: mm.end_code.get(),
        start_data: mm.start_data.get(),
        end_data: mm.end_data.get(),
        start_brk: mm.start_brk.get(),
        brk: mm.brk.get(),
        start_stack: mm.start_stack.get(),
        arg_start: mm.arg_start.get(),
        arg_end: mm.arg_end.get(),
        env_start: mm.env_start.get(),
        env_end: mm.env_end.get(),
        auxv: auxv.as_ptr() as u64,
        auxv_size: auxv.len() as u32,
        exe_fd: exe,
    };
    if exe >= 0 && sys::process::set_mm_map(&map).is_ok() {
        return Ok(());
    }
    map.exe_fd = -1;
    sys::process::set_mm_map(&map)
}
