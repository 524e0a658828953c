"""Files written atomically: a reader, or a resumed run, sees the old content or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from marec_env.errors import RunError

_CHUNK = 1 << 20  # bytes read at a time while hashing
_TOKEN = 6  # random bytes in a temporary file's name; writers of one file do not meet


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace ``path`` by ``content``; its folder is made if missing.

    Raises:
        RunError: the folder cannot be written or the disk is full; ``path`` keeps what it held.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(_TOKEN)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile.mkstemp: it hides the file from the group whatever the umask says.
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error


def write_text(path: str | Path, content: str) -> None:
    """Replace ``path`` by UTF-8 ``content``; errors as in :func:`write_bytes`."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Replace ``path`` by ``content`` as indented JSON; NaN, which JSON lacks, is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(path: str | Path, shape: Any, purpose: str = "") -> Any:
    """Return a JSON file's content, checked.

    Args:
        path: of the file.
        shape: the type that it must have, as pydantic takes it, for example ``dict[str, int]``.
        purpose: ends the message of an error: what to do about it.

    Raises:
        RunError: the file is missing, cannot be read, or has another shape.
    """
    from pydantic import TypeAdapter, ValidationError

    cure = f"; {purpose}" if purpose else ""
    try:
        return TypeAdapter(shape).validate_python(json.loads(Path(path).read_bytes()))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing{cure}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise RunError(f"{path}: {place}: {first['msg']}{cure}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} cannot be read ({reason}){cure}") from error
