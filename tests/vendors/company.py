"""A company's network on loopback: a proxy with a password, and a certificate authority of its own.

The proxy takes CONNECT alone, and leads every host to one server, which has a certificate of the
company's authority for all of them and hands requests on to the vendors' doubles. Sign-in services
of Google and AWS answer there too.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vendors.bedrock import vendor as bedrock
from vendors.openai import vendor as openai
from vendors.vertex import vendor as vertex

USER, PASSWORD = "jane", "p@ss word"
VENDORS_BY_HOST = {
    "api.openai.com": "openai",
    "res-1.openai.azure.com": "azure",
    "account-1.services.ai.azure.com": "azure-sessions",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "tinker.thinkingmachines.dev": "tinker",
    "api.tokenfactory.nebius.com": "nebius",
    "bedrock-mantle.us-east-1.api.aws": "mantle",
    "us-central1-aiplatform.googleapis.com": "vertex",
    "bedrock.us-east-1.amazonaws.com": "bedrock",
    "bedrock-runtime.us-east-1.amazonaws.com": "bedrock",
    "api.anthropic.com": "anthropic",
    "huggingface.co": "hf-jobs",
    "sky.example.com": "skypilot",
    "llm.example.com": "openai",
}
SIGN_IN_HOSTS = (
    *("oauth2.googleapis.com", "sts.googleapis.com", "iamcredentials.googleapis.com"),
    *("sts.us-east-1.amazonaws.com", "portal.sso.us-east-1.amazonaws.com"),
)
AWS_KEYS = {"secretAccessKey": "s", "sessionToken": "session", "accessKeyId": bedrock.KEY}
ASSUMED = (
    "<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult>"
    f"<Credentials><AccessKeyId>{bedrock.KEY}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
    "<SessionToken>session</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>"
    "</Credentials><AssumedRoleUser><AssumedRoleId>a</AssumedRoleId><Arn>arn:aws:sts::1:"
    "assumed-role/r/s</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
)


@dataclass(frozen=True)
class Seen:
    """A request that arrived, with names of headers in small letters."""

    host: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Company:
    """What is served."""

    certificate: Path  # file with the authority's certificate
    vendors: dict[str, str]  # addresses of the doubles, by backend
    proxy: str = ""  # address of the proxy, with its user and password
    url: str = ""  # address of the server itself, for whoever needs no proxy
    direct: str = "openai"  # the backend that answers at `url`
    # host and port of each CONNECT that the proxy has let through
    tunnels: list[str] = field(default_factory=list[str])
    seen: list[Seen] = field(default_factory=list[Seen])  # requests that arrived

    def answer(self, seen: Seen, method: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a request that arrived."""
        self.seen.append(seen)
        if seen.host in SIGN_IN_HOSTS:
            return 200, {"content-type": "application/json"}, _signed_in(seen.host)
        vendor, headers = VENDORS_BY_HOST.get(seen.host, self.direct), dict(seen.headers)
        _, made, signed = headers.get("authorization", "").partition("Bearer bedrock-api-key-")
        if made and bedrock.KEY.encode() in base64.b64decode(signed):
            headers["authorization"] = f"Bearer {openai.KEY}"
        port = int(self.vendors[vendor].rpartition(":")[2])
        with closing(HTTPConnection("127.0.0.1", port)) as connection:
            connection.request(method, seen.path, body or None, headers)
            response = connection.getresponse()
            kept = {"content-type": "application/json"}
            for name in ("content-type", "x-skypilot-request-id"):
                kept |= {name: value} if (value := response.headers.get(name)) else {}
            return response.status, kept, response.read()


def _signed_in(host: str) -> bytes:
    if host.startswith("sts.us"):
        return ASSUMED.encode()
    if host.startswith("portal"):
        return json.dumps({"roleCredentials": {**AWS_KEYS, "expiration": 4102444800000}}).encode()
    if host.startswith("iam"):
        token = {"accessToken": vertex.KEY, "expireTime": "2100-01-01T00:00:00Z"}
        return json.dumps(token).encode()
    token = {"access_token": vertex.KEY, "expires_in": 3600, "token_type": "Bearer"}
    kind = "urn:ietf:params:oauth:token-type:access_token"
    return json.dumps({**token, "issued_token_type": kind}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    company: Company

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as http.server has it
        """Print nothing."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(headers["host"].partition(":")[0], self.path, headers)
        status, kept, content = self.company.answer(seen, self.command, body)
        self.send_response(status)
        for name, value in kept.items():
            self.send_header(name, value)
        self.send_header("x-amzn-requestid", "request-1")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - names of http.server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that do not trust the certificate hang up."""


@contextmanager
def company_network(folder: Path, vendors: dict[str, str]) -> Generator[Company]:
    """Serve a company's network while the body runs."""
    chain = _certificates(folder)
    company = Company(folder / "company-ca.pem", vendors)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    handler = type("Handler", (_Handler,), {"company": company})
    with ExitStack() as stack:
        front = stack.enter_context(_Server(("127.0.0.1", 0), handler))
        front.socket = context.wrap_socket(
            front.socket, server_side=True, do_handshake_on_connect=False
        )
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        company.url = f"https://127.0.0.1:{front.server_address[1]}"
        user = f"{USER}:{PASSWORD.replace('@', '%40').replace(' ', '%20')}"
        company.proxy = f"http://{user}@127.0.0.1:{listening.getsockname()[1]}"
        for target in (front.serve_forever, lambda: _accept(listening, company, front)):
            threading.Thread(target=target, daemon=True).start()
        stack.callback(front.shutdown)
        yield company


def _accept(listening: socket.socket, company: Company, front: _Server) -> None:
    with suppress(OSError):  # closed: the end
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_tunnel, args=(client, company, front), daemon=True).start()


def _tunnel(client: socket.socket, company: Company, front: _Server) -> None:
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with client, suppress(OSError), client.makefile("rb") as lines:
        method, _, rest = lines.readline().decode().partition(" ")
        heads = dict[str, str]()
        while line := lines.readline().strip():
            name, _, value = line.decode().partition(":")
            heads[name.lower()] = value.strip()
        if method != "CONNECT" or heads.get("proxy-authorization") != expected:
            status = b"407 Proxy Authentication Required" if method == "CONNECT" else b"403 No"
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            return
        company.tunnels.append(rest.partition(" ")[0])
        with socket.create_connection(front.server_address[:2]) as server:  # pyright: ignore[reportArgumentType] - IPv4's
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _certificates(folder: Path) -> Path:
    """Write the authority's certificate, and return the file with the server's chain and key."""
    now, year = datetime.now(UTC), timedelta(days=365)
    authority, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Company CA")])
    builder = x509.CertificateBuilder().issuer_name(name)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + year)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    usage = {
        **dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True),
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False),
        **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
    }
    root = (
        builder.subject_name(name)
        .public_key(authority.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority, hashes.SHA256())
    )
    hosts = [x509.DNSName(host) for host in (*VENDORS_BY_HOST, *SIGN_IN_HOSTS, "localhost")]
    names = x509.SubjectAlternativeName([*hosts, x509.IPAddress(ip_address("127.0.0.1"))])
    known = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    leaf = (
        builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(names, critical=False)
        .add_extension(known, critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "company-ca.pem").write_bytes(root.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem) + secret)
    return folder / "server.pem"
