# shellcheck shell=bash disable=SC2154 # root, work, expect, is: package.sh, which sources this
# What the unit promises, under a real systemd: sourced by package.sh, once the package is installed and the machine
# runs. There is no broker, so the consumer goes on trying, which is as good here.

service_done=()
until_() { # until_ WHAT COMMAND... : repeats it for half a minute
  local what=$1 tried=0
  shift
  until "$@"; do
    tried=$((tried + 1))
    [[ $tried -lt 120 ]] || { machine journalctl -u rillway -n 20 --no-pager >&2; die "not within 30 s: $what"; }
    sleep 0.25
  done
}
shows() { [[ $(machine systemctl show -p "$1" --value rillway) == "$2" ]]; }
drop_in() {
  mkdir -p "$root/etc/systemd/system/rillway.service.d"
  cat >"$root/etc/systemd/system/rillway.service.d/$1.conf"
  machine systemctl daemon-reload
}

# An operator's way: a configuration, a secret that only root can read, and the start.
cat >>"$root/etc/rillway/rillway.toml" <<'TOML'
[broker]
uri      = "rabbitmq-stream://rillway@localhost:1/%2f"
password = { credential = "broker_password" }
[[consumer]]
name   = "archiver"
stream = "events"
sink   = { type = "file", dir = "/var/lib/rillway/archive" }
TOML
(umask 077 && echo a-secret >"$root/etc/rillway/broker_password")
drop_in secret <<<$'[Service]\nLoadCredential=broker_password:/etc/rillway/broker_password'
machine systemctl enable --now --quiet rillway || { machine journalctl -u rillway -n 20 --no-pager >&2; die 'the service did not start'; }
expect 'it is active, and has said that it is ready' is "$(machine systemctl is-active rillway)" active
expect 'it runs as its user' is "$(machine stat -c %U "/proc/$(machine systemctl show -p MainPID --value rillway)")" rillway
expect 'its folder is for its group to read' is "$(mode /var/lib/rillway)" 'rillway:rillway 750'
service_done+=('started with a secret of its own,')

entries() { machine journalctl -u rillway -o json --output-fields=PRIORITY,CONSUMER,STREAM,MESSAGE --no-pager "$@"; }
fields() { [[ $(entries CONSUMER=archiver STREAM=events PRIORITY=4 | wc -l) -gt 0 ]]; }
until_ 'the journal has the consumer as a field, and the level as priority' fields
expect 'no secret is in the journal' is "$(machine journalctl -u rillway --no-pager | grep -c a-secret || true)" 0
service_done+=('found in the journal by CONSUMER= and STREAM=,')

pid=$(machine systemctl show -p MainPID --value rillway)
machine systemctl reload rillway
hung_up() { machine journalctl -u rillway -o cat --no-pager | grep -qiE 'SIGHUP|reload'; }
until_ 'the process has received SIGHUP' hung_up
expect 'a reload keeps the process' shows MainPID "$pid"
expect 'and it is active' is "$(machine systemctl is-active rillway)" active
service_done+=('reloaded,')

machine systemctl kill --signal=KILL rillway
restarted() { shows ActiveState active && ! shows MainPID "$pid" && ! shows MainPID 0; }
until_ 'it is started again after a crash' restarted
service_done+=('restarted after a crash,')

machine systemctl stop rillway
expect 'a stop is a success' shows Result success
expect 'the end is in the journal, and belongs to the unit' grep -q 'shutdown complete' <(machine journalctl -u rillway -o cat --no-pager)
# In place of a consumer that is late: a program that ends as Rillway then does.
drop_in late <<<$'[Service]\nType=exec\nExecStart=\nExecStart=/bin/sh -c \'trap "exit 75" TERM; while :; do sleep 0.1; done\''
machine systemctl start rillway
machine systemctl stop rillway
expect 'a stop that leaves late consumers behind is no failure' shows ActiveState inactive
rm "$root/etc/systemd/system/rillway.service.d/late.conf"
machine systemctl daemon-reload
service_done+=('stopped, also with late consumers,')

cp "$root/etc/rillway/rillway.toml" "$work/good.toml"
echo 'nonsense = 1' | cat - "$work/good.toml" >"$root/etc/rillway/rillway.toml"
machine systemctl start rillway 2>/dev/null || true
until_ 'a bad configuration is a failure' shows ActiveState failed
expect 'and it is not tried again' shows NRestarts 0
cp "$work/good.toml" "$root/etc/rillway/rillway.toml"
machine systemctl reset-failed rillway
service_done+=('and not restarted with a bad configuration')
