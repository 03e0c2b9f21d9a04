#!/bin/bash
# The guest's one program, on an overlay of the root file system of the machine that runs QEMU:
# brings up the two links with an rxe device on each, then runs what it is told on the second serial
# port. A line "run ID" runs /share/ID.sh (output: /share/ID.out) and is answered "done ID STATUS";
# "kill ID SIGNAL" signals its process group.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C
word() { # the value of a word of the kernel's command line
  local w
  for w in $(cat /proc/cmdline); do case $w in "$1"=*) echo "${w#*=}" ;; esac done
}
host=$(word farpage.host)
dmesg -n 7
hostname "guest$host"
ulimit -l unlimited
ulimit -c 0
mount -t configfs none /sys/kernel/config
ip link set lo up
for link in 0 1; do
  ip link set "eth$link" mtu 9000 up
  ip addr add "10.$((78 + link)).0.$host/24" dev "eth$link"
  ip -6 addr add "fd00:$((78 + link))::$host/64" dev "eth$link" nodad
  rdma link add "rxe$link" type rxe netdev "eth$link"
done
# Linux's RDMA address resolution can wait 20 s for a neighbour that nobody has asked for yet.
neighbours() { for link in 0 1; do
  for address in "10.$((78 + link)).0.1" "fd00:$((78 + link))::1"; do
    busybox ping -q -c 1 -W 5 "$address" || return 1
  done
done; }
for _ in 1 2 3; do neighbours >/run/neighbours 2>&1 && break; done
gids() { cat /sys/class/infiniband/rxe[01]/ports/1/gids/{0,1,2} 2>/dev/null; }
for _ in $(seq 100); do [ "$(gids | grep -c -e ffff:0a -e fd00)" = 4 ] && break; sleep 0.1; done

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
job() {
  setsid bash "/share/$1.sh" >"/share/$1.out" 2>&1 </dev/null 3>&- &
  echo $! >"/run/job-$1"
  wait $!
  echo "done $1 $?" >&3
}
echo ready >&3
while read -r -u 3 verb id signal; do
  case $verb in
    run) job "$id" & ;;
    # It may have been told a moment ago only.
    kill) until [ -s "/run/job-$id" ]; do sleep 0.01; done
      kill -s "$signal" -- "-$(cat "/run/job-$id")" ;;
  esac
done
