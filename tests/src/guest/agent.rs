//! Our end of a guest's second serial port, where `guest-images/root/agent` runs what we send.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A command's exit status, and what it wrote to standard output and standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 and more for a signal, as in a shell.
    pub status: u8,
    /// What it wrote.
    pub text: String,
}

/// The connection to the agent.
#[derive(Debug)]
pub struct Agent {
    port: UnixStream,
    received: Vec<u8>,
    last_id: u64,
}

/// A command that was sent and whose answer was not read yet.
#[derive(Debug)]
#[must_use = "the guest runs nothing else until the command is finished"]
pub struct Running {
    id: u64,
    command: String,
}

impl Agent {
    /// Wraps the socket of the serial port.
    pub fn new(port: UnixStream) -> Agent {
        port.set_write_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
        Agent { port, received: Vec::new(), last_id: 0 }
    }

    /// Waits until the agent answers; false if it does not within `limit`. While the guest boots, its serial port may lose or echo
    /// what it receives: so ask again until an answer is seen.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            // The first line end closes what may be left of an earlier attempt.
            let _ = self.port.write_all(b"\n");
            let asked = self.begin("true");
            if self.finish(&asked, Duration::from_millis(500)).is_some() {
                return true;
            }
        }
        false
    }

    /// Sends a command, a line of shell.
    ///
    /// # Panics
    ///
    /// Panics if the command has more than one line.
    pub fn begin(&mut self, command: &str) -> Running {
        assert!(!command.contains('\n'), "the agent takes one line, not {command:?}");
        self.last_id += 1;
        // A guest that doesn't read is noticed when no answer comes.
        let _ = self.port.write_all(format!("{} {command}\n", self.last_id).as_bytes());
        Running { id: self.last_id, command: command.to_owned() }
    }

    /// Waits for the end of a command; `None` if that takes longer than `limit`.
    pub fn finish(&mut self, running: &Running, limit: Duration) -> Option<Output> {
        let deadline = Instant::now() + limit;
        loop {
            let end = self.receive(deadline, |received| received.iter().position(|&byte| byte == b'\n'))?;
            let line: Vec<u8> = self.received.drain(..=end).collect();
            // Anything else on the line is an echo, or what the kernel had to say.
            let Some((id, status, length)) = answer(&line) else { continue };
            self.receive(deadline, |received| (received.len() >= length).then_some(()))?;
            let text: Vec<u8> = self.received.drain(..length).collect();
            if id == running.id {
                return Some(Output { status, text: String::from_utf8_lossy(&text).into_owned() });
            }
        }
    }

    /// Reads until `found` finds what it looks for.
    fn receive<T>(&mut self, deadline: Instant, found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(answer) = found(&self.received) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.port.set_read_timeout(Some(left)).expect("a socket takes a timeout");
            match self.port.read(&mut buffer) {
                Ok(0) => panic!("QEMU closed the agent's serial port"),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => panic!("the agent's serial port: {error}"),
            }
        }
    }
}

impl Running {
    /// The command as it was sent.
    pub fn command(&self) -> &str {
        &self.command
    }
}

/// The fields of a line "ID STATUS LENGTH".
fn answer(line: &[u8]) -> Option<(u64, u8, usize)> {
    let mut fields = std::str::from_utf8(line).ok()?.trim_ascii().split(' ');
    let fields = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next());
    match fields {
        (id, status, length, None) => Some((id, status, length)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_among_echoes_and_other_lines() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let mut agent = Agent::new(ours);
        let running = agent.begin("echo hi; false");
        guest.write_all(b"1 echo hi; false\r\n[ 0.1] random: crng init done\n7 0 4\nold\n1 1 3\nhi\n2 0").unwrap();
        assert_eq!(agent.finish(&running, Duration::from_secs(5)), Some(Output { status: 1, text: "hi\n".into() }));
        let silent = agent.begin("true");
        assert_eq!(agent.finish(&silent, Duration::from_millis(10)), None);
    }
}
