"""Make what docker-compose.secure.yml mounts: passwords, a token and certificates.

They go to deploy/compose/secrets, or to the folder that is named. Needs openssl. What is there
already is kept, so that running it again changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]

HERE = Path(__file__).parent / "secrets"
SERVERS = ("mongodb", "pulsar", "redis", "flower")
DAYS = "825"


def main(folder: Path = HERE) -> None:
    """Write all files that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    _certificates(folder)
    redis = _once(folder / "redis-password", _password())
    mongodb = _once(folder / "mongodb-password", _password())
    _once(folder / "mongodb-root-password", _password())
    _once(folder / "flower-password", _password())
    # MongoDB's members know each other by it; at most 1024 characters of base64.
    _once(folder / "mongodb-keyfile", base64.b64encode(secrets.token_bytes(512)).decode())
    _once(
        folder / "mongodb-uri",
        f"mongodb://app:{mongodb}@mongodb:27017/?replicaSet=rs0&authSource=admin&tls=true"
        "&tlsCAFile=/run/secrets/ca.pem",
    )
    _once(
        folder / "redis-url",
        f"rediss://app:{redis}@redis:6379/0?ssl_ca_certs=/run/secrets/ca.pem",
    )
    digest = hashlib.sha256(redis.encode()).hexdigest()
    _once(folder / "redis-users.acl", f"user default off\nuser app on #{digest} ~* &* +@all\n")
    key = _once(folder / "pulsar-token-key", secrets.token_urlsafe(32))
    token = _once(folder / "pulsar-token", _token("app", key.encode()))
    _once(folder / "pulsar-header", f"Authorization: Bearer {token}")
    print(f"Secrets are in {folder}; keep them out of version control.")  # noqa: T201


def _password() -> str:
    return secrets.token_urlsafe(24)


def _once(path: Path, text: str) -> str:
    if not path.exists():
        path.write_text(text)
        # Compose mounts them with this owner and mode, and each image has a user of its own.
        path.chmod(0o644)
    return path.read_text()


def _token(subject: str, key: bytes) -> str:
    parts = [_url(json.dumps(p).encode()) for p in ({"alg": "HS256"}, {"sub": subject})]
    signature = hmac.new(key, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _url(signature)])


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _certificates(folder: Path) -> None:
    ca, key = folder / "ca.pem", folder / "ca-key.pem"
    if not ca.exists():
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=postroom",
            "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign",
            "-keyout", str(key), "-out", str(ca),
        )  # fmt: skip
    for name in SERVERS:
        if not (folder / f"{name}.pem").exists():
            _server(folder, name)


def _server(folder: Path, name: str) -> None:
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    key, certificate = folder / f"{name}-key.pem", folder / f"{name}-cert.pem"
    extensions.write_text(
        f"subjectAltName=DNS:{name},DNS:localhost\n"
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
        # Python 3.13 refuses a certificate without these.
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    _openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", str(key), "-out", str(request),
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(folder / "ca.pem"),
        "-CAkey", str(folder / "ca-key.pem"), "-CAcreateserial", "-days", DAYS,
        "-extfile", str(extensions), "-out", str(certificate),
    )  # fmt: skip
    # mongod wants both in one file.
    (folder / f"{name}.pem").write_text(certificate.read_text() + key.read_text())
    for made in (key, certificate, folder / f"{name}.pem"):
        made.chmod(0o644)
    request.unlink()
    extensions.unlink()


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
