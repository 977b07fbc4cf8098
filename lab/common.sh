# Sourced by the scripts of the lab, from the root of the checkout.
# shellcheck shell=bash

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

die() {
  printf '\033[1;31m%s\033[0m\n' "$*" >&2
  exit 1
}
