"""How often the 95% interval of an estimate has the truth in it, by the rate of the segment and the part that is read.

    python tests/benchmarks/estimate.py [--profiles 1000000] [--buckets 64] [--segments 2000]

For each rate and each part, so many random segments are sampled by buckets as a preview does; printed are the part of
intervals that cover, and how many lie wholly above and below the truth.
"""

import argparse

import numpy as np
from numpy.random import default_rng

from app.engine.run.sampling import estimate

RATES = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999)
PARTS = (1 / 64, 0.125, 0.25, 0.5, 0.75, 63 / 64)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=1_000_000)
    options.add_argument("--buckets", type=int, default=64)
    options.add_argument("--segments", type=int, default=2_000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    rng = default_rng(asked.seed)
    print(f"{asked.segments:,} segments of each rate among {asked.profiles:,} people in {asked.buckets} buckets")
    print("rate      " + "".join(f"{part:>22.1%}" for part in PARTS))
    everything = np.zeros(3, int)
    for rate in RATES:
        outcomes = np.zeros((len(PARTS), 3), int)
        for _ in range(asked.segments):
            # Rates vary a little, so that no single number of members decides.
            varied = rng.uniform(0.7, 1.4)
            members = round(asked.profiles * (rate * varied if rate <= 0.5 else 1 - (1 - rate) * varied))
            people = rng.multinomial(asked.profiles, np.full(asked.buckets, 1 / asked.buckets))
            matching = rng.multivariate_hypergeometric(people, members, method="marginals")
            order = rng.permutation(asked.buckets)
            read, matched = np.cumsum(people[order]), np.cumsum(matching[order])
            for at, part in enumerate(PARTS):
                last = max(round(part * asked.buckets), 1) - 1
                found = estimate(asked.profiles, int(read[last]), int(matched[last]))
                assert found is not None
                outcomes[at, 1 + (members < found.low) - (members > found.high)] += 1
        everything += outcomes.sum(axis=0)
        shown = "".join(
            f"   {covered / asked.segments:>7.1%} ({low / asked.segments:.1%}/{high / asked.segments:.1%})"
            for low, covered, high in outcomes
        )
        print(f"{rate:<10g}{shown}", flush=True)
    print(
        f"all together: {everything[1] / everything.sum():.2%} cover; below {everything[0] / everything.sum():.2%}, "
        f"above {everything[2] / everything.sum():.2%}"
    )


if __name__ == "__main__":
    main()
