# Sourced by the scripts of the lab, from the root of the checkout.
# shellcheck shell=bash

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

die() {
  printf '\033[1;31m%s\033[0m\n' "$*" >&2
  exit 1
}

LAB=/run/kindnet-lab           # of the machine, not of the checkout, so that any checkout finds what a killed run of another one left
STORE=/var/lib/kindnet-lab     # images alone: a cache that outlives `make down`
# shellcheck disable=SC2034 # used by lab/image
SUITE="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"

need_root_and_debian() {
  [ "$(id -u)" = 0 ] || die "the lab needs root: it makes network namespaces and containers (sudo make ...)"
  case "$(. /etc/os-release && echo "$ID $VERSION_ID")" in
    "debian 12" | "debian 13") ;;
    *) die "the lab runs on Debian 12 or 13, this is $(. /etc/os-release && echo "${PRETTY_NAME:-something else}")" ;;
  esac
}

# One lab per machine: what changes it waits for whoever else does. Children inherit the lock, so a script may call another one.
lock_lab() {
  [ "${KINDNET_LAB_LOCKED:-}" = 1 ] && return
  exec 8>/run/kindnet-lab.lock
  flock --nonblock 8 || { say "Waiting for another run to finish with the lab" && flock 8; }
  export KINDNET_LAB_LOCKED=1
}

# What outlives a script, such as a container's monitor, must not keep the lock: 8>&-
in_lab() { nsenter --mount="$LAB/mnt" --net="$LAB/net" -- "$@" 8>&-; }

# Storage of our own, so that nothing here can meet the user's containers.
PODMAN=(env "CONTAINERS_CONF=$LAB/containers.conf" podman --root "$STORE/containers" --runroot "$LAB/containers" --tmpdir "$LAB/libpod"
  --network-config-dir "$LAB/networks")

lab_podman() { in_lab "${PODMAN[@]}" "$@"; }
