# The machine that how-to guides are typed on: a balancer that runs as a service, and its backends in namespaces beside it.
for machine in lan web1 web2 web3; do
  ip netns add "$machine"
  ip -n "$machine" link set lo up
done
ip -n lan link add bridge type bridge
ip -n lan link set bridge up
wire() {
  ip link add "$2" type veth peer name "$1" netns lan
  ip -n lan link set "$1" master bridge up
}
number=0
for machine in web1 web2 web3; do
  number=$((number + 1))
  wire "$machine" far
  ip link set far netns "$machine"
  ip -n "$machine" link set far name eth0 up
  ip -n "$machine" address add "10.0.1.$number/16" dev eth0
  ip -n "$machine" address add 192.0.2.1/32 dev lo
done
wire weir eth0
ip address add 10.0.0.1/16 dev eth0
ip link set eth0 up

mkdir --mode 0755 /etc/weir
cat >/etc/weir/weir.toml <<'END'
[balancer]
interface = "eth0"
xdp_mode = "generic"
cluster_key_file = "/etc/weir/cluster.key"

[metrics]
listen = "127.0.0.1:9107"

[limits]
tokens = 4096
joined_flows = 4096
moved_flows = 4096
pinned_flows = 4096

[[vip]]
name = "site"
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"

[[pool]]
name = "web"

[[pool.backend]]
name = "web1"
address = "10.0.1.1"

[[pool.backend]]
name = "web2"
address = "10.0.1.2"
END
(umask 077; openssl rand -hex 16 >/etc/weir/cluster.key)

# Plays the service manager, for the one service that is here.
cat >/run/bin/systemctl <<'END'
#!/bin/sh
set -e
log=/run/weir.log
answers() { weir status >/dev/null 2>&1; }
start() {
  setsid weir run 2>>"$log" &
  echo $! >/run/weir.pid
  until answers; do kill -0 "$(cat /run/weir.pid)"; sleep 0.05; done
}
stop() {
  kill "$(cat /run/weir.pid)"
  until ended; do sleep 0.05; done
}
# Nobody may reap it; what it had open is closed when its last thread has gone.
ended() {
  process="/proc/$(cat /run/weir.pid)"
  ! test -e "$process/status" ||
    { grep -qs '^State:.Z' "$process/status" && test "$(ls "$process/task" 2>/dev/null | wc -l)" -eq 1; }
}
case "$*" in
  "start weir") start ;;
  "stop weir") stop ;;
  "restart weir") stop; start ;;
  "reload weir") weir reload >/dev/null ;;
  *) echo "no service manager is here for: $*"; exit 1 ;;
esac
END
chmod +x /run/bin/systemctl
systemctl start weir
