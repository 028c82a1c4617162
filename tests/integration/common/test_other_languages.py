"""A client that is not Python's and has no stubs, through reflection alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NODE_FOLDER = Path(__file__).parent.parent.parent / "node"
ECHO = [sys.executable, str(Path(__file__).parent / "echo_server.py")]

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (NODE_FOLDER / "node_modules").exists(),
    reason="needs Node.js and tests/node's packages (npm install)",
)


def call_from_node(server: Any, path: str, tmp_path: Path, **changed: str) -> dict[str, Any]:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(changed.get("certificate", server.registration["certificate"]))
    arguments = [server.target, str(certificate), server.registration["tlsName"]]
    arguments += [changed.get("token", server.token), path]
    result = subprocess.run(
        ["node", str(NODE_FOLDER / "detect.mjs"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout, result.stderr
    return dict(json.loads(result.stdout))


def test_node_finds_and_calls_the_service_through_reflection(start_server: Any, tmp_path: Path) -> None:
    server = start_server(ECHO)
    answer = call_from_node(server, "x", tmp_path)
    assert "amela.vad.v1.VadService" in answer["services"]
    assert answer["response"]["no_speech"] is True
    refused = call_from_node(server, "fail:PATH_FORBIDDEN", tmp_path)
    assert refused["code"] == 7  # PERMISSION_DENIED
