"""The commands as processes: what they print, how they end, and what they say of bad input."""

import json
import os
import re
import shlex
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.demo import AUDIENCES
from app.engine.run.adhoc import evaluate_trial, load_trial
from tests.support import processes

ROOT = Path(__file__).parents[2]
PEOPLE = '{"_id": "00001", "income": 10}\n{"_id": "00002", "income": 3}\n'
EVENTS = '{"profileId": "00002", "timestamp": "2026-01-01T00:00:00Z", "dollars": 7}\n'


def segmentation(
    folder: Path, *arguments: str, input: str | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {"PYTHONPATH": str(ROOT), "SEGMENTATION_DATA_DIR": str(folder / "data"), **settings}
    return processes.run(*arguments, cwd=folder, environment=environment, input=input)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people.ndjson").write_text(PEOPLE)
    (tmp_path / "events.ndjson").write_text(EVENTS)
    return tmp_path


def test_expressions_are_tried_on_files(folder: Path) -> None:
    files = ("--profiles", "people.ndjson", "--events", "events.ndjson")
    ended = segmentation(folder, "pql", "eval", *files, "income > 1", "xEvent.sum(dollars) > 5", "incme > 1")
    assert ended.stdout.splitlines() == [
        "income > 1\t00001 00002",
        "xEvent.sum(dollars) > 5\t00002",
        "ERROR 1:1 unknown_field there is no field or variable `incme` here; did you mean `income`?",
    ]
    assert ended.returncode == 1


@pytest.mark.parametrize("option", ["--organisation", "--sandbox"])
def test_a_tenant_with_a_bad_name_is_refused(folder: Path, option: str) -> None:
    for name in (" ", "x" * 129, "a\tb"):
        ended = segmentation(folder, "dataset", "list", option, name, COLUMNS="1000")
        assert ended.returncode == 2
        assert "it must be 1 to 128 printable characters, or be left out" in ended.stderr
    assert not (folder / "data").exists()


def test_an_expression_that_fails_stops_no_other(folder: Path) -> None:
    (folder / "people.ndjson").write_text(json.dumps({"_id": "a", "xs": list(range(500))}))
    files = ("--profiles", "people.ndjson")
    ended = segmentation(
        folder, "pql", "eval", *files, "xs.map(^xs.map(^^xs)).count() > 0", "xs = []", "xs.count() = 500"
    )
    failed, *answered = ended.stdout.splitlines()
    assert failed.startswith("ERROR 1:1 evaluation the expression pairs the elements of arrays 125,000,000 times")
    assert answered == ["xs = []\t", "xs.count() = 500\ta"]
    assert ended.returncode == 1


def test_expressions_come_from_standard_input_too(folder: Path) -> None:
    ended = segmentation(folder, "pql", "eval", "--profiles", "people.ndjson", input="income > 1\n\nnot (income > 5)\n")
    assert ended.stdout == "income > 1\t00001 00002\nnot (income > 5)\t00002\n"
    assert ended.returncode == 0


def test_a_command_is_a_process_that_a_signal_ends(folder: Path) -> None:
    reading, writing = os.pipe()
    with (folder / "printed").open("wb") as log:
        command = processes.start(
            ["pql", "eval", "--profiles", "people.ndjson"], folder, {}, stdout=log, stderr=log, stdin=reading
        )
    os.close(reading)
    assert command.poll() is None
    command.kill()
    assert command.wait() == command.poll() == -signal.SIGKILL
    os.close(writing)
    assert (folder / "printed").read_bytes() == b""


def test_expressions_are_checked(folder: Path) -> None:
    ended = segmentation(folder, "pql", "check", "--profiles", "people.ndjson", "((income>1))", "income >")
    lines = ended.stdout.splitlines()
    assert lines[0] == "income > 1"
    assert lines[1].startswith("ERROR 1:9 syntax ")
    assert (len(lines), ended.returncode) == (2, 1)


def test_a_file_goes_in_and_its_bad_rows_are_told(folder: Path) -> None:
    (folder / "sales.csv").write_text("who,when,dollars\n007,2026-01-01,1.5\n,2026-01-01,2\n008,never,3\n")
    ended = segmentation(
        folder, "ingest", "sales.csv", "--dataset", "sales", "--kind", "event", "--id", "who", "--time", "when"
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[0] == "1 rows in, 2 rejected"
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["row 2", "row 3"]


def test_the_same_content_goes_in_once(folder: Path) -> None:
    (folder / "sales.csv").write_text("who,when,dollars\n007,2026-01-01,1.5\n")
    (folder / "copy.csv").write_bytes((folder / "sales.csv").read_bytes())
    options = ("--dataset", "sales", "--kind", "event", "--id", "who", "--time", "when")
    said = [
        segmentation(folder, "ingest", *file, *options)
        for file in (["sales.csv"], ["copy.csv"], ["copy.csv", "--again"])
    ]
    assert [ended.returncode for ended in said] == [0, 0, 0]
    assert said[0].stderr == said[2].stderr == "1 rows in, 0 rejected\n"
    note, rows = said[1].stderr.splitlines()
    assert note.startswith("nothing to do: the dataset got this file at ")
    assert rows == "1 rows in, 0 rejected"


def test_the_same_content_read_otherwise_is_another_batch(folder: Path) -> None:
    (folder / "sales.csv").write_text("who,when,code\n007,2026-01-01,x\n008,2026-01-01,y\n")
    options = ("--dataset", "sales", "--kind", "event", "--id", "who", "--time", "when")
    said = [segmentation(folder, "ingest", "sales.csv", *options, *more) for more in ((), ("--null-value", "x"))]
    assert [ended.stderr for ended in said] == ["2 rows in, 0 rejected\n"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--kind", "people", "--id", "who"),
            "segmentation: --kind is 'people', but a dataset holds `profile` or `event`",
        ),
        (("--kind", "profile", "--id", "id"), 'no identity column "id"; the columns of the file are: who, dollars'),
        (
            ("--kind", "profile", "--id", "who", "--format", "xml"),
            "--format is 'xml', not one of csv, tsv, json, ndjson and parquet",
        ),
    ],
)
def test_a_file_that_cannot_go_in_is_explained(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    (folder / "sales.csv").write_text("who,dollars\n007,1.5\n")
    ended = segmentation(folder, "ingest", "sales.csv", "--dataset", "sales", *arguments)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


_SALES = ("--dataset", "sales", "--kind", "event", "--id", "who", "--time", "when")


def test_several_files_patterns_and_standard_input_go_in(folder: Path) -> None:
    for month in ("01", "02"):
        (folder / f"2026-{month}.csv").write_text(f"who,when,dollars\n007,2026-{month}-01,1.5\n")
    (folder / "2026-copy.csv").write_bytes((folder / "2026-02.csv").read_bytes())
    (folder / "more.tsv").write_text("who\twhen\tdollars\n008\t2026-03-01\t2,5\n")
    (folder / "array.json").write_text('[{"who": "009", "when": "2026-04-01", "dollars": 3.5}]')
    ended = segmentation(folder, "ingest", "2026-*.csv", "more.tsv", "array.json", *_SALES, "--decimal", ",")
    assert ended.returncode == 1
    assert "array.json: the decimal separator can be given for CSV files only" in ended.stderr
    ended = segmentation(
        folder,
        "ingest",
        "2026-*.csv",
        "more.tsv",
        "array.json",
        "-",
        *_SALES,
        input='{"who":"010","when":"2026-05-01"}',
    )
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stderr.splitlines() if "rows in" in line] == [
        f"{name}: 1 rows in, 0 rejected"
        for name in ("2026-01.csv", "2026-02.csv", "more.tsv", "array.json", "standard input")
    ]
    same = "2026-copy.csv: nothing to do: it is the same as 2026-02.csv; --again loads it once more"
    assert same in ended.stderr.splitlines()


