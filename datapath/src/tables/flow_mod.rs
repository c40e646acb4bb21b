//! Flow-mods: what a controller asks to be changed in the flow tables.

use super::group::GROUP_ANY;
use super::instruction::Instructions;
use super::rule::{Removed, RuleFilter, RuleFlags};
use crate::key::Match;
use crate::port::PortNo;

/// `OFPFC_*` (OpenFlow 1.3.5, 7.3.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowModCommand {
    /// Add a rule, in the place of one with the same match and priority.
    Add,
    /// Change the instructions of all rules that the match includes.
    Modify,
    /// Change the instructions of the rule with exactly this match and priority.
    ModifyStrict,
    /// Delete all rules that the match includes.
    Delete,
    /// Delete the rule with exactly this match and priority.
    DeleteStrict,
}

/// A flow-mod (OpenFlow 1.3.5, 7.3.4.1).
#[derive(Clone, Debug)]
pub struct FlowMod {
    /// What to do.
    pub command: FlowModCommand,
    /// In which table; [`RuleFilter::ALL_TABLES`] for all, when deleting, or when modifying with `or_add`.
    pub table: u8,
    /// For which flows.
    pub matching: Match,
    /// The rule's priority.
    pub priority: u16,
    /// The rule's cookie, or the one to look for in the bits of `cookie_mask`.
    pub cookie: u64,
    /// When modifying or deleting: the bits of the cookie that count.
    pub cookie_mask: u64,
    /// Seconds, see [`super::Rule::idle_timeout`].
    pub idle_timeout: u16,
    /// Seconds, see [`super::Rule::hard_timeout`].
    pub hard_timeout: u16,
    /// Flags.
    pub flags: RuleFlags,
    /// When adding or modifying: what to do with the frames.
    pub instructions: Instructions,
    /// When deleting: only rules that output to this port, unless [`PortNo::ANY`].
    pub out_port: PortNo,
    /// When deleting: only rules that use this group, unless [`GROUP_ANY`].
    pub out_group: u32,
    /// When modifying: the rules' cookie from now on, if it is to be another.
    pub new_cookie: Option<u64>,
    /// When modifying: whether a rule is added if there is none to modify, as OpenFlow 1.0 has it, unless a cookie is looked for.
    pub or_add: bool,
    /// Whether actions may be such that not every frame that is matched has what they need: they are left out for the others, as OpenFlow 1.0 has it.
    pub lenient: bool,
}

impl Default for FlowMod {
    /// Adds a rule to table 0 that drops everything, with `ovs-ofctl`'s default priority.
    fn default() -> Self {
        Self {
            command: FlowModCommand::Add,
            table: 0,
            matching: Match::ANY,
            priority: 0x8000,
            cookie: 0,
            cookie_mask: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            flags: RuleFlags::default(),
            instructions: Instructions::default(),
            out_port: PortNo::ANY,
            out_group: GROUP_ANY,
            new_cookie: None,
            or_add: false,
            lenient: false,
        }
    }
}

impl FlowMod {
    /// Whether it adds a rule, given how many it finds to modify.
    pub fn adds(&self, found: usize) -> bool {
        match self.command {
            FlowModCommand::Add => true,
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => found == 0 && self.or_add && self.cookie_mask == 0,
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => false,
        }
    }

    /// The rules that it is about, if it modifies or deletes.
    pub fn filter(&self) -> RuleFilter {
        let strict = matches!(self.command, FlowModCommand::ModifyStrict | FlowModCommand::DeleteStrict);
        let delete = matches!(self.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        RuleFilter {
            table: self.table,
            matching: self.matching,
            priority: strict.then_some(self.priority),
            cookie: self.cookie,
            cookie_mask: self.cookie_mask,
            out_port: if delete { self.out_port } else { PortNo::ANY },
            out_group: if delete { self.out_group } else { GROUP_ANY },
        }
    }
}

/// What a flow-mod did.
#[derive(Clone, Debug, Default)]
pub struct FlowModOutcome {
    /// The rules that were removed, whatever their flags: by a delete, or because what learned them is gone. (A rule that an add replaces is not removed, in
    /// OpenFlow's sense.)
    pub removed: Vec<Removed>,
}

/// Why a flow-mod was refused. Nothing was changed. Each variant is one error type and code of OpenFlow 1.3.5, 7.4.4, named in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowModError {
    /// `OFPFMFC_TABLE_FULL`: the table has no room for another rule.
    TableFull,
    /// `OFPFMFC_BAD_TABLE_ID`: there is no such table, or the command can't mean all tables.
    BadTableId,
    /// `OFPFMFC_OVERLAP`: another rule of the same priority matches some of the same flows.
    Overlap,
    /// `OFPFMFC_BAD_FLAGS`: an unknown flag.
    BadFlags,
    /// `OFPBIC_BAD_TABLE_ID`: goto-table does not go forward to a table that exists.
    BadGotoTable,
    /// `OFPMMFC_UNKNOWN_METER`: the meter does not exist.
    UnknownMeter,
    /// `OFPBMC_BAD_PREREQ`: a match looks at a field without what the field needs.
    BadPrerequisite,
    /// `OFPBAC_BAD_OUT_PORT`: an output to a port that can't exist, or not in a rule.
    BadOutPort,
    /// `OFPBAC_BAD_OUT_GROUP`: a group that does not exist.
    BadOutGroup,
    /// `OFPBAC_BAD_QUEUE`: a queue that does not exist.
    BadQueue,
    /// `OFPBAC_BAD_TYPE`: an action that can't be in an action set.
    BadActionType,
    /// `OFPBAC_BAD_ARGUMENT`: an action's argument is out of its range.
    BadArgument,
    /// `OFPBAC_MATCH_INCONSISTENT`: an action can't be applied to the frames that the rule matches.
    MatchInconsistent,
    /// `OFPBAC_BAD_SET_TYPE`: a field that can't be set.
    BadSetType,
    /// `OFPBAC_BAD_SET_ARGUMENT`: a value that the field can't have.
    BadSetArgument,
    /// `NXBAC_BAD_CONJUNCTION`: a rule with clauses of conjunctions does something else, too, or a clause can't be.
    BadConjunction,
}

impl std::fmt::Display for FlowModError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TableFull => "the table is full",
            Self::BadTableId => "there is no such table",
            Self::Overlap => "the rule overlaps another of the same priority",
            Self::BadFlags => "unknown flags",
            Self::BadGotoTable => "goto_table must go to a later table that exists",
            Self::UnknownMeter => "there is no such meter",
            Self::BadPrerequisite => "the match lacks a prerequisite of one of its fields",
            Self::BadOutPort => "output to a port that can't be an output of a rule",
            Self::BadOutGroup => "there is no such group",
            Self::BadQueue => "there is no such queue",
            Self::BadActionType => "an action that can't be written into the action set; apply it instead",
            Self::BadArgument => "an action's argument is out of range",
            Self::MatchInconsistent => "an action can't be applied to the frames that the rule matches; match its prerequisites",
            Self::BadSetType => "a field that can't be set",
            Self::BadSetArgument => "a value that the field can't have",
            Self::BadConjunction => "a clause of a conjunction that can't be, or beside other actions",
        })
    }
}

impl std::error::Error for FlowModError {}
