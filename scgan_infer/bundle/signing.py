"""Who made a bundle: a detached Ed25519 signature of `bundle.json`, with all other files' SHA-256.

    openssl genpkey -algorithm ed25519 -out key.pem            keep this one
    openssl pkey -in key.pem -pubout -out public.pem           give this one away
    scgan export --sign key.pem                                writes bundle.sig, 64 bytes
    scgan verify BUNDLE --key public.pem
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in bundle.json -sigfile bundle.sig

A checksum says that a bundle is whole; a signature says that it is the one its maker signed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scgan_infer.bundle import FILE, MAX_MANIFEST, SIGNATURE, read
from scgan_infer.errors import ChecksumError, UsageError, install
from scgan_infer.files import write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

MAX_KEY = 2**16
BYTES = 64


def sign(folder: str | Path, key: Ed25519PrivateKey) -> Path:
    """Write the bundle's `bundle.sig`, complete or not at all, and return its path.

    Raises:
        ModelError: there is no bundle.
        DataError: the folder can't be written.
    """
    folder = Path(folder)
    signature = key.sign(read(folder, FILE, MAX_MANIFEST))
    write_bytes(folder / SIGNATURE, signature)
    return folder / SIGNATURE


def check(folder: str | Path, key: Ed25519PublicKey) -> bytes:
    """Return the bytes of `bundle.json` that the key's owner signed; none is parsed before.

    Raises:
        ModelError: there is no bundle.
        ChecksumError: there is no signature, or it is not this key's of these bytes.
    """
    from cryptography.exceptions import InvalidSignature

    folder = Path(folder)
    data = read(folder, FILE, MAX_MANIFEST)
    if not os.path.lexists(folder / SIGNATURE):
        raise ChecksumError(
            f"{folder / SIGNATURE} is missing: the bundle is not signed, do not trust it"
        )
    try:
        key.verify(read(folder, SIGNATURE, BYTES), data)
    except InvalidSignature:
        raise ChecksumError(
            f"{folder / SIGNATURE} is not this key's signature of {FILE}: do not trust the bundle"
        ) from None
    return data


def load_key(path: str | Path, word: Literal["private", "public"]) -> Any:
    """Read a key, PEM without a password.

    Raises:
        UsageError: no such file, another kind of key, or `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError(f"signatures need cryptography ({error}): {install('sign')}") from None
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY)
        if word == "public":
            key: Any = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_pem_private_key(data, None)
    except OSError as error:
        raise UsageError(f"{path}: the {word} key can't be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        why = str(error).partition(".")[0]
        raise UsageError(f"{path}: not a {word} key in PEM without a password ({why})") from None
    if not isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        raise UsageError(
            f"{path}: not an Ed25519 key; make one with openssl genpkey -algorithm ed25519"
        )
    return key
