"""Seals tokens with what only a login's own workers know. Redis keeps what comes out, and cannot open it."""

import hashlib
import os
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.secret import SecretStr

NONCE = 12
# 16 MB and some 50 ms for each guess at the password, once for us: whoever reads Redis could try them.
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 64}


class Sealer:
    """One login's key. `seal` names it, so that others see whose token it is without being able to open it."""

    def __init__(self, secret: SecretStr, context: str) -> None:
        """`context` keeps keys of the same secret apart: exchange, ledger, login."""
        derived = hashlib.scrypt(secret.get_secret_value().encode(), salt=context.encode(), **SCRYPT)
        self._box = AESGCM(derived[:32])
        self.seal = hashlib.sha256(derived[32:]).hexdigest()[:16]

    def close(self, token: SecretStr, revision: int) -> str:
        """Sealed for this revision only: an older token can't be passed off as a newer one."""
        nonce = os.urandom(NONCE)
        text = token.get_secret_value().encode()
        return b64encode(nonce + self._box.encrypt(nonce, text, str(revision).encode())).decode()

    def open(self, sealed: str, revision: int) -> SecretStr | None:
        """None if it is not ours, not of this revision, or was changed."""
        try:
            raw = b64decode(sealed, validate=True)
            text = self._box.decrypt(raw[:NONCE], raw[NONCE:], str(revision).encode())
        except (ValueError, InvalidTag):
            return None
        return SecretStr(text.decode())
