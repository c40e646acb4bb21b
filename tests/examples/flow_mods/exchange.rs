//! A controller's end of a connection that sends prepared bytes as fast as the switch takes them, while it reads what comes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vswitch::openflow::wire::{Header, Hello, Message, VERSION, encode};

// OFPT_*
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const MULTIPART_REPLY: u8 = 19;
const BARRIER_REPLY: u8 = 21;

/// What comes from a switch, until a barrier's reply.
#[derive(Default)]
pub struct Answers {
    input: Vec<u8>,
    /// The bytes of multipart replies.
    pub listed: usize,
    /// What is to be answered.
    pub replies: Vec<u8>,
}

impl Answers {
    /// Takes bytes that came. Returns whether the barrier's reply was among them.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        let (mut at, mut is_over) = (0, false);
        while let Some(header) = Header::decode(&self.input[at..]) {
            let Some(message) = self.input.get(at..at + usize::from(header.length)) else { break };
            match header.kind {
                ERROR => panic!("refused: {message:x?}"),
                ECHO_REQUEST => {
                    let start = self.replies.len();
                    self.replies.extend_from_slice(message);
                    self.replies[start + 1] = ECHO_REPLY;
                }
                MULTIPART_REPLY => self.listed += message.len(),
                BARRIER_REPLY => is_over = true,
                _ => {}
            }
            at += message.len();
        }
        self.input.drain(..at);
        is_over
    }
}

/// The messages that open a connection.
pub fn hello() -> Vec<u8> {
    let mut hello = Vec::new();
    encode(&Message::Hello(Hello::of(VERSION)), 0, &mut hello);
    hello
}

/// Connects, and says hello.
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the switch listens");
    (&stream).write_all(&hello()).expect("the switch reads");
    stream
}

/// Sends all of `bytes`, which end with a barrier request, and waits for its reply. Returns the bytes of multipart replies that came before it.
pub fn exchange(mut stream: &UnixStream, bytes: &[u8]) -> usize {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (&*stream).write_all(bytes).expect("the switch reads"));
        let (mut answers, mut chunk) = (Answers::default(), vec![0; 1 << 20]);
        loop {
            let count = stream.read(&mut chunk).expect("the switch answers");
            assert_ne!(count, 0, "the switch closed the connection");
            if answers.take(&chunk[..count]) {
                return answers.listed;
            }
            // Not within a message of the other thread's: who is asked while there is something to be read takes that for an answer.
            if writer.is_finished() && !answers.replies.is_empty() {
                stream.write_all(&std::mem::take(&mut answers.replies)).expect("the switch reads");
            }
        }
    })
}
