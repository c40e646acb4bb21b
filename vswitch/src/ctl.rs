//! `vswitch ctl`: asks a running switch, and prints the answer, for a person or, with `--json`, as it came.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::{ConfigCommand, CtlArgs, CtlCommand, PortCommand, RunArgs};
use crate::config::{Config, ConfigError, ConfigFile, FileError, Host, RunDir};
use crate::document::{Answer, Connection, Drops, Flow, PortDetails, PortSummary, Request, Worker};
use crate::launcher::open_tls_file;
use crate::openflow::tls::{Tls, TlsError};
use crate::uplink::afxdp::Account;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CtlError {
    #[error("no switch is running in {}; start one, or give its run directory with --run-dir ({source})", run_dir.display())]
    NoSwitch { run_dir: PathBuf, source: io::Error },
    #[error("talking to the switch failed: {0}")]
    Talk(#[from] io::Error),
    #[error("the switch answered what this vswitch does not understand: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Carries out one command.
pub fn run(args: &CtlArgs, run_dir: RunDir) -> Result<(), CtlError> {
    let text = match request(&args.command) {
        Ok(request) => {
            let document = ask(run_dir.path(), &run_dir.control_socket(), &request)?;
            if args.json { document.to_string() } else { for_a_person(&request, document)? }
        }
        Err(file) => {
            let file = ConfigFile::read(file)?;
            let config = Config::new(&RunArgs::default(), Some(&file), &Host::this(run_dir))?;
            check_tls(&config)?;
            if args.json { "\"ok\"".to_owned() } else { format!("{} is a valid config file", file.path().display()) }
        }
    };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether the files that TLS needs, if it does, are good.
fn check_tls(config: &Config) -> Result<(), TlsError> {
    let Some(files) = &config.tls else { return Ok(()) };
    Tls::load(files, |what| open_tls_file(what, files.path(what))).map(drop)
}

/// What to ask a switch; or the config file to check, which needs none.
fn request(command: &CtlCommand) -> Result<Request, &Path> {
    Ok(match command {
        CtlCommand::Port(PortCommand::Add { port }) => Request::PortAdd { port: port.clone() },
        CtlCommand::Port(PortCommand::Del { name }) => Request::PortDel { name: name.clone() },
        CtlCommand::Port(PortCommand::List) => Request::PortList,
        CtlCommand::Port(PortCommand::Show { name }) => Request::PortShow { name: name.clone() },
        CtlCommand::Flows { worker } => Request::Flows { worker: *worker },
        CtlCommand::Workers => Request::Workers,
        CtlCommand::Connections => Request::Connections,
        CtlCommand::Drops => Request::Drops,
        CtlCommand::Reload => Request::Reload,
        CtlCommand::Log { level } => Request::Log { level: level.to_string() },
        CtlCommand::Config(ConfigCommand::Check { file }) => return Err(file),
    })
}

fn ask(run_dir: &Path, socket: &Path, request: &Request) -> Result<Value, CtlError> {
    let no_switch = |source| CtlError::NoSwitch { run_dir: run_dir.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(no_switch)?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(CtlError::Talk(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")));
    }
    match serde_json::from_str(&answer)? {
        Answer::Document(document) => Ok(document),
        Answer::Error(error) => Err(CtlError::Refused(error)),
    }
}

fn for_a_person(request: &Request, document: Value) -> Result<String, CtlError> {
    Ok(match request {
        Request::PortAdd { .. } => {
            let port: PortDetails = parse(document)?;
            format!("port {} added with OpenFlow port number {}", port.summary.name, port.summary.ofport)
        }
        Request::PortDel { .. } => format!("port {} deleted", parse::<PortDetails>(document)?.summary.name),
        Request::PortList => port_table(parse(document)?),
        Request::PortShow { .. } => port_text(&parse(document)?),
        Request::Flows { .. } => table(
            &["WORKER", "FRAMES", "BYTES", "AGE", "MATCH", "ACTIONS"],
            parse::<Vec<Flow>>(document)?.into_iter().map(|flow| {
                let age = format!("{}.{:03}s", flow.age_ms / 1000, flow.age_ms % 1000);
                vec![flow.worker.to_string(), flow.frames.to_string(), flow.bytes.to_string(), age, flow.r#match, flow.actions]
            }),
        ),
        Request::Workers => table(
            &["NAME", "CPU", "BUSY", "FRAMES", "MICROFLOW HITS", "MEGAFLOW HITS", "UPCALLS", "MEGAFLOWS", "MASKS"],
            parse::<Vec<Worker>>(document)?.into_iter().map(|worker| {
                let share = |part: u64, whole: u64| format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64);
                let of_frames = |part: u64| format!("{part} ({})", share(part, worker.frames));
                vec![
                    worker.name.clone(),
                    worker.cpu.to_string(),
                    share(worker.busy_cycles, worker.busy_cycles.saturating_add(worker.idle_cycles)),
                    worker.frames.to_string(),
                    of_frames(worker.microflow_hits),
                    of_frames(worker.megaflow_hits),
                    of_frames(worker.upcalls),
                    worker.megaflows.to_string(),
                    worker.masks.to_string(),
                ]
            }),
        ),
        Request::Connections => table(
            &["TARGET", "PEER", "STATE", "VERSION", "ROLE", "SECONDS", "IN", "OUT", "PACKET-INS", "QUEUED", "DROPPED", "LAST ERROR"],
            parse::<Vec<Connection>>(document)?.into_iter().map(connection_row),
        ),
        Request::Drops => table(
            &["PORT", "FRAMES", "REASON", "WHICH MEANS"],
            parse::<Vec<Drops>>(document)?.into_iter().map(|drops| vec![drops.port, drops.frames.to_string(), drops.reason, drops.says]),
        ),
        Request::Reload => {
            let done: Vec<String> = parse(document)?;
            if done.is_empty() { "nothing differs".to_owned() } else { done.join("\n") }
        }
        Request::Log { .. } => format!("logging at level {}", parse::<String>(document)?),
    })
}

fn connection_row(connection: Connection) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = match connection.next_attempt_s {
        Some(seconds) => format!("{}, {seconds} s left", connection.state),
        None => connection.state,
    };
    let dropped: u64 = connection.packet_ins.dropped.values().sum();
    let packet_ins = [connection.packet_ins.sent, connection.packet_ins.queued, dropped];
    let numbers = [[connection.messages_in, connection.messages_out].as_slice(), &packet_ins].concat();
    let seconds = connection.connected_s.map(|seconds| seconds.to_string());
    let words = [Some(connection.target), connection.peer, Some(state), connection.version, connection.role, seconds].map(or_dash);
    [words.into(), numbers.iter().map(u64::to_string).collect(), vec![or_dash(connection.last_error)]].concat()
}

fn port_table(ports: Vec<PortSummary>) -> String {
    let mut heads = vec!["NAME", "OFPORT", "KIND", "LINK", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "DROPS"];
    let any_fails = ports.iter().any(|port| port.error.is_some());
    heads.extend(any_fails.then_some("ERROR"));
    let row = |port: PortSummary| {
        let drops: u64 = port.drops.values().sum();
        let numbers = [port.rx_frames, port.rx_bytes, port.tx_frames, port.tx_bytes, drops].map(|number| number.to_string());
        let error = any_fails.then(|| port.error.unwrap_or_default());
        [vec![port.name, port.ofport.to_string(), port.kind, port.link], numbers.into(), error.into_iter().collect()].concat()
    };
    table(&heads, ports.into_iter().map(row))
}

fn port_text(port: &PortDetails) -> String {
    let summary = &port.summary;
    let mut rows = vec![
        ("name", summary.name.clone()),
        ("OpenFlow port", summary.ofport.to_string()),
        ("kind", summary.kind.clone()),
        ("link", summary.link.clone()),
        ("queues", port.queues.to_string()),
        ("MTU", port.mtu.map_or_else(|| "not given".to_owned(), |mtu| mtu.to_string())),
        ("VLANs", port.vlan.clone()),
        ("address", port.hw_addr.clone()),
        ("rx", format!("{} frames, {} bytes", summary.rx_frames, summary.rx_bytes)),
        ("  forwarded", format!("{} frames", port.forwarded)),
        ("  to controllers", format!("{} frames", port.to_controller)),
        ("tx", format!("{} frames, {} bytes", summary.tx_frames, summary.tx_bytes)),
    ];
    let attached = match (&port.socket, &port.role, &port.device) {
        (Some(socket), Some(role), _) => ("socket", format!("{socket} ({role})"), "connected"),
        (_, _, Some(device)) => ("device", device.clone(), "open"),
        _ => ("device", "-".to_owned(), "open"),
    };
    rows.insert(3, (attached.2, if port.connected { "yes" } else { "no" }.to_owned()));
    rows.insert(3, (attached.0, attached.1));
    rows.extend(summary.link_speed.map(|speed| ("link speed", format!("{speed} Mbit/s"))));
    rows.extend(port.icmp_too_big.then(|| ("too long", "answered by ICMP".to_owned())));
    rows.extend(summary.link_mtu.map(|mtu| ("link MTU", mtu.to_string())));
    if let Some(af_xdp) = &port.af_xdp {
        let copies = if af_xdp.zero_copy { "zero-copy" } else { "copying" };
        rows.push(("AF_XDP", format!("{}, {copies}", af_xdp.mode)));
        for (number, queue) in af_xdp.queues.iter().enumerate() {
            rows.push(("  rx chunks", format!("{}, queue {number}", chunks_text(&queue.rx))));
            rows.push(("  tx chunks", format!("{}, queue {number}", chunks_text(&queue.tx))));
            rows.push(("  dropped", format!("{} frames by the kernel, queue {number}", queue.dropped_by_kernel)));
        }
    }
    rows.extend(summary.error.clone().map(|error| ("error", error)));
    rows.extend(summary.drops.iter().map(|(reason, frames)| ("dropped", format!("{frames} frames, {reason}"))));
    rows.into_iter().map(|(what, value)| format!("{what:<17}{value}\n")).collect()
}

fn chunks_text(account: &Account) -> String {
    let Account { chunks, ours, to_kernel, in_kernel, from_kernel, lost } = account;
    format!("{chunks}: {ours} free, {to_kernel} to, {in_kernel} in and {from_kernel} from the kernel, {lost} lost")
}

fn parse<T: DeserializeOwned>(document: Value) -> Result<T, CtlError> {
    Ok(serde_json::from_value(document)?)
}

/// Columns as wide as their widest entry; numbers to the right.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(at, head)| rows.iter().filter_map(|row| row.get(at)).map(String::len).chain([head.len()]).max().unwrap_or_default())
        .collect();
    let right = |at: usize| !rows.is_empty() && rows.iter().all(|row| row[at].starts_with(|c: char| c.is_ascii_digit()));
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).enumerate();
        let padded = cells.map(|(at, (cell, width))| if right(at) { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["vm1".to_owned(), "7".to_owned()], vec!["a".to_owned(), "1234567".to_owned()]];
        assert_eq!(table(&["NAME", "FRAMES"], rows.into_iter()), "NAME   FRAMES\nvm1         7\na     1234567\n");
        assert_eq!(table(&["NAME", "FRAMES"], [].into_iter()), "NAME  FRAMES\n");
    }
}
