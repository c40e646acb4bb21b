//! Pushing and popping tags: VLAN, MPLS and PBB; and the TTLs of MPLS entries.
//!
//! A new tag goes outside of the others of its kind: a VLAN tag behind the Ethernet addresses, an MPLS entry behind the VLAN tags, an I-TAG with a new
//! Ethernet header before everything (OpenFlow 1.3.5, 5.12.1). What an action uncovers is not looked at here: nothing but the layout's start of it is right
//! until the frame's key is extracted again.

use super::place::{Ip, NOT_APPLICABLE, TYPE, is_tagged, u16_at};
use crate::drops::DropReason;
use crate::frame::{ETHERNET_HEADER, Frame, Layout};
use crate::wire::checksum;
use crate::wire::ethernet::ethertype;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::mpls::{BOTTOM_OF_STACK, Mpls};
use crate::wire::pbb::{self, Pbb};

/// The TTL of an entry.
const TTL: u32 = 0xff;

/// Pushes a tag outside of all others. It copies the outermost tag's VLAN and priority.
pub(super) fn push_vlan(frame: &mut Frame, tpid: u16) -> Result<(), DropReason> {
    let tci = if is_tagged(frame) { u16_at(frame.head(), TYPE + 2).unwrap_or(0) } else { 0 };
    let tag = frame.insert(TYPE, 4).ok_or(NOT_APPLICABLE)?;
    tag[..2].copy_from_slice(&tpid.to_be_bytes());
    tag[2..].copy_from_slice(&tci.to_be_bytes());
    Ok(())
}

/// Pops the outermost tag.
pub(super) fn pop_vlan(frame: &mut Frame) -> Result<(), DropReason> {
    if is_tagged(frame) && frame.remove(TYPE, 4) { Ok(()) } else { Err(NOT_APPLICABLE) }
}

/// Where the outermost MPLS entry lies, and what it says; an error if there is none.
fn entry(frame: &Frame) -> Result<(usize, u32), DropReason> {
    let at = usize::from(frame.layout.network);
    let is_mpls = at.checked_sub(2).and_then(|kind| u16_at(frame.head(), kind)).is_some_and(ethertype::is_mpls);
    let entry = frame.head().get(at..).and_then(Mpls::new_checked).filter(|_| is_mpls).ok_or(NOT_APPLICABLE)?;
    Ok((at, entry.entry()))
}

fn set_entry(frame: &mut Frame, at: usize, entry: u32) -> Result<(), DropReason> {
    let mut mpls = frame.head_mut().get_mut(at..).and_then(Mpls::new_checked_mut).ok_or(NOT_APPLICABLE)?;
    mpls.set_entry(entry);
    Ok(())
}

fn set_type(frame: &mut Frame, kind: u16) -> Result<(), DropReason> {
    let at = usize::from(frame.layout.network).checked_sub(2).ok_or(NOT_APPLICABLE)?;
    frame.head_mut().get_mut(at..at + 2).ok_or(NOT_APPLICABLE)?.copy_from_slice(&kind.to_be_bytes());
    Ok(())
}

/// Pushes an MPLS entry outside of all others, and gives the frame the Ethernet type `kind`.
pub(super) fn push_mpls(frame: &mut Frame, kind: u16) -> Result<(), DropReason> {
    let pushed = match entry(frame) {
        Ok((_, outermost)) => outermost & !BOTTOM_OF_STACK,
        Err(_) => BOTTOM_OF_STACK | u32::from(Ip::of(frame).map_or(0, |ip| ip.ttl())),
    };
    let network = frame.layout.network;
    frame.insert(network.into(), Mpls::LEN).ok_or(NOT_APPLICABLE)?;
    frame.layout = Layout { network, transport: 0 };
    set_entry(frame, network.into(), pushed)?;
    set_type(frame, kind)
}

/// Pops the outermost MPLS entry, and gives the frame the Ethernet type `kind`.
pub(super) fn pop_mpls(frame: &mut Frame, kind: u16) -> Result<(), DropReason> {
    let (at, _) = entry(frame)?;
    if !frame.remove(at, Mpls::LEN) {
        return Err(NOT_APPLICABLE);
    }
    frame.layout = Layout { network: at as u16, transport: 0 };
    set_type(frame, kind)
}

/// Decrements the TTL of the outermost MPLS entry. False, and nothing done, if it runs out.
pub(super) fn decrement_mpls_ttl(frame: &mut Frame) -> Result<bool, DropReason> {
    let (at, entry) = entry(frame)?;
    if entry & TTL <= 1 {
        return Ok(false);
    }
    set_entry(frame, at, entry - 1)?;
    Ok(true)
}

