#!/usr/bin/env python3
"""One TLS handshake by OpenSSL, told on standard output.

usage: foreign_tls.py HOST:PORT CA-FILE VERSION ALPN [CERTIFICATE-FILE KEY-FILE]

VERSION is 1.2 or 1.3, ALPN a protocol or "". Prints `ok VERSION ALPN` once the server has also
let a byte through or stayed silent for a while, else `refused REASON`.
"""
import socket
import ssl
import sys

SILENCE_SECONDS = 0.5  # a TLS 1.3 server judges the client's certificate after the handshake


def main():
    address, ca_file, version, alpn = sys.argv[1:5]
    context = ssl.create_default_context(cafile=ca_file)
    wanted = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    context.minimum_version = context.maximum_version = wanted
    if alpn:
        context.set_alpn_protocols([alpn])
    if len(sys.argv) > 5:
        context.load_cert_chain(*sys.argv[5:7])
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=30) as tcp, \
                context.wrap_socket(tcp, server_hostname=host) as tls:
            tls.settimeout(SILENCE_SECONDS)
            try:
                if tls.recv(1) == b"":
                    return "refused closed"
            except TimeoutError:
                pass
            return f"ok {tls.version()} {tls.selected_alpn_protocol() or ''}".strip()
    except (ssl.SSLError, OSError) as error:
        return f"refused {getattr(error, 'reason', None) or error}"


if __name__ == "__main__":
    print(main())
