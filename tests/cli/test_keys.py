"""`key` and `audit` as processes."""

from pathlib import Path

import pytest

from tests.cli.test_commands import segmentation


@pytest.mark.timeout(600)
def test_keys_are_created_listed_and_revoked_and_that_is_recorded(tmp_path: Path) -> None:
    created = segmentation(tmp_path, "key", "create", "nightly", "-p", "read", "-p", "jobs:run", "-s", "dev")
    assert created.returncode == 0, created.stderr
    secret = created.stdout.strip()
    assert secret.startswith("sgk_")
    assert len(secret) == len("sgk_") + 43
    key_id, *others = segmentation(tmp_path, "key", "list").stdout.rstrip("\n").split("\t")
    assert others == [f"{secret[:12]}…", "good", "jobs:run,read", "dev", "nightly"]
    assert segmentation(tmp_path, "key", "revoke", key_id).stdout == f"{secret[:12]}… is revoked\n"
    wrong = segmentation(tmp_path, "key", "create", "k", "-p", "fly")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "'fly' is not a permission: write read, write, run or admin, or one like audiences:read" in wrong.stderr
    events = [line.split("\t")[1:5] for line in segmentation(tmp_path, "audit").stdout.splitlines()]
    assert events == [
        ["cli", "key create", "-", "INVALID_INPUT"],
        ["cli", "key revoke", key_id, "OK"],
        ["cli", "key create", key_id, "OK"],
    ]
    for file in (tmp_path / "data").glob("segmentation.db*"):
        assert secret.encode() not in file.read_bytes(), "only its digest is stored"
