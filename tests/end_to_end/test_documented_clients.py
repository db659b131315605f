"""The examples of the clients' page, run one after the other against one server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, RunningServer
from tests.end_to_end.test_clients import NODE, clients

__all__ = ["clients"]

PAGE = (ROOT / "app" / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|js)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

NOTEBOOK = json.loads((ROOT / "app" / "docs" / "audience.ipynb").read_text())

COST = r',"extensions":\{"cost":\{"requested":\d+,"limit":200000\}\}\}'

OUTPUTS = (
    r'\{"data":\{"viewer":\{"organisation":"default","sandbox":"clients-page"\}\}' + COST,
    r'\{"data":\{"uploadBatch":\{"batch":\{"rowCount":2\},"rejected":\[\],"errors":\[\]\}\}' + COST,
    r'.*"status":"SUCCEEDED","progress":\{"fraction":1\.0,"sequence":\d+\}\}\}.*\}\s+event: complete\s+data:',
    r"\{'ok': True, 'diagnostics': \[.*\]\}",
    r"shape: \(1, 3\).*REALIZED.*crm:00001.*",
    r"(.*\n)?SUCCEEDED 1(\.0)?",
    r"(.*\n)?SUCCEEDED",
    r"(.*\n)?SUCCEEDED",
    r"curl over 500 1",
    r"curl over 500 1",
    r"clients-page",
)
"""What each example prints, in their order."""


def test_every_example_has_its_output() -> None:
    assert [language for language, _ in BLOCKS] == ["sh"] * 3 + ["python"] * 3 + ["js"] * 5


@pytest.mark.timeout(240)
def test_the_examples_run_in_their_order(running_server: RunningServer, clients: Path, tmp_path: Path) -> None:
    """In a sandbox of their own, by a header that each is given besides; then the notebook, cell by cell."""
    for (language, code), output in zip(BLOCKS, OUTPUTS, strict=True):
        code = code.replace("127.0.0.1:8000", running_server.url.removeprefix("http://"))
        if language == "sh":
            code = code.replace("curl -s", "curl -H 'x-sandbox-name: clients-page' -s")
            command = ["bash", "-euo", "pipefail", "-c", code]
        elif language == "js":
            code = code.replace('"prod"', '"clients-page"')
            command = [str(NODE), "--input-type=module", "--eval", code]
        else:
            code = code.replace(
                '/graphql", timeout=60', "/graphql\", timeout=60, headers={'x-sandbox-name': 'clients-page'}"
            )
            code = re.sub(r"(ws://[^\"]*/graphql\")", r"\1, init_payload={'x-sandbox-name': 'clients-page'}", code)
            command = [sys.executable, "-c", code]
        environment = {**os.environ, "POLARS_FMT_STR_LEN": "50"}
        folder = clients if language == "js" else tmp_path
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, env=environment)
        assert done.returncode == 0, (code, done.stderr)
        assert re.fullmatch(output, done.stdout.strip(), re.DOTALL), (code, done.stdout, done.stderr)

    code = "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
    environment = {
        **os.environ,
        "GATEWAY_URL": running_server.url,
        "SANDBOX": "clients-page",
        "AUDIENCE": "curl over 500",
    }
    code += "\nprint(frame['profileId'].to_list(), frame.columns, by_day['people'].to_list())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['crm:00001'] ['profileId', 'status', 'lastQualificationTime'] [1]"
