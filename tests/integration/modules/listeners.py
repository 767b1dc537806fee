"""Small servers that note what reaches them: an HTTP server of canned answers, a CONNECT proxy, and certificates to serve with."""
from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import select
import socket
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PING = b'{"ok":true,"version":"1.50.12","timestamp":"2026-01-01T00:00:00.000Z"}'


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.seen = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, _request, _address):
        """A client that breaks off is no news."""

    def __exit__(self, *_problem):
        self.shutdown()
        self.server_close()


class Listener(_Server):
    """Answers every request in the same way; ``seen``: (method, path, headers)."""

    def __init__(self, status=200, body=PING, headers=None, context=None):
        self.status, self.body, self.context = status, body, context
        self.headers = dict({"Content-Type": "application/json"}, **(headers or {}))
        super().__init__(_Canned)
        self.url = "http%s://localhost:%d" % ("s" if context else "", self.port)

    def get_request(self):
        connection, address = super().get_request()
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


class _Canned(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.command, self.path, self.headers))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, *_words):
        pass


class Proxy(_Server):
    """A CONNECT proxy; with ``login`` ("user:password") it asks for one. ``seen``: (method, target)."""

    def __init__(self, login=None):
        self.login = login and "Basic " + base64.b64encode(login.encode()).decode()
        super().__init__(_Connect)


class _Connect(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.server.seen.append((self.command, self.path))
        if self.server.login and self.headers.get("Proxy-Authorization") != self.server.login:
            return self.send_error(407)
        host, port = self.path.rsplit(":", 1)
        try:
            upstream = socket.create_connection((host, int(port)))
        except OSError:
            return self.send_error(502)
        self.send_response(200)
        self.end_headers()
        ends = {self.connection: upstream, upstream: self.connection}
        with upstream:
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return None
                    ends[ready].sendall(data)

    def do_GET(self):
        self.server.seen.append((self.command, self.path))
        self.send_error(501)

    do_POST = do_GET

    def log_message(self, *_words):
        pass


class Authority:
    """Makes certificates below a folder: ``ca`` is the path of its own, ``issue`` gives (certificate, key) paths."""

    def __init__(self, folder, name="Test CA"):
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.ca = str(folder / "ca.pem")
        self._write(self.ca, self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None)))

    def _sign(self, subject, key, extension):
        now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key()).serial_number(
            x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        builder = builder.add_extension(extension, critical=subject == self.name).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False).add_extension(
            x509.KeyUsage(True, False, False, False, False, subject == self.name, False, False, False), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _write(path, data):
        with open(path, "wb") as file:
            file.write(data)

    def issue(self, name="localhost", address="127.0.0.3"):
        key, paths = ec.generate_private_key(ec.SECP256R1()), (str(self.folder / (name + ".pem")), str(self.folder / (name + ".key")))
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))])
        self._write(paths[0], self._sign(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key, names))
        self._write(paths[1], key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                serialization.NoEncryption()))
        return paths

    def context(self, client_ca=None, name="localhost") -> ssl.SSLContext:
        """For a server of this authority; with client_ca it asks for client certificates of that one."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(*self.issue(name))
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context
