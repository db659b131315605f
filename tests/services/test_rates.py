"""What each caller may ask for in a minute."""

import pytest

from app.errors import ErrorCode, Limit, Refusal
from app.services.access import rates
from app.services.access.rates import Places, Rate, RateExceeded


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def refused(rate: Rate, caller: str, amount: int = 1) -> int:
    """After how many seconds there is enough again."""
    with pytest.raises(RateExceeded) as raised:
        rate.take(caller, amount)
    return raised.value.seconds


def test_a_minutes_worth_at_once_and_then_evenly() -> None:
    clock = Watch()
    rate = Rate("rate_requests", "requests", 6, clock)
    for _ in range(6):
        rate.take("ann")
    with pytest.raises(RateExceeded, match=r"^more than 6 requests a minute \(rate_requests\): try again in 10 s$"):
        rate.take("ann")
    clock.now += 9.5
    assert refused(rate, "ann") == 1
    clock.now += 0.5
    rate.take("ann")
    assert refused(rate, "ann") == 10
    clock.now += 3_600
    for _ in range(6):
        rate.take("ann")
    assert refused(rate, "ann") == 10


def test_a_refusal_takes_nothing_and_callers_do_not_share() -> None:
    clock = Watch()
    rate = Rate("rate_cost", "units of cost", 600, clock)
    rate.take("ann", 599)
    for _ in range(50):
        assert refused(rate, "ann", 11) == 1
    rate.take("ann", 1)
    rate.take("bob", 600)
    assert refused(rate, "bob") == 1


def test_more_than_a_minutes_worth_is_paid_for_afterwards() -> None:
    clock = Watch()
    rate = Rate("rate_cost", "units of cost", 60, clock)
    rate.take("ann", 180)
    assert refused(rate, "ann") == 121
    clock.now += 121
    rate.take("ann")
    assert refused(rate, "ann", 180) == 60


def test_without_a_limit() -> None:
    rate = Rate("rate_requests", "requests", 0, Watch())
    for _ in range(10_000):
        rate.take("ann", 10**9)


def test_callers_who_left_are_forgotten() -> None:
    clock = Watch()
    rate = Rate("rate_requests", "requests", 60, clock)
    for number in range(5 * rates.FEWEST_SWEPT):
        rate.take(f"caller {number}")
        clock.now += 0.01
    assert len(rate._settled) < rates.FEWEST_SWEPT


def test_a_check_takes_nothing() -> None:
    rate = Rate("rate_failed_logins", "failed logins", 2, Watch())
    for _ in range(5):
        rate.check("ann", 2)
    rate.take("ann", 2)
    with pytest.raises(RateExceeded, match=r"^more than 2 failed logins a minute .* try again in 30 s$"):
        rate.check("ann")


def test_places_are_given_back_and_callers_do_not_share() -> None:
    places = Places("max_streams", "streams", 2)
    with places.hold("ann"), places.hold("bob"):
        with places.hold("ann"), pytest.raises(Refusal) as refused, places.hold("ann"):
            raise AssertionError("ann has two")
        assert (refused.value.code, refused.value.limit) == (ErrorCode.LIMIT_EXCEEDED, Limit("max_streams", 2, 3))
        with places.hold("ann"):
            pass
    assert not places._held


def test_places_without_a_limit() -> None:
    places = Places("max_streams", "streams", 0)
    with places.hold("ann"), places.hold("ann"), places.hold("ann"):
        assert places._held["ann"] == 3
