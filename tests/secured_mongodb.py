"""MongoDB that encrypts, and asks everyone who they are."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo import errors as mongo

from devstack.mongodb import REPLICA_SET, MongoDB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.certificates import Authority, Certificate

__all__ = ["SecuredMongoDB"]

ADMIN, ADMIN_PASSWORD = "admin", secrets.token_urlsafe(12)


class SecuredMongoDB(MongoDB):
    """TLS alone, and nobody may do anything but by a role: SCRAM and X.509."""

    name = "secured-mongodb"

    def __init__(self, folder: Path, authority: Authority, *, port: int) -> None:
        self.authority = authority
        key = folder / "mongodb.key"
        key.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
        key.chmod(0o600)
        server = authority.sign("mongodb")
        tls = (
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(server.both)),
            *("--tlsCAFile", str(authority.file), "--tlsAllowConnectionsWithoutCertificates"),
            *("--keyFile", str(key)),
        )
        super().__init__(folder, port=port, more=tls)

    @property
    def direct_url(self) -> str:
        """The encrypted address, for the administrator."""
        return self.address(ADMIN, ADMIN_PASSWORD)

    @property
    def url(self) -> str:
        """The encrypted address, for the administrator."""
        return self.direct_url

    def address(
        self,
        user: str | None,
        password: str = "",
        *,
        port: int | None = None,
        authority: Path | None = None,
        more: str = "",
    ) -> str:
        """Return the connection string of a user, or of nobody."""
        who = f"{quote_plus(user)}:{quote_plus(password)}@" if user else ""
        authority = authority or self.authority.file
        return (
            f"mongodb://{who}127.0.0.1:{port or self.port}/?directConnection=true&tls=true"
            f"&tlsCAFile={quote_plus(str(authority))}{'&authSource=admin' if user else ''}{more}"
        )

    def by_certificate(self, certificate: Certificate) -> str:
        """Return the connection string of whom a certificate is for."""
        more = f"&tlsCertificateKeyFile={quote_plus(str(certificate.both))}"
        return self.address(None, more=f"{more}&authMechanism=MONGODB-X509")

    def answers(self) -> bool:
        """Say whether it takes writes; initiates the replica set and makes the administrator."""
        nobody = self.address(None)
        with MongoClient[Any](nobody, serverSelectionTimeoutMS=500) as client:
            try:
                if not client.admin.command("hello").get("isWritablePrimary"):
                    # What nobody may do is allowed from this machine, as long as there is no user.
                    host = f"127.0.0.1:{self.port}"
                    config = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]}
                    client.admin.command("replSetInitiate", config)
                    return False
                client.admin.command("createUser", ADMIN, pwd=ADMIN_PASSWORD, roles=["root"])
            except mongo.PyMongoError:
                pass
        with MongoClient[Any](self.url, serverSelectionTimeoutMS=500) as client:
            try:
                client.admin.command("usersInfo")
            except mongo.PyMongoError:
                return False
        return True

    def make_role(self, name: str, privileges: Sequence[Any]) -> None:
        """Make a role that has these privileges and no other."""
        with MongoClient[Any](self.url) as client:
            client.admin.command("createRole", name, privileges=list(privileges), roles=[])

    def make_user(self, name: str, password: str, roles: Sequence[Any]) -> None:
        """Make a user with a password."""
        with MongoClient[Any](self.url) as client:
            client.admin.command("createUser", name, pwd=password, roles=list(roles))

    def make_certified_user(self, certificate: Certificate, roles: Sequence[Any]) -> None:
        """Make a user who is known by a certificate."""
        with MongoClient[Any](self.url) as client:
            client["$external"].command("createUser", certificate.subject, roles=list(roles))
