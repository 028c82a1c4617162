"""Writes what is installed in an image, Python's packages and Debian's, to standard output as CycloneDX."""

import json
import re
import subprocess
from importlib.metadata import distributions


def _component(kind: str, name: str, version: str) -> dict[str, str]:
    purl = f"pkg:{kind}/{name}@{version.replace('+', '%2B')}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _python() -> list[dict[str, str]]:
    # As package URLs want names.
    found = {(re.sub(r"[-_.]+", "-", each.name).lower(), each.version) for each in distributions()}
    return [_component("pypi", name, version) for name, version in sorted(found)]


def _debian() -> list[dict[str, str]]:
    listing = subprocess.run(
        ["/usr/bin/dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [_component("deb/debian", *line.split()) for line in listing.splitlines()]


if __name__ == "__main__":
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": _python() + _debian()}
    print(json.dumps(bill, indent=1))