def test_a_dry_run_says_what_would_go_in(folder: Path) -> None:
    (folder / "sales.csv").write_text("who;when;dollars\n1.0;31.12.2026;1,5\n2.0;never;2\n")
    ended = segmentation(folder, "ingest", "sales.csv", *_SALES, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[0] == "would load 1 rows, 1 rejected; nothing stored"
    assert lines[1:4] == [
        "  xEvent.timestamp: timestamp (new)",
        "  xEvent.who: string (new)",
        "  xEvent.dollars: number (new)",
    ]
    assert lines[4].startswith('  row 2: when: "never" is not a time')
    assert lines[5].startswith('  note: the ids of the column "who", such as ')
    loaded = segmentation(folder, "ingest", "sales.csv", *_SALES)
    assert loaded.stderr.splitlines()[0] == "1 rows in, 1 rejected"


def test_a_refused_first_file_leaves_no_dataset(folder: Path) -> None:
    (folder / "sales.csv").write_text("who,when,dollars\n007,2026-01-01,1.5\n")
    refused = segmentation(folder, "ingest", "sales.csv", *_SALES[:5], "whom", *_SALES[6:])
    assert (refused.returncode, 'no identity column "whom"' in refused.stderr) == (1, True)
    assert segmentation(folder, "ingest", "sales.csv", *_SALES).returncode == 0
    differs = segmentation(folder, "ingest", "sales.csv", *_SALES, "--namespace", "crm")
    assert differs.stderr == (
        "segmentation: the dataset 'sales' already exists with a different definition: the namespace of its identities "
        "is id, not crm; use the same, or choose another name\n"
    )


def test_files_that_are_not_there_are_named(folder: Path) -> None:
    assert "there is no file nowhere-*.csv" in segmentation(folder, "ingest", "nowhere-*.csv", *_SALES).stderr
    (folder / "sub").mkdir()
    assert "sub is a folder: name the files in it" in segmentation(folder, "ingest", "sub", *_SALES).stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SEGMENTATION_AUTH": "saml"}, "SEGMENTATION_AUTH='saml': Input should be 'none', 'keys', 'jwt' or 'proxy'"),
        (
            {"SEGMENTATION_HOST": "0.0.0.0"},
            "SEGMENTATION_AUTH=none admits every client, so `serve` serves loopback addresses",
        ),
        ({"SEGMENTATION_PORT": "http"}, "SEGMENTATION_PORT='http': "),
        (
            {"SEGMENTATION_DATA_DIR": "s3://lake/prod"},
            "with a lake on object storage SEGMENTATION_DATABASE_URL must be set",
        ),
        (
            {"SEGMENTATION_DATA_DIR": "s3://lake", "SEGMENTATION_DATABASE_URL": ""},
            "with a lake on object storage SEGMENTATION_DATABASE_URL must be set",
        ),
        (
            {
                "SEGMENTATION_DATA_DIR": "s3://lake",
                "SEGMENTATION_DATABASE_URL": "sqlite:///x.db",
                "SEGMENTATION_ENGINE": "spark",
                "SEGMENTATION_SPARK_MASTER": "local[2]",
            },
            "SEGMENTATION_ENGINE=spark reads the lake as files",
        ),
        (
            {"SEGMENTATION_DATA_DIR": "gs:/lake"},
            "='gs:/lake': this is neither a folder nor object storage: write s3://bucket or s3://bucket/prefix",
        ),
        ({"SEGMENTATION_DATABASE_URL": "mysql://x"}, "databases of kind 'mysql' are not supported"),
    ],
)
def test_settings_that_cannot_be_used_are_explained(folder: Path, settings: dict[str, str], said: str) -> None:
    ended = segmentation(folder, "serve", **{"SEGMENTATION_PORT": "0"} | settings)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tables_are_migrated(folder: Path) -> None:
    ended = segmentation(folder, "migrate")
    assert (ended.returncode, ended.stderr) == (0, "the schema is up to date\n")
    assert (folder / "data" / "segmentation.db").exists()


