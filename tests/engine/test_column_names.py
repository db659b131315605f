"""Columns whose names are no identifiers of PQL land and can be selected by; one that would hide the events cannot."""

import pytest

from app.errors import Refusal
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import selected


def test_odd_names_can_be_used(sandbox: Sandbox) -> None:
    sandbox.csv("p", PEOPLE, "id,Order Date,a.b,and\n1,2026-01-02,x,7\n2,2026-01-01,y,8\n")
    sandbox.rows("e", EVENTS, [{"id": "2", "timestamp": "2026-01-01", "o": {"utm-source": "ad", "$1": 2}}])
    assert selected(sandbox, "`Order Date` = date(2026, 1, 2)") == ["1"]
    assert selected(sandbox, '`a.b` = "y" and `and` = 8') == ["2"]
    assert selected(sandbox, 'xEvent.o.`utm-source` = "ad" and xEvent.o.`$1` = 2') == ["2"]


def test_a_column_that_hides_the_events_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal) as refused:
        sandbox.rows("p", PEOPLE, [{"id": "1", "xEvent": "x"}])
    assert refused.value.message == 'the column "xEvent" is named like a part of the profile: rename it'
