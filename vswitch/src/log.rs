//! Logging to standard error.
//!
//! The level can be changed while the switch runs. What is said about a port, a listener, a controller or a table is limited: whoever is behind it may cause it,
//! again and again, and must not fill the disk with it. A message is about one if it has a field of that name. What was left out is counted and
//! said later.

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

/// What messages are about that others can cause.
const SUBJECTS: [&str; 4] = ["port", "listener", "controller", "table"];
/// Messages about one subject that may come at once.
const BURST: u32 = 30;
/// How long it takes until one more may come.
const REFILL: Duration = Duration::from_secs(2);
/// The most subjects that are told apart. They come and go by the operator's hand; what is beyond shares one limit.
const SUBJECTS_MAX: usize = 4096;

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
    for (subject, messages) in suppressed {
        tracing::warn!(messages, "too many messages about {subject}: some were left out");
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
        let mut subject = Subject(None);
        event.record(&mut subject);
        subject.0.is_none_or(|subject| LIMITS.lock().unwrap_or_else(PoisonError::into_inner).allow(subject, Instant::now()))
    }
}

/// What a message is about, such as `port vm1`.
struct Subject(Option<String>);

impl Visit for Subject {
    fn record_str(&mut self, field: &Field, value: &str) {
        if SUBJECTS.contains(&field.name()) {
            self.0 = Some(format!("{} {value}", field.name()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if SUBJECTS.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// How much each subject may still cause.
#[derive(Default)]
struct Limits(HashMap<String, Limit>);

struct Limit {
    left: u32,
    refilled: Instant,
    suppressed: u64,
}

impl Limits {
    fn allow(&mut self, subject: String, now: Instant) -> bool {
        let subject = if self.0.len() >= SUBJECTS_MAX && !self.0.contains_key(&subject) { "others".to_owned() } else { subject };
        let limit = self.0.entry(subject).or_insert(Limit { left: BURST, refilled: now, suppressed: 0 });
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
        some.map(|(subject, limit)| (subject.clone(), std::mem::take(&mut limit.suppressed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_cut_off_and_others_are_not() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let allowed =
            |limits: &mut Limits, subject: &str, now, times| (0..times).filter(|_| limits.allow(subject.to_owned(), now)).count() as u32;
        assert_eq!(allowed(&mut limits, "port vm1", start, 1000), BURST);
        assert_eq!(allowed(&mut limits, "port vm2", start, 1), 1);
        assert_eq!(limits.take_suppressed(), [("port vm1".to_owned(), 1000 - u64::from(BURST))]);
        assert_eq!(limits.take_suppressed(), []);
        assert_eq!(allowed(&mut limits, "port vm1", start + 3 * REFILL, 1000), 3);
        assert_eq!(allowed(&mut limits, "port vm1", start + 1000 * REFILL, 1000), BURST);
    }
}
