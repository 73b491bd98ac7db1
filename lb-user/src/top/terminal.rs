//! The terminal: a screen of its own while `weir top` runs, keys without Enter, and everything as it was afterwards, also
//! when it ends by an error.

use super::screen::Size;
use rustix::{
    io::Errno,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use std::{
    fmt,
    io::{self, IsTerminal as _, Read as _, Write as _},
    thread,
};
use tokio::sync::mpsc;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Why there is no screen.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Standard output goes elsewhere.
    #[error("standard output is no terminal: `weir top --once` prints one view, also as JSON with --output json")]
    NoTerminal,
    /// The terminal refuses.
    #[error("the terminal does not do as it is told: {0}")]
    Refused(#[from] Errno),
    /// It cannot be written to.
    #[error("the terminal cannot be written to: {0}")]
    Write(#[from] io::Error),
}

/// The terminal, ours until this is dropped.
#[derive(Debug)]
pub struct Terminal {
    /// As it was, if its keys come to us.
    before: Option<Termios>,
    keys: mpsc::UnboundedReceiver<u8>,
}

impl Terminal {
    /// Takes it.
    ///
    /// # Errors
    /// Standard output is none.
    pub fn take() -> Result<Self, TerminalError> {
        if !io::stdout().is_terminal() {
            return Err(TerminalError::NoTerminal);
        }
        let before = if io::stdin().is_terminal() { Some(keys_at_once()?) } else { None };
        let (sender, keys) = mpsc::unbounded_channel();
        if before.is_some() {
            // It waits for keys until the process ends.
            thread::spawn(move || {
                for key in io::stdin().lock().bytes().map_while(Result::ok) {
                    if sender.send(key).is_err() {
                        return;
                    }
                }
            });
        }
        let terminal = Self { before, keys };
        write(ENTER)?;
        Ok(terminal)
    }

    /// How large it is now.
    pub fn size(&self) -> Size {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        Size { columns: columns.into(), rows: Some(rows.into()) }
    }

    /// The next key. Never, where none can come. A wait that is cancelled loses none.
    pub async fn key(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Shows lines: those in capitals are heads.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, lines: &[String]) -> Result<(), TerminalError> {
        let mut frame = "\x1b[H".to_owned();
        for (index, line) in lines.iter().enumerate() {
            let is_head = index == 0
                || line.chars().next().is_some_and(char::is_uppercase) && !line.chars().any(char::is_lowercase);
            let (begin, end) = if is_head { (BOLD, PLAIN) } else { ("", "") };
            let next = if index + 1 == lines.len() { "" } else { "\r\n" };
            let _ = fmt::Write::write_fmt(&mut frame, format_args!("{begin}{line}{end}\x1b[K{next}"));
        }
        frame.push_str("\x1b[J");
        Ok(write(&frame)?)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Has keys come without Enter and without an echo; how it was before. Ctrl-C stays a signal.
fn keys_at_once() -> Result<Termios, Errno> {
    let before = tcgetattr(io::stdin())?;
    let mut ours = before.clone();
    ours.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &ours)?;
    Ok(before)
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
