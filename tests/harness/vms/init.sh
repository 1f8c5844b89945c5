#!/bin/busybox sh
# The first process of a virtual machine: sets up, then does what comes through the port `control`, one order after the other.
#
#   run BYTES       and a script of so many bytes: answers CODE BYTES BYTES, then what it wrote to standard output and error
#   put BYTES PATH  and a file's contents: answers as above
#
# When the other side is gone, the virtual machine turns itself off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/shm
ip link set lo up
for module in /modules/*; do [ -e "$module" ] && insmod "$module"; done
until [ -e /dev/control ] && [ -e /dev/data ]; do
    for port in /sys/class/virtio-ports/*; do
        [ -e "$port/name" ] && ln -sf "/dev/${port##*/}" "/dev/$(cat "$port/name")"
    done
    [ -e /dev/data ] || usleep 20000
done
chmod 666 /dev/vport*
cd /tmp
exec 3<> /dev/control
echo "hello $(uname -r)" >&3
answer() {
    echo "$1 $(stat -c %s /run/out) $(stat -c %s /run/err)" >&3
    cat /run/out /run/err >&3
}
while read -r order size path <&3; do
    case $order in
    run)
        head -c "$size" <&3 > /run/script
        (exec 3>&-; exec sh /run/script) < /dev/null > /run/out 2> /run/err
        answer $?
        ;;
    put)
        : > /run/out
        head -c "$size" <&3 2> /run/err > "$path"
        answer $?
        ;;
    esac
done
poweroff -f
