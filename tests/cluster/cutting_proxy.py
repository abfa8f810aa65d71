"""A TCP proxy that cuts its connections after random numbers of bytes, drawn from a seed: in the middle of a frame, of a
greeting, of nothing. Half of the cuts are resets, half are proper ends."""

import random
import socket
import struct
import threading


class CuttingProxy:
    def __init__(self, target, seed):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._open = set()
        self.cuts = 0
        self.cutting = True
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        with self._lock:
            for one in list(self._open):
                self._shut(one)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
                # A hundred bytes to a million, few as often as many: greetings and headers are cut too.
                left = [int(10 ** self._random.uniform(2, 6)) for _ in range(2)]
                reset = self._random.random() < 0.5
            pair = (client, server)
            for here, there, bytes_left in ((client, server, left[0]), (server, client, left[1])):
                threading.Thread(target=self._copy, args=(here, there, bytes_left, reset, pair), daemon=True).start()

    def _copy(self, here, there, left, reset, pair):
        try:
            while True:
                data = here.recv(min(65536, left) if self.cutting else 65536)
                if not data:
                    break
                there.sendall(data)
                left -= len(data)
                if left <= 0 and self.cutting:
                    with self._lock:
                        self.cuts += 1
                        if reset:
                            for one in pair:
                                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                left = max(left, 1)
        except OSError:
            pass  # the other direction has cut it, or a peer has
        with self._lock:
            for one in pair:
                self._shut(one)
                self._open.discard(one)

    @staticmethod
    def _shut(one):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more
        one.close()
