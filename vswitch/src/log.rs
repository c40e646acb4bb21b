//! Logging to standard error.
//!
//! The level can be changed while the switch runs. What is said about a port is limited: whoever is behind the port may cause it, again and
//! again, and must not fill the disk with it. A message is about a port if it has a field `port`. What was left out is counted and said later.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::LogLevel;

/// Messages about one port that may come at once.
const BURST: u32 = 30;
/// How long it takes until one more may come.
const REFILL: Duration = Duration::from_secs(2);
/// The most ports that are told apart. Ports come and go by the operator's hand; what is beyond shares one limit.
const PORTS_MAX: usize = 4096;

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);
static LIMITS: LazyLock<Mutex<Limits>> = LazyLock::new(Mutex::default);

/// Starts logging at level info.
pub fn start() {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    // It fails only if logging was started before.
    let _ = tracing_subscriber::registry().with(lines.with_filter(Limiter)).try_init();
}

/// Changes how much is logged.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Says how much was left out since it was said last.
pub fn report_suppressed() {
    let suppressed = LIMITS.lock().unwrap_or_else(PoisonError::into_inner).take_suppressed();
    for (port, messages) in suppressed {
        tracing::warn!(messages, "too many messages about port {port}: some were left out");
    }
}

fn level() -> LevelFilter {
    const LEVELS: [LevelFilter; 6] =
        [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
    LEVELS[usize::from(LEVEL.load(Ordering::Relaxed)) % LEVELS.len()]
}

struct Limiter;

impl Filter<Registry> for Limiter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, Registry>) -> bool {
        *metadata.level() <= level()
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, Registry>) -> bool {
        let mut port = PortField(None);
        event.record(&mut port);
        port.0.is_none_or(|port| LIMITS.lock().unwrap_or_else(PoisonError::into_inner).allow(port, Instant::now()))
    }
}

struct PortField(Option<String>);

impl Visit for PortField {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "port" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "port" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

/// How much each port may still cause.
#[derive(Default)]
struct Limits(HashMap<String, Limit>);

struct Limit {
    left: u32,
    refilled: Instant,
    suppressed: u64,
}

impl Limits {
    fn allow(&mut self, port: String, now: Instant) -> bool {
        let port = if self.0.len() >= PORTS_MAX && !self.0.contains_key(&port) { String::new() } else { port };
        let limit = self.0.entry(port).or_insert(Limit { left: BURST, refilled: now, suppressed: 0 });
        let more = now.saturating_duration_since(limit.refilled).as_nanos() / REFILL.as_nanos();
        if more > 0 {
            limit.left = limit.left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(BURST);
            limit.refilled = now;
        }
        match limit.left.checked_sub(1) {
            Some(left) => limit.left = left,
            None => {
                limit.suppressed += 1;
                return false;
            }
        }
        true
    }

    fn take_suppressed(&mut self) -> Vec<(String, u64)> {
        let some = self.0.iter_mut().filter(|(_, limit)| limit.suppressed > 0);
        some.map(|(port, limit)| (port.clone(), std::mem::take(&mut limit.suppressed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_cut_off_and_others_are_not() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let allowed =
            |limits: &mut Limits, port: &str, now, times| (0..times).filter(|_| limits.allow(port.to_owned(), now)).count() as u32;
        assert_eq!(allowed(&mut limits, "vm1", start, 1000), BURST);
        assert_eq!(allowed(&mut limits, "vm2", start, 1), 1);
        assert_eq!(limits.take_suppressed(), [("vm1".to_owned(), 1000 - u64::from(BURST))]);
        assert_eq!(limits.take_suppressed(), []);
        assert_eq!(allowed(&mut limits, "vm1", start + 3 * REFILL, 1000), 3);
        assert_eq!(allowed(&mut limits, "vm1", start + 1000 * REFILL, 1000), BURST);
    }
}
