"""The long description that an index shows: the README without what only a checkout has, pictures and other files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ELSEWHERE = r"\((?!https?:)[^)]*\)"  # an address within the checkout


class CustomMetadataHook(MetadataHookInterface):
    """See the module; hatchling finds it by this name."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the wheel's metadata."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        text = re.sub(rf"!\[[^\]]*\]{ELSEWHERE}\n*", "", text)
        text = re.sub(rf"\[([^\]]*)\]{ELSEWHERE}", r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
