#!/bin/bash
# One-host Ceph with its S3 gateway on loopback: monitor, one OSD, radosgw. No systemd, no root needed.
#   ceph.sh DIR S3PORT MONPORT
# Prints "ready" once the bucket `bucket` exists; ends, and removes what it started, when stdin closes.
# Needs: ceph-mon ceph-osd radosgw ceph-common curl openssl
set -euo pipefail
dir=$1 port=$2 monport=$3
conf=$dir/ceph.conf fsid=$(cat /proc/sys/kernel/random/uuid)
pids=()

stop() {
    trap - EXIT
    # The gateway first: without its OSD it would wait a long time before it dies.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -KILL "${pids[i]}" 2>/dev/null || true
    done
    wait 2>/dev/null || true
}
trap stop EXIT

mkdir -p "$dir"/{mon,osd,run,log}
cat >"$conf" <<CONF
[global]
fsid = $fsid
mon host = [v1:127.0.0.1:$monport]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $dir/keyring
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
log file = $dir/log/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon osd nearfull ratio = .97
mon osd backfillfull ratio = .98
mon osd full ratio = .99
osd failsafe full ratio = .995
[mon]
mon data = $dir/mon
[osd]
osd data = $dir/osd
keyring = $dir/osd/keyring
osd objectstore = bluestore
bluestore block size = 8589934592
osd memory target = 939524096
osd class update on start = false
[client]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
CONF

ceph_() { ceph -c "$conf" --connect-timeout 30 "$@"; }
ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$monport]" "$dir/monmap" >/dev/null
ceph-mon -c "$conf" -i a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring"
ceph-mon -c "$conf" -i a -f >"$dir/log/mon.out" 2>&1 </dev/null &
pids+=($!)
ceph_ mon stat >/dev/null

uuid=$(cat /proc/sys/kernel/random/uuid)
ceph-authtool --create-keyring "$dir/osd/keyring" --gen-key -n osd.0 >/dev/null
ceph_ osd new "$uuid" 0 >/dev/null
ceph_ auth add osd.0 -i "$dir/osd/keyring" mon 'allow profile osd' osd 'allow *' mgr 'allow profile osd' 2>/dev/null
ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" >"$dir/log/mkfs.out" 2>&1
ceph-osd -c "$conf" -i 0 -f >"$dir/log/osd.out" 2>&1 </dev/null &
pids+=($!)
for _ in $(seq 200); do
    ceph_ osd stat -f json 2>/dev/null | grep -q '"num_up_osds":1' && break
    sleep 0.2
done

radosgw-admin -c "$conf" user create --uid=lifeboat --display-name=lifeboat \
    --access-key=test --secret-key=testsecret >"$dir/log/user.json"
radosgw -c "$conf" -n client.admin -f >"$dir/log/rgw.out" 2>&1 </dev/null &
pids+=($!)
make_bucket() {
    local date signature
    date=$(date --rfc-email --utc)
    signature=$(printf 'PUT\n\n\n%s\n/bucket' "$date" | openssl dgst -sha1 -hmac testsecret -binary | base64)
    curl --silent --fail --output /dev/null --request PUT "http://127.0.0.1:$port/bucket" \
        --header "Date: $date" --header "Authorization: AWS test:$signature"
}
for _ in $(seq 300); do
    if make_bucket; then
        echo ready
        cat >/dev/null # until the test closes its end
        exit 0
    fi
    sleep 0.2
done
echo "radosgw did not answer; its log is $dir/log" >&2
exit 1
