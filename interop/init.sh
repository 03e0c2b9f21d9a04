#!/bin/busybox sh
# First process of a guest, from the initramfs: mounts the root file system of the machine that runs
# QEMU (9p, read-only, with an overlay in memory) and goes on with guest.sh there.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules.list); do insmod "/modules/$module"; done

share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"; }
mkdir -p /lower /rw /newroot
share root /lower ro
mount -t tmpfs tmpfs /rw
mkdir -p /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /newroot
for folder in proc sys dev; do mount --move "/$folder" "/newroot/$folder"; done
mkdir -p /newroot/tmp /newroot/run /newroot/share "/newroot/lib/modules/$(uname -r)"
mount -t tmpfs tmpfs /newroot/tmp
mount -t tmpfs tmpfs /newroot/run
share share /newroot/share rw
share modules "/newroot/lib/modules/$(uname -r)" ro
exec chroot /newroot /bin/bash /share/guest.sh
