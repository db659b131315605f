"""Numbers as the pages write them: nothing small becomes none, nothing nearly whole becomes all, no 60 seconds."""

import json
import subprocess
from pathlib import Path

from tests.support.web import NODE, WEB

Cases = dict[float, str]

PERCENT: Cases = {
    0: "0%",
    0.0001: "<0.1%",
    -0.0001: "−<0.1%",
    0.0005: "0.1%",
    0.0214: "2.1%",
    0.5: "50%",
    0.99: "99%",
    0.9999: ">99%",
    1: "100%",
    -1: "-100%",
    2.5: "250%",
}
BYTES: Cases = {0: "0 B", 999: "999 B", 1_000: "1.0 kB", 9_960: "10 kB", 999_600: "1.0 MB", 47_000_000: "47 MB"}
DURATION: Cases = {
    0: "0 ms",
    999.7: "1.0 s",
    9_960: "10 s",
    59_400: "59 s",
    59_600: "1 min 0 s",
    119_900: "2 min 0 s",
    3_599_700: "1 h 0 min",
    7_199_000: "2 h 0 min",
}
SECONDS_AGO: Cases = {
    4: "just now",
    5: "5 sec. ago",
    59.7: "1 min. ago",
    3_590: "1 hr. ago",
    5_400: "2 hr. ago",
    86_000: "yesterday",
    -86_400: "tomorrow",
    -2_700: "in 45 min.",
    21 * 86_400: "21 days ago",
    360 * 86_400: "last yr.",
}
EXACTLY: Cases = {0.00012: "0.00012", 1_234.5678: "1,234.5678", 20.1: "20.1", 1_000_000: "1,000,000"}
SHORT: Cases = {9_999: "9,999", 23_570: "23.6K", 1_000_000: "1M"}


def test_numbers_as_people_read_them() -> None:
    cases = {"percent": PERCENT, "bytes": BYTES, "duration": DURATION, "exactly": EXACTLY, "short": SHORT}
    asked = {**{name: list(each) for name, each in cases.items()}, "ago": list(SECONDS_AGO)}
    script = f"""
      const numbers = await import({json.dumps((WEB / "src/work/ui/numbers.ts").as_uri())});
      const ago = (seconds) => numbers.ago(new Date(1e12 - seconds * 1e3), 1e12);
      const asked = {json.dumps(asked)};
      console.log(JSON.stringify(Object.fromEntries(Object.entries(asked).map(
        ([name, values]) => [name, values.map(value => ({{ ...numbers, ago }})[name](value))]))));
    """
    command: list[str | Path] = [NODE, "--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", script]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    expected = {name: list(each.values()) for name, each in cases.items()}
    assert said == {**expected, "ago": list(SECONDS_AGO.values())}
