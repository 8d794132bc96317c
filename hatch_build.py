"""What an index shows: links to the project's home, if it has one, and the README as long description.

Pictures and other files of the checkout have addresses under the home (`home` in pyproject.toml); without one they
are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ELSEWHERE = r"\((?!https?:)([^)]*)\)"  # an address within the checkout
URLS = {"Documentation": "README.md", "Changelog": "CHANGELOG.md"}


class CustomMetadataHook(MetadataHookInterface):
    """See the module; hatchling finds it by this name."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add description and links to the wheel's metadata."""
        home = self.config["home"]
        text = (Path(self.root) / "README.md").read_text("utf-8")
        picture = rf"![\1]({home}/raw/HEAD/\2)\n\n" if home else ""
        text = re.sub(rf"!\[([^\]]*)\]{ELSEWHERE}\n*", picture, text)
        link = rf"[\1]({home}/blob/HEAD/\2)" if home else r"\1"
        text = re.sub(rf"\[([^\]]*)\]{ELSEWHERE}", link, text)
        metadata["urls"] = {"Homepage": home, "Issues": f"{home}/issues"} if home else {}
        for name, file in URLS.items() if home else ():
            if (Path(self.root) / file).is_file():
                metadata["urls"][name] = f"{home}/blob/HEAD/{file}"
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
