"""What an interception has met in one training, in plain numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Intercepted:
    """How often each kind of draw was taken to its source."""

    orders: int = 0  #: passes over a sampler that draws
    items: int = 0  #: items of loaders whose items or batches may draw, as this process has asked for them
    splits: int = 0  #: random splits that were held, those of torch's ``random_split`` without a generator
    own_splits: int = 0  #: random splits by a generator of the user's, which were left as they are
    late_parameters: int = 0  #: made in a function of a seed after its first batch, where ``init`` has ended
    #: By place: how often each seeding function was called there.
    reseedings: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether a loader or sampler was gone through whose draws depend on the number of its pass."""
        return bool(self.orders or self.items)

    def note_reseeding(self, called: str, function: str, place: str) -> None:
        """Note a call of ``called``, which ``function`` made for the line ``place`` of the user's."""
        self.reseedings.setdefault((function, place), Counter())[called] += 1

    def to_json(self) -> dict[str, Any]:
        """Return what there was, as JSON's types; one call that seeds several generators is one re-seeding."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int) and value}
        found = [
            {"function": function, "place": place, "count": max(calls.values())}
            for (function, place), calls in self.reseedings.items()
        ]
        return counts | ({"reseedings": found} if found else {})


#: Places of re-seedings that a line names before it breaks off.
_MOST_PLACES = 3


def line_of(found: Mapping[str, Any]) -> str:
    """Return in one sentence what `Intercepted.to_json` says; empty if it says nothing.

    >>> line_of({"orders": 10, "items": 12000, "reseedings": [{"function": "set_seed", "place": "a.py:3", "count": 2}]})
    'isolated by interception: orders 10, items 12,000, re-seedings 2 (set_seed, a.py:3)'
    """
    parts = [f"{name} {found[name]:,}" for name in ("orders", "items") if found.get(name)]
    if reseedings := found.get("reseedings", []):
        places = [f"{one['function']}, {one['place']}" for one in reseedings]
        places = places[:_MOST_PLACES] + [f"and {len(places) - _MOST_PLACES} more"] * (len(places) > _MOST_PLACES)
        parts.append(f"re-seedings {sum(one['count'] for one in reseedings):,} ({'; '.join(places)})")
    if found.get("splits"):
        parts.append(f"random splits {found['splits']} (data: the same in every run)")
    if found.get("own_splits"):
        parts.append(f"random splits {found['own_splits']} by a generator of their own (left as they are)")
    if found.get("late_parameters"):
        parts.append(
            f"parameters {found['late_parameters']} made after the first batch, whose values are stochastic and not "
            f"init (train(run) and run.stream('init') tell them apart)"
        )
    return f"isolated by interception: {', '.join(parts)}" if parts else ""
