//! Long replies, sent piece by piece as the peer takes them.

use std::sync::Arc;
use std::vec;

use datapath::Nanos;
use datapath::tables::Rule;

use super::agent::{RuleNews, flow_stats};
use super::wire::{Message, MultipartBody, MultipartReply};

/// The most rules of one piece. Together they are shorter than what makes a connection be cut off.
const PIECE: usize = 128;

/// What a peer asked for, and has not been sent yet.
#[derive(Debug)]
pub struct Dump {
    xid: u32,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// Flow statistics.
    Rules(vec::IntoIter<Arc<Rule>>, Nanos),
    /// What flow monitors tell.
    News(vec::IntoIter<RuleNews>),
}

impl Dump {
    /// The reply to a request for the statistics of `rules`.
    pub fn rules(xid: u32, rules: Vec<Arc<Rule>>, now: Nanos) -> Self {
        Self { xid, rest: Rest::Rules(rules.into_iter(), now) }
    }

    /// The reply to a request for flow monitors, or with an xid of zero what they tell later.
    pub fn news(xid: u32, news: Vec<RuleNews>) -> Self {
        Self { xid, rest: Rest::News(news.into_iter()) }
    }

    /// The next message, its xid, and whether there are more.
    pub fn next(&mut self) -> (Message, u32, bool) {
        let (body, left) = match &mut self.rest {
            Rest::Rules(rules, now) => {
                let piece = rules.by_ref().take(PIECE).map(|rule| flow_stats(&rule, *now)).collect();
                (MultipartBody::Flow(piece), rules.len())
            }
            Rest::News(news) => {
                let piece = news.by_ref().take(PIECE).map(|news| news.update()).collect();
                (MultipartBody::FlowMonitor(piece), news.len())
            }
        };
        let more = left > 0;
        // What comes unasked is many messages, not a long one.
        let reply = MultipartReply { body, more: more && self.xid != 0 };
        (Message::MultipartReply(reply), self.xid, more)
    }
}
