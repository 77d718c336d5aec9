# shellcheck shell=bash
# Ports for a broker. Source after common.sh.
#
# A node gets a block of eight ports below the range of the kernel's outgoing ports, so that nothing else
# takes them between a stop and a start. The block is reserved as long as the node's folder contains it;
# removing the folder releases it.

PORTS_FIRST=20000
PORTS_BLOCKS=1250 # up to 29999; Linux hands out 32768 and above by itself
PORTS_PER_BLOCK=8

port_answers() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ports_block_is_free() {
  local base=$1 holder port
  holder=$(cat "$RILLWAY_CACHE/ports/$base" 2>/dev/null) || holder=
  [[ -z $holder || "$(cat "$holder/ports" 2>/dev/null)" != "$base" ]] || return 1
  for ((port = base; port < base + PORTS_PER_BLOCK; port++)); do
    ! port_answers "$port" || return 1
  done
}

# ports_reserve DIR: under the lock; writes the block's first port to DIR/ports.
ports_reserve() {
  local dir=$1 tries base
  mkdir -p "$RILLWAY_CACHE/ports"
  for ((tries = 0; tries < PORTS_BLOCKS; tries++)); do
    base=$((PORTS_FIRST + PORTS_PER_BLOCK * (RANDOM % PORTS_BLOCKS)))
    if ports_block_is_free "$base"; then
      echo "$dir" >"$RILLWAY_CACHE/ports/$base"
      echo "$base" >"$dir/ports"
      return
    fi
  done
  die "found no free block of ports from $PORTS_FIRST on"
}
