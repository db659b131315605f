"""The examples of the clients' page, run one after the other against one server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, RunningServer

PAGE = (ROOT / "app" / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

COST = r',"extensions":\{"cost":\{"requested":\d+,"limit":200000\}\}\}'

OUTPUTS = (
    r'\{"data":\{"viewer":\{"organisation":"default","sandbox":"clients-page"\}\}' + COST,
    r'\{"data":\{"uploadBatch":\{"batch":\{"rowCount":2\},"rejected":\[\],"errors":\[\]\}\}' + COST,
    r'.*"status":"SUCCEEDED","progress":\{"fraction":1\.0,"sequence":\d+\}\}\}.*\}\s+event: complete\s+data:',
    r"\{'ok': True, 'diagnostics': \[.*\]\}",
    r"shape: \(1, 3\).*REALIZED.*crm:00001.*",
    r"(.*\n)?SUCCEEDED 1(\.0)?",
)
"""What each example prints, in their order."""


def test_every_example_has_its_output() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "sh", "python", "python", "python"]


@pytest.mark.timeout(240)
def test_the_examples_run_in_their_order(running_server: RunningServer, tmp_path: Path) -> None:
    """In a sandbox of their own, by a header that each is given besides."""
    for (language, code), output in zip(BLOCKS, OUTPUTS, strict=True):
        code = code.replace("127.0.0.1:8000", running_server.url.removeprefix("http://"))
        if language == "sh":
            code = code.replace("curl -s", "curl -H 'x-sandbox-name: clients-page' -s")
            command = ["bash", "-euo", "pipefail", "-c", code]
        else:
            code = code.replace(
                '/graphql", timeout=60', "/graphql\", timeout=60, headers={'x-sandbox-name': 'clients-page'}"
            )
            code = re.sub(r"(ws://[^\"]*/graphql\")", r"\1, init_payload={'x-sandbox-name': 'clients-page'}", code)
            command = [sys.executable, "-c", code]
        environment = {**os.environ, "POLARS_FMT_STR_LEN": "50"}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=environment)
        assert done.returncode == 0, (code, done.stderr)
        assert re.fullmatch(output, done.stdout.strip(), re.DOTALL), (code, done.stdout, done.stderr)
