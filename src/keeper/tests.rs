//! The keeper as a process of its own, with real containers that need no namespace.

mod process;

mod root {
    mod adopting;
    mod contained;
    mod daemon;
    mod exec;
    mod hostile;
    mod logs;
    mod starting;
    mod upgrading;
}
