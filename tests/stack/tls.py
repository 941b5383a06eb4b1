"""Makes a throw-away CA, a server certificate and a client certificate.

Runs in the stack's virtual environment, which has `cryptography`: one tool less to
install than with a command line program. Usage: tls.py DIRECTORY SERVER_NAME
"""

from __future__ import annotations

import ipaddress
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """A CA that signs leaf certificates for one day."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Tenure test stack CA")
        # Name constraints and the like are left out: it lives for one test run.
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file_stem: str, common_name: str, purpose: x509.ObjectIdentifier,
        alternative: list[x509.GeneralName],
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(_name(common_name), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(self._directory / f"{file_stem}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        _write(
            self._directory / f"{file_stem}-key.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, key_cert_sign=sign_certificates, crl_sign=sign_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def main() -> None:
    directory, server_name = Path(sys.argv[1]), sys.argv[2]
    authority = Authority(directory)
    authority.issue(
        "server", server_name, ExtendedKeyUsageOID.SERVER_AUTH,
        [x509.DNSName(server_name), x509.DNSName("localhost"),
         x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
    )
    authority.issue(
        "client", "tenure", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("tenure.test")]
    )


if __name__ == "__main__":
    main()
