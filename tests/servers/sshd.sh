#!/bin/bash
# A real sshd on loopback, as whoever runs this; root is not needed.
#   sshd.sh DIR PORT PROGRAMS
# Lets in by DIR/server/.ssh/authorized_keys; its sessions find programs in PROGRAMS first; DIR/sshd_more has more settings. Prints "ready" once it listens;
# ends, with every session, when stdin closes.
# Needs: openssh-server openssh-client
set -euo pipefail
dir=$1 port=$2 programs=$3
# Where sshd runs as root it wants a directory that the package's own service would make.
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
[ -e "$dir/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
cat >"$dir/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile $dir/server/.ssh/authorized_keys
SetEnv PATH=$programs:$PATH
CONFIG
[ ! -e "$dir/sshd_more" ] || cat "$dir/sshd_more" >>"$dir/sshd_config"
"$(PATH=$PATH:/usr/sbin command -v sshd)" -D -e -f "$dir/sshd_config" 2>"$dir/sshd.log" &
sshd=$!
stop() {
    trap - EXIT
    # Sessions first: they are its children, and would outlive it.
    pkill -KILL -P "$sshd" 2>/dev/null || true
    kill -KILL "$sshd" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap stop EXIT
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$sshd" || { cat "$dir/sshd.log" >&2; exit 1; }
    sleep 0.05
done
echo ready
cat >/dev/null
