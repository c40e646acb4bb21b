"""A learning switch on os-ken, as in many a tutorial: frames without a rule come here, and are answered with a packet-out and, once both ends are
known, with a rule that goes when it is idle.

It prints what it hears, one JSON document a line. Settings, from the environment: IDLE_TIMEOUT in seconds (0: rules stay), ROLE (equal, master or
slave) and GENERATION.
"""

import json
import os

from os_ken.base.app_manager import OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet.ethernet import ethernet
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

IDLE_TIMEOUT = int(os.environ.get("IDLE_TIMEOUT", 0))
ROLE = {"equal": ofp.OFPCR_ROLE_EQUAL, "master": ofp.OFPCR_ROLE_MASTER, "slave": ofp.OFPCR_ROLE_SLAVE}[os.environ.get("ROLE", "equal")]
GENERATION = int(os.environ.get("GENERATION", 0))


def tell(event, **details):
    print(json.dumps({"event": event, **details}))


def add_rule(datapath, priority, match, output, **more):
    apply = parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [output])
    datapath.send_msg(parser.OFPFlowMod(datapath, priority=priority, match=match, instructions=[apply], **more))


class LearningSwitch(OSKenApp):
    OFP_VERSIONS = [ofp.OFP_VERSION]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ports = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, event):
        datapath = event.msg.datapath
        tell("features", datapath=datapath.id)
        self.ports.clear()
        if ROLE != ofp.OFPCR_ROLE_EQUAL:
            datapath.send_msg(parser.OFPRoleRequest(datapath, ROLE, GENERATION))
        add_rule(datapath, 0, parser.OFPMatch(), parser.OFPActionOutput(ofp.OFPP_CONTROLLER, ofp.OFPCML_NO_BUFFER))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        message, datapath = event.msg, event.msg.datapath
        frame, _, _ = ethernet.parser(message.data)
        in_port = message.match["in_port"]
        tell("packet-in", in_port=in_port, reason=message.reason, src=frame.src, dst=frame.dst)
        self.ports[frame.src] = in_port
        known = self.ports.get(frame.dst)
        output = parser.OFPActionOutput(known or ofp.OFPP_FLOOD)
        if known:
            match = parser.OFPMatch(in_port=in_port, eth_src=frame.src, eth_dst=frame.dst)
            add_rule(datapath, 10, match, output, idle_timeout=IDLE_TIMEOUT, flags=ofp.OFPFF_SEND_FLOW_REM)
        datapath.send_msg(parser.OFPPacketOut(datapath, ofp.OFP_NO_BUFFER, in_port, [output], message.data))

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def flow_removed(self, event):
        message = event.msg
        tell("flow-removed", reason=message.reason, packets=message.packet_count, match=dict(message.match.items()))

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def port_status(self, event):
        tell("port-status", reason=event.msg.reason, port=event.msg.desc.port_no, state=event.msg.desc.state)

    @set_ev_cls(ofp_event.EventOFPRoleReply, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def role_reply(self, event):
        tell("role", role=event.msg.role, generation=event.msg.generation_id)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [HANDSHAKE_DISPATCHER, CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def error(self, event):
        tell("error", type=event.msg.type, code=event.msg.code)
