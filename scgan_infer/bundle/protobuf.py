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
        many: whether it may repeat; then its result is a list, or of fixed numbers one bytes object.
        packed: whether these bytes hold several numbers.
    """

    name: str
    kind: str | Message
    many: bool
    packed: bool


class Message:
    """A kind of message: its name, its fields by key, and what stands for those that do not occur."""

    def __init__(self, name: str, fields: str, *messages: Message) -> None:
        """Build from a list such as "1 key text, 2 shift int*, 3 child Child"; * marks what may repeat."""
        self.name = name
        self.fields: dict[int, Field] = {}
        self.absent: dict[str, Any] = {}
        self.joined: set[str] = set()
        kinds = {message.name: message for message in messages}
        for number, field, word in (item.split() for item in fields.split(",")):
            many, word = word.endswith("*"), word.rstrip("*")
            wire = WIRES.get(word, BYTES)
            for key in {wire, BYTES} if many else {wire}:
                read = Field(field, kinds.get(word, word), many, key != wire)
                self.fields[int(number) << 3 | key] = read
            self.absent[field] = () if many and wire not in SIZES else ABSENT.get(word)
            if many and wire in SIZES:
                self.joined.add(field)


class Reader:
    """Reads messages until the fields and packed varints seen add up to `limit`."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def read(self, data: memoryview, message: Message) -> dict[str, Any]:
        """Return the fields by name; one that does not occur is 0, "", b"" or (), and a message None."""
        values: dict[str, Any] = message.absent.copy()
        seen: set[str] = set()
        fields, position, end = message.fields, 0, len(data)
        while position < end:
            key, position = self._varint(data, position)
            field = fields.get(key)
            if field is None:
                _refuse(message, key)
            name, kind = field.name, field.kind
            if name not in seen:
                seen.add(name)
                if field.many:
                    values[name] = []
            elif not field.many:
                raise MalformedError(f"{message.name} has two fields {name}")
            value: Any
            if key & 7 == VARINT:
                value, position = self._varint(data, position)
            else:
                size = SIZES.get(key & 7)
                if size is None:
                    size, position = self._varint(data, position)
                if not 0 <= size <= end - position:
                    raise MalformedError(f"{message.name}.{name} is cut short")
                value, position = data[position : position + size], position + size
                if isinstance(kind, Message):
                    value = self.read(value, kind)
                elif kind == "text":
                    try:
                        value = str(value, "utf-8")
                    except UnicodeDecodeError:
                        raise MalformedError(f"{message.name}.{name} is not UTF-8") from None
                elif field.packed and kind == "int":
                    values[name] += self._packed(value)
                    continue
                elif field.packed and size % SIZES[WIRES[kind]]:
                    raise MalformedError(f"{message.name}.{name} is cut short")
            if field.many:
                values[name].append(value)
            else:
                values[name] = value
        for name in message.joined & seen:
            values[name] = b"".join(values[name])
        return values

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
        if position < len(data) and data[position] < 0x80:
            return data[position], position + 1
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


def _refuse(message: Message, key: int) -> NoReturn:
    for known, field in message.fields.items():
        if known >> 3 == key >> 3:
            raise MalformedError(f"{message.name}.{field.name} has wire type {key & 7}")
    raise MalformedError(f"field {key >> 3} of {message.name} is not allowed")
