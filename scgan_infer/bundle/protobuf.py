"""A reader of untrusted protocol-buffer bytes.

A message is a sequence of fields, each a key (number << 3 | wire type) and a value:

| wire | value                              | read as                                        |
| ---- | ---------------------------------- | ---------------------------------------------- |
| 0    | varint, 7 bits a byte, low first   | int64                                          |
| 1, 5 | 8 or 4 bytes                       | the bytes                                      |
| 2    | varint length, then so many bytes  | text, bytes, a message, or numbers packed      |

A `Message` lists the fields that may occur. It is a finite tree, so nesting is bounded; each field
and each packed number costs one of `Reader.left`, so time is. Whatever does not fit (another field,
a cut value, a single field given twice, a length beyond the end) is a `MalformedError`: what two
parsers could read in two ways is not read at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIRES = {"int": VARINT, "fixed32": FIXED32, "fixed64": FIXED64}
SIZES = {FIXED32: 4, FIXED64: 8}
ABSENT = {"int": 0, "text": "", "bytes": b"", "fixed32": b"", "fixed64": b""}


class MalformedError(ValueError):
    """The bytes are not a message of the kind expected."""


class Field(NamedTuple):
    """A field that may occur, as one wire type writes it.

    Attributes:
        name: its key in the result.
        kind: "int", "fixed32", "fixed64", "text", "bytes" or the `Message` it holds.
        many: whether it may repeat; then its result is a list, or of fixed numbers one bytes
            object.
        packed: whether these bytes hold several numbers.
    """

    name: str
    kind: str | Message
    many: bool
    packed: bool


class Message:
    """A kind of message: its name, its fields by key, and the defaults of those that are absent."""

    def __init__(self, name: str, fields: str, *messages: Message) -> None:
        """Build from, say, "1 key text, 2 shift int*, 3 child Child"; * marks what may repeat."""
        self.name = name
        self.fields: dict[int, Field] = {}
        self.absent: dict[str, Any] = {}
        self.joined: set[str] = set()
        kinds = {message.name: message for message in messages}
        for number, field, word in (item.split() for item in fields.split(",")):
            many, word = word.endswith("*"), word.rstrip("*")
            wire = WIRES.get(word, BYTES)
            for key in {wire, BYTES} if many else {wire}:
                entry = Field(field, kinds.get(word, word), many, key != wire)
                self.fields[int(number) << 3 | key] = entry
            self.absent[field] = () if many and wire not in SIZES else ABSENT.get(word)
            if many and wire in SIZES:
                self.joined.add(field)


class Reader:
    """Reads messages until the fields and packed numbers seen add up to `limit`."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def read(
        self, data: bytes, message: Message, position: int = 0, end: int | None = None
    ) -> dict[str, Any]:
        """Return the fields of the message from `position` to `end`, by name.

        One that does not occur is 0, "", b"" or (), and a message None.
        """
        values: dict[str, Any] = message.absent.copy()
        seen: set[str] = set()
        fields, end = message.fields, len(data) if end is None else end
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise MalformedError("too many fields")
            key = data[position]
            position += 1
            if key > 0x7F:
                key, position = _varint(data, position - 1, end)
            if key not in fields:
                _refuse(message, key)
            name, kind, many, packed = fields[key]
            if name not in seen:
                seen.add(name)
                if many:
                    values[name] = []
            elif not many:
                raise MalformedError(f"{message.name} has two fields {name}")
            value: Any = SIZES.get(key & 7)
            if value is None:  # a number, or the length of what follows
                if position < end and data[position] < 0x80:
                    value, position = data[position], position + 1
                else:
                    value, position = _varint(data, position, end)
            if key & 7 != VARINT:
                first, position = position, position + value
                if not first <= position <= end:
                    raise MalformedError(f"{message.name}.{name} is cut short")
                if isinstance(kind, Message):
                    value = self.read(data, kind, first, position)
                elif kind == "text":
                    try:
                        value = data[first:position].decode()
                    except UnicodeDecodeError:
                        raise MalformedError(f"{message.name}.{name} is not UTF-8") from None
                elif packed and kind == "int":
                    values[name] += self._packed(data, first, position)
                    continue
                elif packed and value % SIZES[WIRES[kind]]:
                    raise MalformedError(f"{message.name}.{name} is cut short")
                else:
                    value = memoryview(data)[first:position]
            if many:
                values[name].append(value)
            else:
                values[name] = value
        for name in message.joined & seen:
            values[name] = b"".join(values[name])
        return values

    def _packed(self, data: bytes, position: int, end: int) -> list[int]:
        values = []
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise MalformedError("too many fields")
            value, position = _varint(data, position, end)
            values.append(value)
        return values


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise MalformedError("a number is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64:
                break
            return (value - 2**64 if value >= 2**63 else value), position
    raise MalformedError("a number is longer than 64 bits")


def _refuse(message: Message, key: int) -> NoReturn:
    for known, field in message.fields.items():
        if known >> 3 == key >> 3:
            raise MalformedError(f"{message.name}.{field.name} has wire type {key & 7}")
    raise MalformedError(f"field {key >> 3} of {message.name} is not allowed")
