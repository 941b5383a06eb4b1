//! Keys, one at a time and without an echo, where a person sits at a terminal.

use std::io::{self, IsTerminal as _};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The keyboard, as long as this is; then the terminal is as it was before.
#[derive(Debug)]
pub(super) struct Keys {
    before: Termios,
    pressed: UnboundedReceiver<u8>,
}

impl Keys {
    /// `None` where there is no terminal, or where it listens to somebody else: a process in the background would be
    /// stopped for reading from it.
    pub(super) fn open() -> Option<Self> {
        if !is_ours() {
            return None;
        }
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let (tell, pressed) = unbounded_channel();
        // A terminal that was made non-blocking would be so for the shell as well: a thread waits instead.
        let listen = move || {
            let mut key = [0];
            loop {
                match rustix::io::read(io::stdin(), &mut key) {
                    Ok(1) if tell.send(key[0]).is_ok() => {}
                    Err(rustix::io::Errno::INTR) => {}
                    _ => break,
                }
            }
        };
        std::thread::Builder::new().name("keys".to_owned()).spawn(listen).ok()?;
        let keys = Self { before, pressed };
        keys.take();
        Some(keys)
    }

    /// Takes the terminal, at the start and after a stop: a shell puts its own settings back meanwhile.
    pub(super) fn take(&self) {
        let mut single = self.before.clone();
        // Ctrl-C and Ctrl-Z go on being signals.
        single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        single.special_codes[SpecialCodeIndex::VMIN] = 1;
        single.special_codes[SpecialCodeIndex::VTIME] = 0;
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &single);
    }

    /// The next key; never, once there is nobody at the other end.
    pub(super) async fn pressed(&mut self) -> u8 {
        match self.pressed.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether standard input is a terminal that listens to our process group.
pub(super) fn is_ours() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}
