#!/bin/busybox sh
# One stream through the port `data`, from or to this machine, as an end of a pipe.
#
#   stream from NUMBER | …    what comes after the line `go NUMBER`, to its end
#   … | stream to NUMBER      all of standard input, and `end NUMBER`: closing the port ends nothing on the other side
#
# The other side says `go` first: before it has connected there is nothing but the end here, or the rest of an older stream.
exec 4<> /dev/data
until [ "$line" = "go $2" ]; do read -r line <&4 || usleep 20000; done
case $1 in
from) exec cat <&4 ;;
to) cat >&4 && printf '\nend %s\n' "$2" >&4 ;;
esac
