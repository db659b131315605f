"""An invented shop of any size, deterministic for a given seed; used by the demo and the benchmarks."""

import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from app.engine.run.demo_names import COUNTRIES

TIERS = ("bronze", "silver", "gold", "platinum")
DEVICES = ("phone", "desktop", "tablet")
EVENT_TYPES = ("view", "search", "cart", "purchase", "login", "email.open", "email.click", "return")
EVENT_WEIGHTS = (0.42, 0.16, 0.12, 0.08, 0.1, 0.08, 0.03, 0.01)
PRODUCTS = 2_000
IDENTITY_COLUMN = "customerId"
IDENTITY_NAMESPACE = "shop"
PERIOD = timedelta(days=365)

_ROWS_AT_ONCE = 250_000


def write_shop(folder: Path, profiles: int, events: int, until: datetime, seed: int = 7) -> tuple[Path, Path]:
    """Writes `profiles.parquet` and `events.parquet` into `folder` and returns their paths.

    The `events` are in the year before `until`; a few customers have many of them, most have few, some none.
    """
    rng = default_rng(seed)
    people, facts = folder / "profiles.parquet", folder / "events.parquet"
    # Names have their own random generator, so that they do not affect the other values of a seed.
    pq.write_table(_profiles(rng, default_rng([seed, 1]), profiles, until), people)
    with pq.ParquetWriter(facts, _events(rng, 0, 0, profiles, until).schema) as writer:
        for start in range(0, events, _ROWS_AT_ONCE):
            writer.write_table(_events(rng, start, min(_ROWS_AT_ONCE, events - start), profiles, until))
    return people, facts


def _ids(numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array([f"{number:07d}" for number in numbers.tolist()])


def _pick(rng: Generator, values: tuple[str, ...], n: int, weights: tuple[float, ...] | None = None) -> pa.Array:
    codes = rng.choice(len(values), n, p=weights).astype(np.int32)
    return pa.DictionaryArray.from_arrays(codes, list(values)).cast(pa.string())


def _profiles(rng: Generator, names: Generator, n: int, until: datetime) -> pa.Table:
    today = np.datetime64(until.date())
    joined = today - rng.integers(0, 3_000, n).astype("timedelta64[D]")
    born = today - rng.integers(16 * 365, 90 * 365, n).astype("timedelta64[D]")
    countries = rng.choice(len(COUNTRIES), n)
    first, last, city, email = _names(names, countries)
    code = pa.array([COUNTRIES[country].code for country in countries.tolist()])
    address = pa.StructArray.from_arrays([code, city], ["country", "city"])
    full = pa.StructArray.from_arrays([first, last], ["firstName", "lastName"])
    person = pa.StructArray.from_arrays([full, pa.array(born)], ["name", "birthDate"])
    loyalty = pa.StructArray.from_arrays(
        [_pick(rng, TIERS, n, (0.6, 0.25, 0.12, 0.03)), pa.array(rng.integers(0, 10_000, n)), pa.array(joined)],
        ["tier", "points", "joinDate"],
    )
    return pa.table(
        {
            IDENTITY_COLUMN: _ids(np.arange(n)),
            "person": person,
            "personalEmail": pa.StructArray.from_arrays([email], ["address"]),
            "homeAddress": address,
            "loyalty": loyalty,
            "newsletter": pa.array(rng.random(n) < 0.4),
        }
    )


def _names(rng: Generator, countries: NDArray[np.int64]) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """First and last names, cities and e-mail addresses that match the countries (indexes into `COUNTRIES`)."""
    places = rng.random((3, len(countries)))
    places[2] **= 2  # most live in the first, largest cities
    first, last, city, email = [], [], [], []
    for number, (country, first_place, two, three) in enumerate(zip(countries.tolist(), *places.tolist(), strict=True)):
        words = COUNTRIES[country]
        first.append(words.first[int(first_place * len(words.first))])
        last.append(words.last[int(two * len(words.last))])
        city.append(words.cities[int(three * len(words.cities))])
        email.append(f"{_LETTERS[first[-1]]}.{_LETTERS[last[-1]]}{number}@example.com")
    return pa.array(first), pa.array(last), pa.array(city), pa.array(email)


def _plain(name: str) -> str:
    """A name in the form used in e-mail addresses: `Müller` becomes `muller`."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()


_LETTERS = {name: _plain(name) for country in COUNTRIES for name in (*country.first, *country.last)}


def _events(rng: Generator, start: int, n: int, profiles: int, until: datetime) -> pa.Table:
    # Squaring a uniform number skews people towards one end: a long tail of busy customers.
    customers = (profiles * rng.random(n) ** 2).astype(np.int64)
    microseconds = rng.integers(0, PERIOD // timedelta(microseconds=1), n)
    times = np.datetime64(until.astimezone(UTC).replace(tzinfo=None), "us") - microseconds.astype("timedelta64[us]")
    types = rng.choice(len(EVENT_TYPES), n, p=EVENT_WEIGHTS).astype(np.int32)
    bought = np.isin(types, [EVENT_TYPES.index(name) for name in ("cart", "purchase", "return")])
    counts = np.where(bought, rng.integers(1, 4, n), 0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    m = int(offsets[-1])
    prices = np.round(rng.gamma(2.0, 20.0, m), 2)
    totals = np.bincount(np.repeat(np.arange(n), counts), weights=prices, minlength=n)
    items = pa.StructArray.from_arrays(
        [
            pa.DictionaryArray.from_arrays(
                rng.integers(0, PRODUCTS, m).astype(np.int32), [f"SKU-{number:04d}" for number in range(PRODUCTS)]
            ).cast(pa.string()),
            pa.array(rng.integers(1, 5, m)),
            pa.array(prices),
        ],
        ["SKU", "quantity", "price"],
    )
    order = pa.StructArray.from_arrays([pa.array(np.round(totals, 2), pa.float64(), mask=~bought)], ["priceTotal"])
    return pa.table(
        {
            "_id": pa.array([f"e{number:08d}" for number in range(start, start + n)], pa.string()),
            IDENTITY_COLUMN: _ids(customers).cast(pa.string()),
            "timestamp": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "eventType": pa.DictionaryArray.from_arrays(types, list(EVENT_TYPES)).cast(pa.string()),
            "device": _pick(rng, DEVICES, n, (0.6, 0.3, 0.1)),
            "commerce": pa.StructArray.from_arrays([order], ["order"]),
            "productListItems": pa.ListArray.from_arrays(pa.array(offsets), items),
        }
    )
