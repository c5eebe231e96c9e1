#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# bench.sh NFT_BENCH [OPTION...]: runs nft_bench in a network namespace of its own; prints its JSON.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 NFT_BENCH [OPTION...]" >&2; exit 2; }
space=nk-$$-bench
ip netns add "$space"
trap 'ip netns del "$space"' EXIT
ip -n "$space" link add e0 type veth peer name e1
ip netns exec "$space" "$@"
