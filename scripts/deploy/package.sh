#!/usr/bin/env bash
# Is the Debian package installed, upgraded, removed and purged as it should be, in a clean Debian? And does the
# service do what its unit promises, under a real systemd with a real journal, where one can be started?
#
#   scripts/deploy/package.sh BINARY
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/common.sh
. scripts/lib/machine.sh

binary=$1
[[ $(root_by || true) == direct ]] || unavailable 'a package is installed in a clean Debian as root'
archive=$(scripts/setup.sh debian --where)
package=$(RILLWAY_DEB_FAST=yes scripts/deb.sh "$binary")
version=$(dpkg-deb -f "$package" Version)

work=$(mktemp -d)
root=$work/root
machine_of "$root"
trap 'machine_stop; rm -rf "$work"' EXIT
mkdir "$root"
tar -C "$root" -xf "$archive"
cp /etc/resolv.conf "$root/etc/resolv.conf"

# The same as an older version, with other defaults: what an upgrade has to keep is what was edited.
older=$work/older
dpkg-deb -R "$package" "$older"
sed -i "s/^Version: .*/Version: 0.0.1-1/" "$older/DEBIAN/control"
sed -i '1s/.*/# The defaults of an older version./' "$older/etc/rillway/rillway.toml"
(cd "$older" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zgzip -z1 -b "$older" "$root/srv/older.deb" >/dev/null
cp "$package" "$root/srv/newer.deb"

done_=()
expect() { "${@:2}" || die "$1 (${*:2})"; }
inside() { chroot "$root" "$@"; }
apt() { inside env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold "$@" >"$work/apt" 2>&1 || { tail -n 20 "$work/apt" >&2; die "apt-get $*"; }; }
mode() { chroot "$root" stat -c '%U:%G %a' "$1"; }
is() { [[ $1 == "$2" ]]; }

inside apt-get update >"$work/apt" 2>&1 || unavailable 'the clean Debian cannot reach its packages'
apt install /srv/older.deb
expect 'the user is there' inside id rillway >/dev/null
expect 'the configuration is readable' is "$(mode /etc/rillway/rillway.toml)" 'root:root 644'
expect 'the unit is not enabled' is "$(inside systemctl is-enabled rillway 2>/dev/null || true)" disabled
expect 'the program runs' inside rillway --version >/dev/null
for page in rillway rillway-run rillway-check; do
  expect "there is a manual page $page(1)" test -e "$root/usr/share/man/man1/$page.1.gz"
done
expect 'bash completes it' test -e "$root/usr/share/bash-completion/completions/rillway"
expect 'systemd finds nothing wrong' inside systemd-analyze verify --man=no /usr/lib/systemd/system/rillway.service 2>"$work/verify" ||
  { cat "$work/verify" >&2; exit 1; }
# What a start would say, without a consumer: what to do, and no restart.
status=0
inside env RILLWAY_CONFIG=/etc/rillway/rillway.toml rillway run 2>"$work/said" || status=$?
expect 'a start without consumers says so' is "$status" 78
done_+=('installed')

booted=
if machine_start; then booted=yes; fi
if [[ $booted ]]; then
  . scripts/deploy/service.sh
  done_+=("under systemd: ${service_done[*]}")
fi

echo '# mine' >>"$root/etc/rillway/rillway.toml"
if [[ $booted ]]; then
  machine systemctl start rillway
  before=$(machine systemctl show -p MainPID --value rillway)
  machine env DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Options::=--force-confold install /srv/newer.deb >"$work/apt" 2>&1 ||
    { tail -n 20 "$work/apt" >&2; die 'the upgrade failed'; }
  expect 'an upgrade restarts a service that runs' test "$(machine systemctl show -p MainPID --value rillway)" != "$before"
  expect 'and it is active' is "$(machine systemctl is-active rillway)" active
else
  apt install /srv/newer.deb
fi
# shellcheck disable=SC2016 # dpkg's own
expect 'the new version is there' is "$(inside dpkg-query -W -f '${Version}' rillway)" "$version"
expect 'the edited configuration is kept' grep -q '^# mine' "$root/etc/rillway/rillway.toml"
expect 'and the new defaults are beside it' test -e "$root/etc/rillway/rillway.toml.dpkg-dist"
done_+=('upgraded, with the edited configuration')

mkdir -p "$root/var/lib/rillway"
touch "$root/var/lib/rillway/analytics.db"
remove() { if [[ $booted ]]; then machine env DEBIAN_FRONTEND=noninteractive apt-get -y "$1" rillway >"$work/apt" 2>&1; else apt "$1" rillway; fi; }
remove remove
expect 'the program is gone' test ! -e "$root/usr/bin/rillway"
expect 'the configuration is kept' test -e "$root/etc/rillway/rillway.toml"
[[ ! $booted ]] || expect 'the service is stopped' is "$(machine systemctl is-active rillway || true)" inactive
remove purge
expect 'the configuration is gone' test ! -e "$root/etc/rillway/rillway.toml"
expect 'what it wrote is kept' test -e "$root/var/lib/rillway/analytics.db"
expect 'and that is said' grep -q 'stays in /var/lib/rillway' "$work/apt"
done_+=('removed, purged, and what it wrote is kept')

[[ $booted ]] || not_checked "the service under a real systemd, because $(machine_obstacle)"
printf '%s; ' "${done_[@]:0:${#done_[@]}-1}" && echo "${done_[-1]}"
