//! A tracer that knows the number of every system call of a program that changes a file, over all its threads.
//!
//! `strace` can inject a signal too, but it counts each thread and each kind of call by itself, so that most moments of a
//! program with threads could not be named.
#![expect(unsafe_code, reason = "ptrace")]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::{io, ptr};

/// What happens at a call.
pub enum Next {
    GoOn,
    /// The whole program dies before the call is made.
    Kill,
}

/// How a program ended.
pub struct Traced {
    pub status: ExitStatus,
    /// Calls that were made or were about to be.
    pub calls: u64,
}

/// Calls that take an open file first.
const BY_FILE: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_copy_file_range,
];
/// Calls that take names.
const BY_NAME: &[libc::c_long] = &[
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
];

/// Number and arguments of the call that a thread is about to make, if it is about to make one.
fn entry(thread: i32) -> Option<(libc::c_long, [u64; 6])> {
    // The structure `ptrace_syscall_info`: what it is, where from, number, arguments.
    let mut info = [0_u64; 12];
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to `info`, which is that long.
    let written = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr()) };
    let is_entry = info[0].to_ne_bytes()[0] == libc::PTRACE_SYSCALL_INFO_ENTRY;
    let arguments = info[4..10].try_into().unwrap();
    (written >= 80 && is_entry).then_some((info[3] as libc::c_long, arguments))
}

/// Whether the call changes a file or a name.
fn changes(thread: i32, (number, arguments): (libc::c_long, [u64; 6])) -> bool {
    if BY_FILE.contains(&number) {
        let path = std::fs::read_link(format!("/proc/{thread}/fd/{}", arguments[0]));
        return path.is_ok_and(|path| path.is_absolute() && !path.starts_with("/dev"));
    }
    BY_NAME.contains(&number)
        || (number == libc::SYS_openat && arguments[2] & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0)
}

fn resume(thread: i32, signal: i32) {
    // SAFETY: the thread is stopped and ours. One that was killed meanwhile is gone, which the next wait tells.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, ptr::null_mut::<u8>(), signal as libc::c_long) };
}

fn wait(who: i32) -> io::Result<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call. Only children of this very thread are waited for.
        let found = unsafe { libc::waitpid(who, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        if found >= 0 {
            return Ok((found, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Runs a program and asks before each of those calls, beginning with number 1, what is to happen. While it is asked, no
/// thread of the program begins another call.
pub fn run(command: &mut Command, mut ask: impl FnMut(u64) -> Next) -> io::Result<Traced> {
    let traced = || {
        // SAFETY: the call takes no memory; the child asks to be traced by the thread that made it.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `traced` makes one system call and takes no lock.
    let child = unsafe { command.pre_exec(traced) }.spawn()?;
    let program = i32::try_from(child.id()).unwrap();
    // It stops at its first instruction.
    wait(program)?;
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    // SAFETY: the program is stopped and ours; the call takes no memory.
    unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, program, ptr::null_mut::<u8>(), options as libc::c_long) };
    resume(program, 0);
    let mut calls = 0;
    loop {
        let (thread, status) = wait(-1)?;
        if !libc::WIFSTOPPED(status) {
            if thread == program {
                return Ok(Traced { status: ExitStatus::from_raw(status), calls });
            }
            continue;
        }
        let mut signal = 0;
        match libc::WSTOPSIG(status) {
            // A system call begins or ends.
            stop if stop == libc::SIGTRAP | 0x80 => {
                if entry(thread).is_some_and(|entry| changes(thread, entry)) {
                    calls += 1;
                    if let Next::Kill = ask(calls) {
                        // SAFETY: the program has not been waited for, so the number is still its own.
                        unsafe { libc::kill(program, libc::SIGKILL) };
                        continue;
                    }
                }
            }
            // A new thread, of which the tracer is told by these.
            libc::SIGTRAP | libc::SIGSTOP => {}
            other => signal = other,
        }
        resume(thread, signal);
    }
}
