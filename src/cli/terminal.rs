//! The caller's terminal while a program inside a container has it.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use tokio::sync::mpsc;

/// Passes every key on as it is until it is dropped, which puts the terminal back as it was.
pub struct Raw {
    before: Termios,
}

impl Raw {
    pub fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let raw = Self { before };
        let restored = raw.before.clone();
        // A release build aborts on a panic and drops nothing.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore(&restored);
            hook(panic);
        }));
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // A terminal that has gone needs no restoring. What was typed ahead stays.
    let _gone = tcsetattr(io::stdin(), OptionalActions::Now, before);
}

/// Rows and columns.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Standard input in blocks, from a thread of its own: a read of it cannot be taken back, and
/// making it non-blocking would make it so for the caller's shell too.
pub fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut block = vec![0; 32 << 10];
        loop {
            match io::Read::read(&mut io::stdin().lock(), &mut block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if sender.blocking_send(block[..count].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}
