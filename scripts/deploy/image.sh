#!/usr/bin/env bash
# Is the image built from the Dockerfile, and does it run as it should: not as root, with a root file system that
# cannot be written, with its health check, and to an orderly end on SIGTERM?
#
#   scripts/deploy/image.sh BINARY
#
# With Docker, all of that is real. Without it, buildah builds: every line of the Dockerfile is carried out, but the two
# bases are a clean Debian (no registry of images is asked), in the first of which `cargo` stands for the compiler, and
# copies BINARY. It then runs in a namespace, as the image's configuration says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/common.sh

binary=$1
work=$(mktemp -d)
cleanup=()
finish() { for ((n = ${#cleanup[@]} - 1; n >= 0; n--)); do eval "${cleanup[n]}" >/dev/null 2>&1 || true; done; rm -rf "$work"; }
trap finish EXIT
expect() { "${@:2}" || die "$1 (${*:2})"; }
is() { [[ $1 == "$2" ]]; }

cat >"$work/rillway.toml" <<'TOML'
[broker]
uri = "rabbitmq-stream://rillway:secret@localhost:1/%2f"
[[consumer]]
name   = "archiver"
stream = "events"
sink   = { type = "file", dir = "archive" }
TOML
chmod 755 "$work"
chmod 644 "$work/rillway.toml"

with_docker() {
  local id health=''
  docker build --quiet -t rillway:check . >/dev/null
  cleanup+=('docker image rm -f rillway:check')
  expect 'it is not root' is "$(docker image inspect -f '{{.Config.User}}' rillway:check)" 65532:65532
  id=$(docker run -d --read-only --cap-drop ALL --security-opt no-new-privileges --health-interval 1s \
    -v "$work/rillway.toml:/etc/rillway/rillway.toml:ro" -v "rillway-check-$$:/var/lib/rillway" rillway:check)
  cleanup+=("docker volume rm rillway-check-$$" "docker rm -f $id")
  for _ in {1..60}; do
    health=$(docker inspect -f '{{.State.Health.Status}}' "$id")
    [[ $health != healthy ]] || break
    sleep 0.5
  done
  [[ $health == healthy ]] || { docker logs "$id" >&2; die "its health is $health"; }
  docker stop -t 30 "$id" >/dev/null
  expect 'SIGTERM ends it in good order' is "$(docker inspect -f '{{.State.ExitCode}}' "$id")" 0
  expect 'and it says so' grep -q 'shutdown complete' <(docker logs "$id" 2>&1)
  echo 'built and run with Docker: not root, read-only, healthy, ended in good order'
}

BUILDAH=(buildah --storage-driver vfs)
build() { # build CONTAINER-NAME < rootfs: an image of this name
  local container mounted
  container=$("${BUILDAH[@]}" from scratch)
  mounted=$("${BUILDAH[@]}" mount "$container")
  tar -C "$mounted" -xf "$(scripts/setup.sh debian --where)"
  if [[ $1 == builder ]]; then
    install -D "$binary" "$mounted/built/rillway"
    install -d "$mounted/usr/local/cargo/registry"
    install -m 755 /dev/stdin "$mounted/usr/local/bin/cargo" <<'SH'
#!/bin/sh
# In place of the compiler: what was built outside.
exec install -D /built/rillway target/release/rillway
SH
  fi
  "${BUILDAH[@]}" umount "$container" >/dev/null
  "${BUILDAH[@]}" commit --quiet --rm "$container" "localhost/rillway-check-$1" >/dev/null
}

configured() { "${BUILDAH[@]}" inspect --format "{{$1}}" "$container"; }

with_buildah() {
  local container mounted status=0 pid port environment
  [[ $(root_by || true) == direct ]] || unavailable 'without Docker, an image is built as root'
  scripts/setup.sh buildah
  scripts/setup.sh debian
  # Storage of its own: no image of this machine is touched.
  BUILDAH+=(--root "$work/storage" --runroot "$work/run")
  build builder
  build runtime
  "${BUILDAH[@]}" build --quiet --isolation chroot --format docker --pull-never \
    --build-arg BUILDER=localhost/rillway-check-builder --build-arg RUNTIME=localhost/rillway-check-runtime \
    -t localhost/rillway-check . >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die 'buildah could not build the image'; }
  container=$("${BUILDAH[@]}" from --pull-never localhost/rillway-check)
  mounted=$("${BUILDAH[@]}" mount "$container")
  expect 'it is not root' is "$(configured .Docker.Config.User)" 65532:65532
  expect 'it has a health check' is "$(configured .Docker.Config.Healthcheck.Test)" '[CMD /usr/local/bin/rillway health]'
  expect 'it is told to stop by SIGTERM' is "$(configured .Docker.Config.StopSignal)" SIGTERM
  expect 'its folder is its own' is "$(stat -c %u:%g "$mounted/var/lib/rillway")" 65532:65532
  cp "$work/rillway.toml" "$mounted/etc/rillway/rillway.toml"

  # As an engine runs it: its environment, its user, no capabilities, and only its volume can be written.
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  mapfile -t environment < <("${BUILDAH[@]}" inspect --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' "$container" | grep .)
  environment+=("RILLWAY__ADMIN__LISTEN=127.0.0.1:$port")
  inside /usr/local/bin/rillway run >"$work/log" 2>&1 &
  pid=$!
  cleanup+=("kill -KILL $pid")
  for _ in {1..60}; do
    inside /usr/local/bin/rillway health >/dev/null 2>&1 && break
    kill -0 "$pid" 2>/dev/null || { cat "$work/log" >&2; die 'it has ended'; }
    sleep 0.5
  done
  expect 'its health check is good' inside /usr/local/bin/rillway health >/dev/null
  expect 'its root file system cannot be written' is "$(inside /bin/sh -c 'echo x >/etc/x' 2>&1 | grep -c 'Read-only')" 1
  expect 'its volume can' inside /bin/sh -c 'echo x >/var/lib/rillway/x'
  expect 'it is not root' is "$(stat -c %u "/proc/$pid")" 65532
  kill -TERM "$pid"
  wait "$pid" || status=$?
  expect 'SIGTERM ends it in good order' is "$status" 0
  expect 'and it says so' grep -q 'shutdown complete' "$work/log"
  not_checked 'the compilation in the image, and the real base images, because Docker does not run here and no registry of images is asked'
  echo "built by buildah, with $(basename "$binary") in place of a build and a clean Debian in place of the bases; ran not as root, read-only, healthy, ended in good order"
}

# inside COMMAND...: in the image, as an engine would run it. The process is that of the command.
inside() {
  # shellcheck disable=SC2016
  exec_ unshare --mount bash -c '
    set -eu
    root=$1
    shift
    mount --bind "$root" "$root"
    mount --bind "$root/var/lib/rillway" "$root/var/lib/rillway"
    mount -t proc proc "$root/proc"
    mount -o remount,bind,ro "$root"
    exec chroot "$root" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --inh-caps=-all \
      --bounding-set=-all "$@"' in "$mounted" env -i -C /var/lib/rillway "${environment[@]}" "$@"
}

# In the background a function runs in a shell of its own, which the command has to replace.
exec_() { if [[ $BASHPID == "$$" ]]; then "$@"; else exec "$@"; fi; }

if docker_works; then
  with_docker
else
  with_buildah
fi
