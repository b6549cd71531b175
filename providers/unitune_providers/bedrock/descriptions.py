"""AWS's descriptions of its services, as botocore reads them, without what nobody asks here.

botocore keeps what it has read for as long as a client lives: a service with all its prose, and the
endpoints of some three hundred services. `Lean` reads the same files and leaves both out, which is
more than half of what a process holds for Bedrock and S3; and the patterns of texts, which botocore
never looks at. Nothing else is outside of ASCII, so a file is read with a byte for each character,
and not with the two that one dash of its prose would make of all.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader

FILES = {".json": open, ".json.gz": gzip.open}
"""How a description is opened, by the end of its name."""
ASKED = ("bedrock", "oidc", "portal.sso", "s3", "sts")
"""Services whose endpoints are kept, by AWS's prefixes: ours, and those of AWS's ways to sign in.
Of any other botocore makes the endpoint by the rule that most follow."""


class Lean(JSONFileLoader):
    """Reads descriptions without prose, patterns and other services' endpoints."""

    def load_file(self, file_path: str) -> Any:
        """Return what a file describes, or None when there is none.

        Args:
            file_path: Without the end of its name.
        """
        for end, opened in FILES.items():
            if Path(file_path + end).is_file():
                with opened(file_path + end, "rt", encoding="latin-1") as file:
                    return json.load(file, object_hook=_lean)
        return None


def _lean(described: dict[str, Any]) -> dict[str, Any]:
    if isinstance(described.get("documentation"), str):
        described["documentation"] = ""  # not left out: botocore counts on some
    if isinstance(described.get("pattern"), str):
        del described["pattern"]
    if "partition" in described and "services" in described:
        services = described["services"]
        described["services"] = {name: services[name] for name in ASKED if name in services}
    return described
