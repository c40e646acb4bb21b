# The switch's entry for a measuring rig that runs one switch, or two in turn, under the same load: a file to be sourced, with the functions
# sut_start, sut_stop, sut_stats_clear and sut_stats. The rig sets RUN (a folder), RIG, SUT_CORE, PIPE (the name of a rule set), SOCK0 and SOCK1.
#
# VSWITCH is the binary to measure; POLL is how its worker waits. With P1=xdp the second port is an AF_XDP uplink over a veth device, whose other end the
# rig's generator has (XDP_DIR and XDP_END, as in its xdpio entry); XDP_OPTIONS are more options of that port.
FE_SERVER=0
: "${VSWITCH:=$(dirname "$(readlink -f "$SUTFILE")")/../../target/release/vswitch}" "${POLL:=busy}" "${P1:=vhost}" "${XDP_OPTIONS:=}"
vswitch_ctl() { timeout 20 "$VSWITCH" ctl --run-dir "$RUN/vswitch" --json "$@"; }
sut_start() {
	[ -x "$VSWITCH" ] || { echo "no $VSWITCH: build it with cargo build --release" >&2; return 1; }
	mkdir -p "$RUN/vswitch"
	local where=() second="v1=vhost-user:$SOCK1"
	if [ "$P1" = xdp ]; then
		NS=lp$$ GEN_NETNS=lp$$ second="v1=af-xdp:x0$XDP_OPTIONS"
		. "$RIG/sut/xdpio.sh.inc" && xdp_net || return 1
		where=(ip netns exec "$NS")
	fi
	"${where[@]}" "$VSWITCH" run --run-dir "$RUN/vswitch" --cpus "$SUT_CORE" --poll "$POLL" --fail-mode secure --listen "punix:$RUN/vswitch/mgmt" \
		--port "v0=vhost-user:$SOCK0" --port "$second" >"$RUN/vswitch.out" 2>"$RUN/vswitch.log" &
	SUTPID=$!
	wait_for 10 grep -q ready "$RUN/vswitch.out" || return 1
	ovs-ofctl -O OpenFlow13 add-flows "unix:$RUN/vswitch/mgmt" "$RIG/rules/$PIPE.flows" || return 1
	# The launcher's child is the switch; its worker forwards.
	local child; child=$(cat /proc/$SUTPID/task/$SUTPID/children); child=${child%% *}
	WATCH=$child/$(tid_by_name "$child" "^worker-$SUT_CORE\$") || return 1
	[ "$P1" != xdp ] || xdp_fe
}
sut_stats_clear() { vswitch_ctl workers >"$RUN/workers.before"; }
sut_stats() {
	vswitch_ctl workers >"$RUN/workers.after"
	vswitch_ctl drops >"$RUN/drops.after"
	python3 - "$RUN/workers.before" "$RUN/workers.after" "$RUN/drops.after" <<'P'
import json, sys
before, after, drops = (json.load(open(f)) for f in sys.argv[1:])
before, after = before[0], after[0]
spent = {k: after[k] - before[k] for k in ("frames", "busy_cycles", "idle_cycles", "microflow_hits", "megaflow_hits", "upcalls", "installed")}
spent["cycles_per_frame"] = round(spent["busy_cycles"] / max(1, spent["frames"]), 1)
spent.update(megaflows=after["megaflows"], masks=after["masks"], audit_mismatches=after["audit_mismatches"])
for d in drops: spent["drop_%s_%s" % (d["port"], d["reason"])] = d["frames"]
print(", ".join('"%s": %s' % i for i in spent.items()))
P
}
sut_stop() {
	stop_pid "${SUTPID:-}"
	[ "$P1" != xdp ] || ip netns del "$NS" 2>/dev/null
}