/// Copies the TTL of the header behind the outermost MPLS entry to that.
pub(super) fn copy_ttl_out(frame: &mut Frame) -> Result<(), DropReason> {
    let (at, outermost) = entry(frame)?;
    let ttl = if outermost & BOTTOM_OF_STACK == 0 {
        let next = frame.head().get(at + Mpls::LEN..).and_then(Mpls::new_checked).ok_or(NOT_APPLICABLE)?;
        next.entry() & TTL
    } else {
        u32::from(Ip::behind_mpls(frame, at + Mpls::LEN).ok_or(NOT_APPLICABLE)?.ttl())
    };
    set_entry(frame, at, outermost & !TTL | ttl)
}

/// Copies the TTL of the outermost MPLS entry to the header behind it.
pub(super) fn copy_ttl_in(frame: &mut Frame) -> Result<(), DropReason> {
    let (at, outermost) = entry(frame)?;
    let ttl = outermost & TTL;
    let next = at + Mpls::LEN;
    if outermost & BOTTOM_OF_STACK == 0 {
        let entry = frame.head().get(next..).and_then(Mpls::new_checked).ok_or(NOT_APPLICABLE)?.entry();
        return set_entry(frame, next, entry & !TTL | ttl);
    }
    set_ttl_behind_mpls(frame, next, ttl as u8)
}

/// Sets the TTL of the IP header at `at`, which no Ethernet type announces.
fn set_ttl_behind_mpls(frame: &mut Frame, at: usize, ttl: u8) -> Result<(), DropReason> {
    let head = frame.head_mut().get_mut(at..).ok_or(NOT_APPLICABLE)?;
    match head.first().map(|byte| byte >> 4) {
        Some(4) => {
            let mut ip = Ipv4::new_checked_mut(head).ok_or(NOT_APPLICABLE)?;
            let (old, new) = (u16::from(ip.ttl()) << 8, u16::from(ttl) << 8);
            ip.set_checksum(checksum::update(ip.checksum(), old.into(), new.into()));
            ip.set_ttl(ttl);
        }
        Some(6) => Ipv6::new_checked_mut(head).ok_or(NOT_APPLICABLE)?.set_hop_limit(ttl),
        _ => return Err(NOT_APPLICABLE),
    }
    Ok(())
}

/// Pushes an I-TAG, and outside of it an Ethernet header with the addresses of the frame.
pub(super) fn push_pbb(frame: &mut Frame) -> Result<(), DropReason> {
    let network = usize::from(frame.layout.network);
    let priority = if is_tagged(frame) { u32::from(u16_at(frame.head(), TYPE + 2).unwrap_or(0) >> 13) } else { 0 };
    let is_pbb = network.checked_sub(2).and_then(|kind| u16_at(frame.head(), kind)) == Some(ethertype::PBB);
    let inner = frame.head().get(network..).and_then(Pbb::new_checked).filter(|_| is_pbb);
    let tci = priority << 29 | inner.map_or(0, |inner| inner.tci() & pbb::ISID);
    let addresses = *frame.head().first_chunk::<TYPE>().ok_or(NOT_APPLICABLE)?;
    let header = frame.insert(0, ETHERNET_HEADER + Pbb::LEN).ok_or(NOT_APPLICABLE)?;
    header[..TYPE].copy_from_slice(&addresses);
    header[TYPE..ETHERNET_HEADER].copy_from_slice(&ethertype::PBB.to_be_bytes());
    header[ETHERNET_HEADER..].copy_from_slice(&tci.to_be_bytes());
    frame.layout = Layout { network: ETHERNET_HEADER as u16, transport: 0 };
    Ok(())
}

/// Pops the outermost I-TAG, and the Ethernet header outside of it.
pub(super) fn pop_pbb(frame: &mut Frame) -> Result<(), DropReason> {
    let network = usize::from(frame.layout.network);
    let is_pbb = network.checked_sub(2).and_then(|kind| u16_at(frame.head(), kind)) == Some(ethertype::PBB);
    let inside = network + Pbb::LEN;
    if !is_pbb || frame.head().len() < inside + ETHERNET_HEADER || !frame.remove(0, inside) {
        return Err(NOT_APPLICABLE);
    }
    frame.layout = Layout { network: ETHERNET_HEADER as u16, transport: 0 };
    Ok(())
}
