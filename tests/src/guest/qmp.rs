//! QEMU's control socket: JSON commands and answers, one per line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// A connection to QEMU's machine protocol (QMP).
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Reads QEMU's greeting, which comes once QEMU has set up its devices, and enters command mode.
    pub fn new(stream: UnixStream) -> Qmp {
        stream.set_read_timeout(Some(crate::process::PATIENCE)).expect("a socket takes a timeout");
        let mut qmp = Qmp { stream: BufReader::new(stream) };
        let greeting = qmp.read();
        assert!(greeting.get("QMP").is_some(), "QEMU greeted with {greeting}");
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command and returns its result.
    ///
    /// # Panics
    ///
    /// Panics if QEMU refuses it.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap_or_else(|error| panic!("QEMU is gone: {error}"));
        loop {
            // Events come in between.
            let mut answer = self.read();
            match answer.get_mut("return") {
                Some(result) => return result.take(),
                None => assert!(answer.get("error").is_none(), "QEMU refused {request}: {answer}"),
            }
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => panic!("QEMU closed its control socket"),
            Ok(_) => serde_json::from_str(&line).unwrap_or_else(|error| panic!("QEMU sent no JSON ({error}): {line}")),
            Err(error) => panic!("QEMU doesn't answer: {error}"),
        }
    }
}
