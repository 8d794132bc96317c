"""A reader of protocol-buffer bytes that nobody has vouched for.

A message is a sequence of fields, each a key (number << 3 | wire type) and a value:

| wire | value                              | read as                                        |
| ---- | ---------------------------------- | ---------------------------------------------- |
| 0    | varint, 7 bits a byte, low first   | int64                                          |
| 1, 5 | 8 or 4 bytes                       | the bytes                                      |
| 2    | varint length, then so many bytes  | text, bytes, a message, or numbers packed      |

A `Message` lists the fields that may occur. It is a finite tree, so nesting is bounded; each field and each
packed varint costs one of `Reader.left`, so time is. Whatever does not fit (another field, a cut value, a
single field given twice, a length beyond the end) is a `MalformedError`: what two parsers could read in two
ways is not read at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {"fixed32": 4, "fixed64": 8}


class MalformedError(ValueError):
    """The bytes are not a message of the kind expected."""


@dataclass(frozen=True)
class Field:
    """A field that may occur.

    Attributes:
        name: its key in the result.
        kind: "int", "fixed32", "fixed64", "text", "bytes" or the `Message` it holds.
        many: whether it may repeat; then its result is a list (of "fixed" numbers: one bytes object).
    """

    name: str
    kind: str | Message
    many: bool = False


@dataclass(frozen=True)
class Message:
    """A kind of message: its name, and its fields by number; other fields are refused."""

    name: str
    fields: dict[int, Field]

    @classmethod
    def of(cls, name: str, fields: str, *messages: Message) -> Message:
        """Build from a list such as "1 key text, 2 shift int*, 3 child Child"; * marks what may repeat."""
        kinds = {message.name: message for message in messages}
        listed = {}
        for number, field, kind in (item.split() for item in fields.split(",")):
            many, kind = kind.endswith("*"), kind.rstrip("*")
            listed[int(number)] = Field(field, kinds.get(kind, kind), many)
        return cls(name, listed)


class Reader:
    """Reads messages until the fields and packed varints seen add up to `limit`."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def read(self, data: memoryview, message: Message) -> dict[str, Any]:
        """Return the fields by name; one that does not occur is 0, "", b"" or [], and a message None."""
        found: dict[str, Any] = {}
        position, end = 0, len(data)
        while position < end:
            key, position = self._varint(data, position)
            field, wire = message.fields.get(key >> 3), key & 7
            if field is None:
                raise MalformedError(f"field {key >> 3} of {message.name} is not allowed")
            if field.name in found and not field.many:
                raise MalformedError(f"{message.name} has two fields {field.name}")
            value: int | memoryview
            if wire == VARINT:
                value, position = self._varint(data, position)
            else:
                if wire == BYTES:
                    size, position = self._varint(data, position)
                else:
                    size = {FIXED32: 4, FIXED64: 8}.get(wire, end + 1)
                if not 0 <= size <= end - position:
                    raise MalformedError(
                        f"{message.name}.{field.name} is cut short or of an unknown wire type"
                    )
                value, position = data[position : position + size], position + size
            values = self._values(value, wire, field, message)
            if field.many:
                found.setdefault(field.name, []).extend(values)
            else:
                (found[field.name],) = values
        for field in message.fields.values():
            if field.many and field.kind in ("fixed32", "fixed64"):
                found[field.name] = b"".join(found.get(field.name, []))
            elif field.name not in found:
                found[field.name] = [] if field.many else _empty(field.kind)
        return found

    def _values(
        self, value: int | memoryview, wire: int, field: Field, message: Message
    ) -> list[Any]:
        if wire == VARINT and field.kind == "int":
            return [value]
        if wire == BYTES and isinstance(value, memoryview):
            if isinstance(field.kind, Message):
                return [self.read(value, field.kind)]
            if field.kind == "text":
                try:
                    return [bytes(value).decode()]
                except UnicodeDecodeError:
                    raise MalformedError(f"{message.name}.{field.name} is not UTF-8") from None
            if field.kind == "bytes":
                return [value]
            if field.many and field.kind == "int":
                return self._packed(value)
            if field.many and len(value) % SIZES[field.kind] == 0:
                return [value]
        elif (wire, field.kind) in ((FIXED32, "fixed32"), (FIXED64, "fixed64")):
            return [value]
        raise MalformedError(f"{message.name}.{field.name} has wire type {wire}")

    def _packed(self, data: memoryview) -> list[int]:
        values, position = [], 0
        while position < len(data):
            value, position = self._varint(data, position)
            values.append(value)
        return values

    def _varint(self, data: memoryview, position: int) -> tuple[int, int]:
        self.left -= 1
        if self.left < 0:
            raise MalformedError("too many fields")
        value = 0
        for shift in range(0, 70, 7):
            if position >= len(data):
                raise MalformedError("a number is cut short")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 2**64:
                    break
                return (value - 2**64 if value >= 2**63 else value), position
        raise MalformedError("a number is longer than 64 bits")


def _empty(kind: str | Message) -> int | str | bytes | None:
    if isinstance(kind, Message):
        return None
    return 0 if kind == "int" else "" if kind == "text" else b""
