# Makes an overlay of this machine's file system the root of these namespaces, and becomes its systemd. $1 is a folder that the
# machine sees as /srv. Nothing starts but what is asked for, and nothing is written below the overlay.
set -e
mkdir "$1/machine"
mount -t tmpfs machine "$1/machine"
cd "$1/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : > "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 pts dev/pts
ln -s pts/ptmx dev/ptmx
mount --bind "$1" srv
rm -rf lib/systemd/system/*.wants usr/lib/systemd/system/*.wants etc/systemd/system/*.wants
rm -rf etc/weir usr/sbin/policy-rc.d
mkdir lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service ../systemd-journald-dev-log.socket ../systemd-journald.socket \
    lib/systemd/system/sysinit.target.wants
: > etc/fstab
: > etc/machine-id
ip link add eth0 type veth peer name far0
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up
ip link set far0 up
ip neighbour add 10.77.0.2 lladdr 02:00:00:00:00:02 dev eth0
pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=weir PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=no
