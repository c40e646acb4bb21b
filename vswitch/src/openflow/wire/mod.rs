//! The messages of OpenFlow 1.3.5, from bytes and to bytes. Pure: no sockets, no state.
