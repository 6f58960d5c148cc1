//! Signals that end a process which waits.

use super::exit;

/// Signals whose default effect is the end, without those that tell of a fault (signal(7)).
const ENDING: [libc::c_int; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGPOLL,
    libc::SIGSTKFLT,
    libc::SIGPWR,
];

extern "C" fn end(signal: libc::c_int) {
    exit(128_i32.saturating_add(signal));
}

/// Until `execve`, a signal that ends other processes ends this one, too.
///
/// The first process of a pid namespace gets no signal that it has no handler for, but `KILL` and `STOP`
/// from outside (pid_namespaces(7)). Its exit code is then as a shell has it.
pub fn end_on_signals() {
    // SAFETY: sigaction is a plain struct, for which all zeroes is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = end;
    action.sa_sigaction = handler as libc::sighandler_t;
    for signal in ENDING.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: `action` outlives the call and the old one is not asked for. The handler calls `_exit`
        // alone, which may be called from one (signal-safety(7)), and never returns.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}
