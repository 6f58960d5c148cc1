//! Whether a signal would be lost on the first process of a pid namespace.

use std::fs;

/// Whether PID 1 neither handles the signal, nor blocks it to fetch it itself, nor waits for it: the
/// kernel then drops it, even from outside (pid_namespaces(7)). Asked before it is sent: many a program
/// takes its handler away as the first thing it does when it is asked to end.
///
/// What cannot be known counts as handled: the grace then decides.
pub(super) fn ignores(pid: u32, signal: i32) -> bool {
    // Looked at before and after: between the two it may begin or end to wait.
    if waits_for_signals(pid) {
        return false;
    }
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let mask = |key: &str| {
        let text = status.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let (Some(caught), Some(blocked)) = (mask("SigCgt:"), mask("SigBlk:")) else { return false };
    u32::try_from(signal - 1).is_ok_and(|bit| (caught | blocked) >> bit & 1 == 0) && !waits_for_signals(pid)
}

/// While a process is in sigtimedwait(2) the kernel shows the signals that it waits for as not blocked,
/// and drops none of them (`real_blocked` of `do_sigtimedwait`).
fn waits_for_signals(pid: u32) -> bool {
    // The number of the call first, or "running" (proc_pid_syscall(5)); some kernels have no such file.
    let Ok(call) = fs::read_to_string(format!("/proc/{pid}/syscall")) else { return true };
    let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
    number == Some(nix::libc::SYS_rt_sigtimedwait)
}
