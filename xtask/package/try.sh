# An ordinary program, saved and restarted by what is installed. The arguments are options of the restart.
set -e
dir=$(mktemp -d)
cd "$dir"

mkfifo ready go

# A job whose id is $pid, which waits for a line.
start() {
    : > job.out
    "$@" sh -c 'echo > ready; read line < go; echo went on' >> job.out 2> /dev/null &
    pid=$!
    read line < ready
}

end() {
    kill "$pid"
    wait "$pid" || true
    if [ -s job.out ]; then echo "the job has not waited: $(cat job.out)"; exit 1; fi
}

# Restarts the job, by this command, and gives it the line.
goes_on() {
    echo > go &
    "$@"
    wait
    if [ "$(cat job.out)" != "went on" ]; then echo "$1: the job has not gone on: $(cat job.out)"; exit 1; fi
}

ckpt --version
start env
ckpt check "$pid"
ckpt save "$pid" -o job.ckpt
end
ckpt verify job.ckpt
goes_on ckpt restart --pidfile pid "$@" job.ckpt
if [ "$1" = --pid ] && [ "$(cat pid)" != "$pid" ]; then echo "process $pid is $(cat pid) now"; exit 1; fi
goes_on restart-stub --files rollback job.ckpt

if [ -n "$LIBRARY" ]; then
    start env LD_PRELOAD="$LIBRARY" CKPT_SIGNAL=USR1 CKPT_IMAGE="$dir/signal.ckpt"
    kill -USR1 "$pid"
    while [ ! -e signal.ckpt ]; do sleep 0.1; done
    end
    goes_on restart-stub signal.ckpt
fi
cd /
rm -rf "$dir"
echo "it works"
