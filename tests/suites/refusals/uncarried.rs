//! What is not carried at all: each is refused by its name, on a kernel and as a user that can have one.

use anyhow::Result;

use super::refused;

macro_rules! uncarried {
    ($($name:ident: $set_up:literal, $words:expr;)*) => { $(
        #[test]
        fn $name() -> Result<()> {
            refused(stringify!($name), $set_up, $words)
        }
    )* };
}

uncarried! {
    asynchronous_io: "i = ctypes.c_ulong(0); must(libc.syscall(206, 8, ctypes.byref(i))); N = None", &[&["io_setup"]];
    asynchronous_io_in_flight:
        "i = ctypes.c_ulong(0); must(libc.syscall(206, 8, ctypes.byref(i))); r, w = os.pipe()\n\
         b = ctypes.create_string_buffer(struct.pack('QIIHhIQQqQII', 0, 0, 0, 5, 0, r, 1, 0, 0, 0, 0, 0)); l = (ctypes.c_void_p * 1)(ctypes.addressof(b))\n\
         must(libc.syscall(209, i, 1, l)); N = None",
        &[&["io_setup"]];
    a_performance_event:
        "a = ctypes.create_string_buffer(struct.pack('IIQ', 1, 112, 1) + b'\\0' * 24 + struct.pack('Q', 1 << 5 | 1 << 6), 112)\n\
         N = must(libc.syscall(298, a, 0, -1, -1, 0))",
        &[&["perf event"]];
    the_memory_of_a_performance_event:
        "a = ctypes.create_string_buffer(struct.pack('IIQ', 1, 112, 1) + b'\\0' * 24 + struct.pack('Q', 1 << 5 | 1 << 6), 112)\n\
         n = must(libc.syscall(298, a, 0, -1, -1, 0)); must(libc.mmap(None, 8192, 3, 1, n, 0)); os.close(n); N = None",
        &[&["perf_event"]];
    a_bpf_map: "N = must(libc.syscall(321, 0, ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 4, 1), 72), 72))", &[&["bpf"]];
    fanotify: "N = must(libc.fanotify_init(0x200, 0))", &[&["fanotify"]];
    userfaultfd: "N = must(libc.syscall(323, 1))", &[&["userfaultfd"]];
    memory_of_a_userfaultfd:
        "import fcntl; n = must(libc.syscall(323, 1)); fcntl.ioctl(n, 0xc018aa3f, struct.pack('QQQ', 0xaa, 0, 0))\n\
         a = must(libc.mmap(None, 8192, 3, 0x22, -1, 0)); fcntl.ioctl(n, 0xc020aa00, struct.pack('QQQQ', a, 8192, 1, 0)); N = n",
        &[&["userfaultfd"]];
    a_virtual_machine:
        "try: N = os.open('/dev/kvm', os.O_RDWR)\nexcept OSError as x: print('SKIP', x, flush=True); sys.exit(0)",
        &[&["/dev/kvm"]];
    a_tunnel:
        "try: N = os.open('/dev/net/tun', os.O_RDWR)\nexcept OSError as x: print('SKIP', x, flush=True); sys.exit(0)",
        &[&["/dev/net/tun"]];
    a_socket_with_a_filter_of_ebpf:
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); N = s.fileno()\n\
         code = ctypes.create_string_buffer(b'\\xb7\\0\\0\\0\\xff\\xff\\xff\\xff\\x95\\0\\0\\0\\0\\0\\0\\0', 16); name = ctypes.create_string_buffer(b'GPL')\n\
         ask = ctypes.create_string_buffer(struct.pack('IIQQ', 1, 2, ctypes.addressof(code), ctypes.addressof(name)), 128)\n\
         p = libc.syscall(321, 5, ask, 128)\n\
         if p < 0: print('SKIP no bpf', flush=True); sys.exit(0)\n\
         s.setsockopt(1, 50, p); os.close(p)",
        &[&["socket udp"], &["eBPF"]];
    a_packet_socket_with_a_ring:
        "try: s = socket.socket(17, socket.SOCK_RAW)\nexcept OSError as x: print('SKIP', x, flush=True); sys.exit(0)\n\
         s.setsockopt(263, 5, struct.pack('IIII', 4096, 1, 2048, 2)); N = s.fileno()",
        &[&["socket packet"], &["ring"]];
    packet_sockets_that_share:
        "try: s = socket.socket(17, socket.SOCK_RAW, 0x300)\nexcept OSError as x: print('SKIP', x, flush=True); sys.exit(0)\n\
         s.setsockopt(263, 18, os.getpid() & 0xffff); N = s.fileno()",
        &[&["socket packet"], &["PACKET_FANOUT"]];
    a_message_queue_without_a_name:
        "N = must(libc.syscall(240, b'ckpt-test', 0o102, 0o600, None)); must(libc.syscall(241, b'ckpt-test'))", &[&["message queue"]];
    a_secret: "N = must(libc.syscall(447, 0)); os.ftruncate(N, 4096)", &[&["secretmem"]];
    secret_memory:
        "n = must(libc.syscall(447, 0)); os.ftruncate(n, 4096); must(libc.mmap(None, 4096, 3, 1, n, 0)); os.close(n); N = None",
        &[&["memfd_secret"]];
    segments_of_its_own:
        "must(libc.syscall(154, 1, ctypes.create_string_buffer(struct.pack('IIII', 0, 4096, 0xfffff, 0x51)), 16)); N = None", &[&["modify_ldt"]];
    an_owner_of_signals_that_is_not_saved:
        "import fcntl; a, b = socket.socketpair(); fcntl.fcntl(a, fcntl.F_SETOWN, os.getppid()); N = a.fileno()", &[&["F_SETOWN"], &["is not saved"]];
    urgent_data_of_a_unix_socket:
        "a, b = socket.socketpair(); a.send(b'ab'); a.send(b'c', socket.MSG_OOB); a.send(b'd'); N = b.fileno()", &[&["MSG_OOB"]];
    urgent_data_of_a_connection:
        "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b, _ = l.accept()\n\
         a.send(b'ab'); a.send(b'c', socket.MSG_OOB); a.send(b'd'); N = b.fileno()",
        &[&["MSG_OOB"]];
    what_lies_behind_urgent_data_that_was_read:
        "l = socket.create_server(('127.0.0.1', 0)); a = socket.create_connection(l.getsockname()); b, _ = l.accept()\n\
         a.send(b'ab'); a.send(b'c', socket.MSG_OOB); a.send(b'd'); b.recv(1, socket.MSG_OOB); N = b.fileno()",
        &[&["MSG_OOB"]];
    a_ruleset_of_landlock: "N = must(libc.syscall(444, ctypes.create_string_buffer(struct.pack('Q', 1)), 8, 0))", &[&["landlock"]];
}