def test_the_schema_is_printed(folder: Path) -> None:
    assert segmentation(folder, "schema").stdout == (ROOT / "schema.graphql").read_text()


def test_the_demo_shows_its_audiences_and_ends(folder: Path) -> None:
    ended = segmentation(folder, "demo", "--no-serve", "--profiles", "2000", "--events", "40000")
    assert ended.returncode == 0, ended.stderr
    assert "Loaded 2,000 rows into the dataset 'people'" in ended.stdout
    assert "Loaded 40,000 rows into the dataset 'clicks'" in ended.stdout
    assert ended.stdout.count("SUCCEEDED, 2,000 people read") == 4  # three weeks ago until now
    assert ended.stdout.count(": 100%") == 4  # progress without a terminal
    for name, example in AUDIENCES.items():
        assert re.search(rf"^{name}: [1-9][\d,]* people", ended.stdout, re.MULTILINE)
        if "{" not in example.expression:
            assert f"\n{example.expression}\n" in ended.stdout
    assert re.search(r'^inSegment\("[0-9a-f-]{36}"\) and inSegment\("[0-9a-f-]{36}"\) and ', ended.stdout, re.MULTILINE)
    assert ended.stderr == ""


def test_every_example_of_the_language_page_is_true(tmp_path: Path) -> None:
    page = (ROOT / "app" / "docs" / "language.md").read_text()
    for name, kind in (("people.ndjson", "people"), ("events.ndjson", "events")):
        (tmp_path / name).write_text(page.split(f"```json {kind}\n")[1].split("```")[0])
    rows = re.findall(r"^\| `(.+)` \| (.*?) ?\|$", page, re.MULTILINE)
    assert len(rows) == 54
    trial = load_trial(tmp_path / "people.ndjson", tmp_path / "events.ndjson")
    now = datetime(2026, 6, 15, 12, tzinfo=UTC)
    assert [(each, " ".join(evaluate_trial(trial, each, now))) for each, _ in rows] == rows


