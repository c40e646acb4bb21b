//! Controllers' roles (OpenFlow 1.3.5, 6.3.4).

use super::{Agent, ConnectionId};
use crate::openflow::wire::error::RoleRequestFailed;
use crate::openflow::wire::{ErrorCode, Message, Role, RoleMessage};

impl Agent {
    pub(super) fn is_slave(&self, id: ConnectionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.role == Role::Slave)
    }

    pub(super) fn role_request(&mut self, id: ConnectionId, request: &RoleMessage, xid: u32) -> Result<(), ErrorCode> {
        if let (Some(Role::Master | Role::Slave), Some(generation_id)) = (request.role, request.generation_id) {
            // Generations are compared as on a circle.
            if self.generation_id.is_some_and(|last| (generation_id.wrapping_sub(last) as i64) < 0) {
                return Err(RoleRequestFailed::Stale.into());
            }
            self.generation_id = Some(generation_id);
        }
        if request.role == Some(Role::Master) {
            for (other, session) in &mut self.sessions {
                if *other != id && session.role == Role::Master {
                    session.role = Role::Slave;
                }
            }
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.role = request.role.unwrap_or(session.role);
        let reply = RoleMessage { role: Some(session.role), generation_id: self.generation_id };
        session.send(&Message::RoleReply(reply), xid);
        Ok(())
    }
}
