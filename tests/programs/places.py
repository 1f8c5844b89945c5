# What a program has open by name: files, its working directory, a FIFO, a Unix socket, a watch, a mapped file. All of it lies
# in the directory that is the first argument; after the restart, where the second says, or else in the same.
import ctypes, mmap, os, select, socket, sys, time

home, later = sys.argv[1], sys.argv[-1]
os.chdir(home)
log = open(home + "/log", "ab", buffering=0)
log.write(b"before\n")
data = open(home + "/data", "rb", buffering=0)
data.seek(3)
with open(home + "/map", "wb") as f:
    f.write(b"m" * 8192)
mapped = open(home + "/map", "r+b")
view = mmap.mmap(mapped.fileno(), 8192)
mapped.close()
# As Java's counters: mapped, and not open.
with open(home + "/counters", "wb") as f:
    f.write(b"c" * 4096)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
file = os.open(home + "/counters", os.O_RDWR)
counters = ctypes.cast(libc.mmap(None, 4096, 3, mmap.MAP_SHARED, file, 0), ctypes.POINTER(ctypes.c_char))
os.close(file)
os.mkfifo("fifo")
fifo = os.open(home + "/fifo", os.O_RDWR | os.O_NONBLOCK)
os.write(fifo, b"in the fifo")
listener = socket.socket(socket.AF_UNIX)
listener.bind(home + "/socket")
listener.listen()
notify = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(notify, os.fsencode(home), 0x100)
print("ready", flush=True)
go = os.environ["GUEST_GO"]
while not os.path.exists(go):
    time.sleep(0.01)


def check(what, good):
    if not good:
        print("FAIL", what, flush=True)
        sys.exit(1)


here = lambda fd: os.path.realpath("/proc/self/fd/%d" % fd)
check("directory " + os.getcwd(), os.getcwd() == later)
check("log " + here(log.fileno()), here(log.fileno()) == later + "/log")
log.write(b"after\n")
check("log's contents", open(later + "/log", "rb").read() == b"before\nafter\n")
check("data", here(data.fileno()) == later + "/data" and data.read() == b"DEF")
view[0:1] = b"M"
view.flush()
check("map", open(later + "/map", "rb").read(2) == b"Mm")
check("counters", counters[0] == b"c" and open(later + "/counters", "rb").read() == b"c" * 4096)
counters[0] = b"C"
check("counters are shared", open(later + "/counters", "rb").read(1) == b"C")
counters[0] = b"c"
check("fifo", here(fifo) == later + "/fifo" and os.read(fifo, 99) == b"in the fifo")
client = socket.socket(socket.AF_UNIX)
client.connect(later + "/socket")
check("socket", listener.accept()[0] is not None)
try:
    os.read(notify, 4096)
except BlockingIOError:
    pass
open(later + "/new", "w").close()
check("watch", b"new" in os.read(notify, 4096))
print("PASS", flush=True)