def test_the_page_s_way_to_try_an_expression_works(tmp_path: Path) -> None:
    page = (ROOT / "app" / "docs" / "language.md").read_text()
    for name, kind in (("people.ndjson", "people"), ("events.ndjson", "events")):
        (tmp_path / name).write_text(page.split(f"```json {kind}\n")[1].split("```")[0])
    command = next(part for part in page.split("`") if part.startswith("segmentation pql eval --profiles"))
    ended = segmentation(tmp_path, *shlex.split(command)[1:])
    assert (ended.stdout, ended.returncode) == ("points > 100\tann\n", 0)


def test_expressions_are_converted_there_and_back(tmp_path: Path) -> None:
    there = segmentation(tmp_path, "pql", "convert", "((income>1))", "income >", "a in [1, -2]")
    assert there.returncode == 1
    first, error, second = there.stdout.splitlines()
    assert json.loads(first)["fnName"] == ">"
    assert error.startswith("ERROR 1:9 syntax ")
    back = segmentation(tmp_path, "pql", "convert", input=f"{first}\n{second}\n")
    assert (back.stdout, back.returncode) == ("income > 1\na in [1, -2]\n", 0)
    again = segmentation(tmp_path, "pql", "convert", input=back.stdout)
    assert again.stdout.splitlines() == [first, second]
    bad = segmentation(tmp_path, "pql", "convert", '{"nodeType": "moment"}')
    assert (bad.stdout, bad.returncode) == ("ERROR 1:1 syntax a `moment` needs `word`\n", 1)


def test_the_doctor_says_what_is_wrong_by_its_exit_code_too(folder: Path) -> None:
    missing = segmentation(folder, "doctor")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no data folder" in missing.stderr
    assert segmentation(folder, "migrate").returncode == 0
    healthy = segmentation(folder, "doctor")
    assert (healthy.returncode, healthy.stdout) == (0, "nothing is wrong\n")
    (folder / "data" / "lake" / "acme" / "prod").mkdir(parents=True)
    ill = segmentation(folder, "doctor")
    assert ill.returncode == 1
    assert ill.stdout.startswith("folders: acme/prod: the lake has data of a sandbox that the database does not know\n")


ORDERS = {
    "required": ["amount"],
    "properties": {"zip": {"type": "string"}, "amount": {"type": "number", "minimum": 0}, "note": {"type": "string"}},
}


def test_a_schema_is_declared_and_followed(folder: Path) -> None:
    (folder / "orders.csv").write_text(
        "id,at,zip,amount\n1,2026-01-01,90210,5\n2,2026-01-01,90210,-5\n3,2026-01-01,1,\n"
    )
    (folder / "orders.json").write_text(json.dumps(ORDERS))
    arguments = ("ingest", "orders.csv", "--dataset", "orders", "--kind", "event", "--id", "id", "--time", "at")
    tried = segmentation(folder, *arguments, "--schema", "orders.json", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert "would load 1 rows, 2 rejected" in tried.stderr
    assert re.search(r"^  xEvent\.zip: string", tried.stderr, re.M), (
        "the declared type, not the one that the file looks like"
    )
    ended = segmentation(folder, *arguments, "--schema", "orders.json")
    assert ended.stderr.splitlines() == [
        "1 rows in, 2 rejected",
        '  row 2: amount: "-5.0" is below 0',
        "  row 3: amount: a value is required",
    ]
    plain = segmentation(folder, *arguments, "--again")
    assert "1 rows in, 2 rejected" in plain.stderr, "declared for good"


def test_a_schema_that_cannot_be_followed_leaves_no_dataset(folder: Path) -> None:
    (folder / "orders.csv").write_text("id,at\n1,2026-01-01\n")
    (folder / "bad.json").write_text('{"properties": {"a": {"type": "string", "contains": 5}}}')
    (folder / "broken.json").write_text("{")
    arguments = ("ingest", "orders.csv", "--dataset", "orders", "--kind", "event", "--id", "id", "--time", "at")
    for flags in ((), ("--dry-run",)):
        ended = segmentation(folder, *arguments, "--schema", "bad.json", *flags)
        assert ended.returncode == 1
        assert "schema/properties/a/contains: the keyword 'contains' is not supported" in ended.stderr
    assert "broken.json is not JSON" in segmentation(folder, *arguments, "--schema", "broken.json").stderr
    assert segmentation(folder, *arguments).returncode == 0, "the name is free"
