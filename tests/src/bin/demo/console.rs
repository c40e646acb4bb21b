//! The guests' consoles in this terminal, one at a time.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-], which the key before a command to us is, as in telnet.
const ESCAPE: u8 = 0x1d;

/// Puts the terminal back as it was.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Connects the terminal with the consoles (name, socket) until the person at it has enough.
pub fn open(consoles: &[(&str, PathBuf)]) -> io::Result<()> {
    println!("  You are on a guest's console now. Ctrl-] and a number chooses another guest, Ctrl-] and q ends the demo.\n");
    let mut guests = Vec::new();
    for (name, socket) in consoles {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        guests.push((name, stream));
    }
    let before = Restore(tcgetattr(io::stdin())?);
    let mut raw = before.0.clone();
    raw.make_raw();
    tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;

    let (mut shown, mut escaped) = (0, false);
    // An empty line has the shell show its prompt.
    (&guests[0].1).write_all(b"\n")?;
    loop {
        let stdin = io::stdin();
        let (keys, output) = {
            let mut ready = [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(guests[shown].1.as_fd(), PollFlags::IN)];
            poll(&mut ready, None)?;
            (!ready[0].revents().is_empty(), !ready[1].revents().is_empty())
        };
        let mut buffer = [0; 4096];
        if output {
            let length = rustix::io::read(&guests[shown].1, &mut buffer)?;
            if length == 0 {
                return Err(io::Error::other(format!("{} is gone", guests[shown].0)));
            }
            io::stdout().write_all(&buffer[..length])?;
            io::stdout().flush()?;
        }
        if keys {
            let length = rustix::io::read(&stdin, &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            for &key in &buffer[..length] {
                match (escaped, key) {
                    (false, ESCAPE) => escaped = true,
                    (false, key) => (&guests[shown].1).write_all(&[key])?,
                    (true, b'q') => return Ok(()),
                    (true, key) => {
                        escaped = false;
                        let chosen = usize::from(key.wrapping_sub(b'1'));
                        if chosen < guests.len() {
                            shown = chosen;
                            print!("\r\n[{}]\r\n", guests[shown].0);
                            (&guests[shown].1).write_all(b"\n")?;
                        }
                    }
                }
            }
        }
    }
}
