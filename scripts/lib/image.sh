# shellcheck shell=bash
# Broker images: folders that hold one RabbitMQ with everything that it needs, from one Debian release,
# whatever system the machine runs. Source after common.sh.
#
# The packages are unpacked, not installed: a broker does not need what the maintainer scripts do. So an
# image takes seconds and needs no root, and apt still checks its packages' signatures. A folder under its
# final name is complete: it is filled and tried under another name first.

# Raise it when the recipe below changes, so that older images are rebuilt.
IMAGE_RECIPE=1

DEBIAN_MIRROR=${RILLWAY_DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Declared dependencies that no broker here uses: they are for installation, services and shells.
IMAGE_UNNEEDED='^(adduser|base-passwd|cron.*|debconf|debianutils|dpkg|init-system-helpers|login\.defs
|logrotate|lsb-base|media-types|netbase|openssl-provider-legacy|passwd|rabbitmqadmin-ng|readline-common
|sensible-utils|socat|systemd|sysvinit-utils|tar|tzdata|usrmerge
|lib(audit|bsd|db5|gdbm|krb5|gssapi|k5|keyutils|nsl|pam|perl|popt|python|readline|semanage|sepol
|sqlite|systemd-shared|tirpc|blkid|mount|debconfclient|cap-ng|ffi|expat|com-err).*
|lib.*-perl|perl.*|python3.*)$'
IMAGE_UNNEEDED=${IMAGE_UNNEEDED//$'\n'/}

image_suite() {
  case $1 in
  3.10) echo bookworm ;;
  4.0) echo trixie ;;
  4.3) echo forky ;;
  *) die "RabbitMQ $1 is not supported: choose 3.10, 4.0 or 4.3" ;;
  esac
}

image_dir() { echo "$RILLWAY_CACHE/brokers/$1"; }

# The RabbitMQ version inside, or a failure if there is no whole image of this recipe.
image_version() {
  local recipe version
  read -r recipe version 2>/dev/null <"$(image_dir "$1")/image" && [[ $recipe == "$IMAGE_RECIPE" ]] && echo "$version"
}

# How this user puts a process into an image: the rights and the kind of isolation. Fails without output
# if there is no way.
#   user namespace    the kernel lets anybody be root of a namespace of their own
#   direct namespace  root
#   sudo namespace
#   direct chroot     root of a container that may not mount anything
#   sudo chroot
image_way() {
  local right
  # Tries a mount: some systems allow the namespace, but nothing in it.
  if [[ $(id -u) != 0 ]] && unshare -Urm mount --bind /tmp /tmp 2>/dev/null; then
    echo user namespace
    return
  fi
  right=$(root_by) || return
  if as_root unshare -m mount --bind /tmp /tmp 2>/dev/null; then
    echo "$right" namespace
  elif as_root chroot / true 2>/dev/null; then
    echo "$right" chroot
  else
    return 1
  fi
}

# The reason why no image can be made or entered here; no output if it can.
image_obstacle() {
  local tool
  [[ $(uname -s) == Linux ]] || { echo "this is not Linux"; return; }
  for tool in apt-get dpkg-deb unshare setsid chroot flock; do
    have "$tool" || { echo "there is no $tool"; return; }
  done
  image_way >/dev/null || echo "this user may neither mount nor chroot (tried user namespaces, root, sudo)"
}

# image_run IMAGE NODE_DIR COMMAND...: runs as the calling user, with NODE_DIR as /node. With RUN_DETACHED
# set, the command is started in a session of its own, and not waited for: sudo, for example, would stop
# itself when its command is stopped.
image_run() {
  local image=$1 node=$2 way run_as=''
  shift 2
  way=$(image_way) || unavailable "cannot enter the broker's folder: this user may neither mount nor chroot (tried user namespaces, root, sudo)"
  [[ $way != sudo* ]] || run_as="$(id -u):$(id -g)"
  case $way in
  user*) unshare -Urm bash -c "$IMAGE_ENTER" enter "$image" "$node" '' "${RUN_DETACHED:-}" "$@" ;;
  *namespace) as_root unshare -m bash -c "$IMAGE_ENTER" enter "$image" "$node" "$run_as" "${RUN_DETACHED:-}" "$@" ;;
  *chroot)
    image_copy "$image" "$node"
    as_root bash -c "$IMAGE_CHROOT" enter "$node/root" "$run_as" "${RUN_DETACHED:-}" "$@"
    ;;
  esac
}

# shellcheck disable=SC2016 # expanded by the shell that it is given to
IMAGE_CHROOT='
set -eu
root=$1 run_as=$2 detached=$3
shift 3
exec ${detached:+setsid --fork} chroot ${run_as:+--userspec="$run_as"} "$root" "$@"
'

# In a private mount namespace: nothing stays mounted afterwards, however the command ends.
# shellcheck disable=SC2016
IMAGE_ENTER='
set -eu
root=$1 node=$2
mount --bind "$node" "$root/node"
mount --bind "$node/tmp" "$root/tmp"
[ ! -e "$node/etc/hosts" ] || mount --bind "$node/etc/hosts" "$root/etc/hosts"
for dir in dev proc sys; do mount --rbind "/$dir" "$root/$dir"; done
shift 2
set -- "$root" "$@"
'$IMAGE_CHROOT

# If nothing can be mounted, each node gets an image of its own, of hard links, as NODE_DIR/root, and
# keeps its folders inside that; NODE_DIR has links to them. There is no /proc in it.
image_copy() {
  local image=$1 node=$2 new=$2/root.new folder device
  [[ ! -e $node/root ]] || return 0
  rm -rf "$new"
  cp -al "$image" "$new" 2>/dev/null || { rm -rf "$new" && cp -a "$image" "$new"; }
  for device in null:3 zero:5 random:8 urandom:9; do
    as_root mknod -m 666 "$new/dev/${device%:*}" c 1 "${device#*:}" ||
      unavailable "this container may neither mount file systems nor make device files"
  done
  mv "$new" "$node/root"
  for folder in etc data log home tmp run; do
    [[ -d $node/$folder ]] || continue
    mv "$node/$folder" "$node/root/node/$folder"
    ln -s "root/node/$folder" "$node/$folder"
  done
  [[ ! -e $node/etc/hosts ]] || cp --remove-destination "$node/etc/hosts" "$node/root/etc/hosts"
}

# Runs apt for one Debian release, with folders of its own.
image_apt_config() {
  local work=$1 suite=$2 keyring=$3
  mkdir -p "$work"/{state/lists/partial,cache/archives/partial,none,debs}
  : >"$work/status"
  echo "deb [signed-by=$keyring] $DEBIAN_MIRROR $suite main" >"$work/sources.list"
  {
    # The machine's proxies and certificates apply here too; its hooks do not.
    apt-config dump | grep '^Acquire::' | grep -v 'Acquire::IndexTargets' || true
    cat <<-CONFIG
		Dir::Etc::parts "$work/none";
		Dir::Etc::main "/dev/null";
		Dir::Etc::sourceparts "$work/none";
		Dir::Etc::preferencesparts "$work/none";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::sourcelist "$work/sources.list";
		Dir::State "$work/state";
		Dir::State::status "$work/status";
		Dir::Cache "$work/cache";
		Dir::Log "$work/none";
		APT::Install-Recommends "false";
		APT::Architectures { "$(dpkg --print-architecture)"; };
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONFIG
  } >"$work/apt.conf"
}

# Debian's keys: the machine's own, else from the package of that name (Ubuntu has it too).
image_keyring() {
  local work=$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  if [[ ! -r $keyring ]]; then
    announce "fetching debian-archive-keyring (the keys that the brokers' packages are signed with)"
    (cd "$work" && apt-get -qq download debian-archive-keyring && dpkg-deb -x debian-archive-keyring_*.deb keys) >&2 ||
      die "cannot fetch debian-archive-keyring: without it the brokers' packages cannot be verified"
    keyring=$work$keyring
    keyring=${keyring/"$work"/"$work/keys"}
  fi
  echo "$keyring"
}

# image_build VERSION: call it under the lock. A failure leaves nothing that looks complete.
image_build() {
  local version=$1 suite image new work keyring package found
  image_version "$version" >/dev/null && return
  suite=$(image_suite "$version")
  image=$(image_dir "$version")
  announce "unpacking RabbitMQ $version out of Debian $suite into $image (private brokers run in it; seconds)"
  new=$image.new work=$image.work
  rm -rf "$new" "$work" "$image"
  mkdir -p "$work" "$new"/{dev,proc,sys,tmp,node,run,root,etc,usr/{bin,sbin,lib,lib64}}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$new"
  keyring=$(image_keyring "$work")
  image_apt_config "$work" "$suite" "$keyring"
  (
    export APT_CONFIG=$work/apt.conf
    # Without --error-on=any a release that could not be read is only a warning.
    apt-get -qq --error-on=any update
    apt-get -qq -s install rabbitmq-server bash dash coreutils sed grep mawk procps |
      awk '$1 == "Inst" { print $2 }' | grep -vE "$IMAGE_UNNEEDED" >"$work/packages"
    cd "$work/debs"
    xargs -r apt-get -qq download <"$work/packages"
  ) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "cannot fetch RabbitMQ $version from $DEBIAN_MIRROR $suite"; }
  for package in "$work"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$new" --keep-directory-symlink --no-same-owner \
      --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
      --exclude='./usr/share/info/*' --exclude='./usr/share/zoneinfo/*' --exclude='./usr/lib/*/gconv/*' \
      --exclude='./usr/lib/systemd/*' --exclude='./var/*'
  done
  [[ -e $new/usr/bin/awk ]] || ln -s mawk "$new/usr/bin/awk"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$new/etc/passwd"
  echo 'hosts: files' >"$new/etc/nsswitch.conf"
  echo '127.0.0.1 localhost' >"$new/etc/hosts"

  found=$(cd "$new/usr/lib/rabbitmq/lib" && echo rabbitmq_server-*)
  found=${found#rabbitmq_server-}
  [[ $found == "$version".* ]] ||
    say "Debian $suite has RabbitMQ $found by now: what is meant for $version runs on that"
  mkdir -p "$work/node/tmp"
  image_run "$new" "$work/node" /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/tmp LC_ALL=C.UTF-8 \
    erl -noinput -eval 'ok = crypto:start(), ok = ssl:start(), halt(0).' >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "Erlang does not run in the folder made for RabbitMQ $version"; }
  echo "$IMAGE_RECIPE $found" >"$new/image"
  mv "$new" "$image"
  rm -rf "$work"
}
