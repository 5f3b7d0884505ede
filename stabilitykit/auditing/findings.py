"""What the rows of an audit mean: sentences for whoever wrote the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..protocol import Source
from .knobs import Knob
from .observation import Kind, Observation, Trainings
from .rows import SOURCE_OF, Besides, Row

#: What to do where a seed should reach a kind of draw.
_MENDS = {
    Kind.PARAMETERS: "Set the seed before the model is made (transformers: model_init= in place of model=).",
    Kind.ORDER: "Give it to the order: DataLoader(..., generator=torch.Generator().manual_seed(seed)).",
    Kind.ITEMS: "Seed the generator that the items draw from by it, or leave it to the loader: no worker_init_fn.",
    Kind.BATCHES: "Seed the generator that collate_fn draws from by it.",
    Kind.LOOP: "Set the seed before the loop, and in the loop no other one.",
    Kind.SPLIT: "If it should: random_split(..., generator=torch.Generator().manual_seed(seed)).",
    Kind.EXAMPLES: "If they should be others, make them under the seed.",
}

_SOURCES = {source.value for source in Source}


def findings_of(rows: Sequence[Row], knobs: Sequence[Knob], trainings: Trainings, *, by_source: bool) -> list[str]:
    """Return what is not as a user of the knobs would expect, one sentence or more for each."""
    found = [sentence for row in rows for sentence in _of_row(row, knobs)]
    found += _of_weights(rows, trainings)
    is_noisy, drawing = trainings.is_noisy, {SOURCE_OF[row.place.kind] for row in rows}
    for knob in knobs:
        by_it = [row for row in rows if knob.name in row.moved_by]
        is_source = by_source and knob.name in _SOURCES
        if is_source:
            found += [
                f"{knob.name} also moves {_named(row)}, which is of {row.source}."
                for row in by_it
                if row.source != knob.name
            ]
        if by_it or (is_source and knob.name not in drawing):
            continue
        if trainings.moved[knob.name].final != trainings.base.final and not is_noisy:
            found.append(
                f"{knob.name} moves what is trained, but nothing that was seen: something draws that the audit cannot "
                f"see (docs/audit.md has a list)."
            )
        else:
            found.append(
                f"{knob.name} moves nothing: every parameter, order, item and draw is the same for "
                f"{knob.name}={knob.one!r} and {knob.name}={knob.other!r}. Is it passed on?"
            )
    return found


def _of_weights(rows: Sequence[Row], trainings: Trainings) -> Iterator[str]:
    """Yield what the trained weights tell where nothing that was seen tells it."""
    besides = {row.besides for row in rows}
    if trainings.is_noisy and Besides.EACH_CALL not in besides:
        yield (
            "Two trainings where all is equal end with other weights, and nothing that was seen differs: something "
            "draws that the audit cannot see, or kernels are not deterministic."
        )
    elif not trainings.is_noisy and trainings.ambient.final != trainings.base.final and Besides.STATE not in besides:
        yield (
            "The trained weights move with what the process drew before, and nothing that was seen does: something "
            "draws that the audit cannot see, before a seed is set."
        )


def _of_row(row: Row, knobs: Sequence[Knob]) -> Iterator[str]:
    kind, name = row.place.kind, _named(row)
    if not row.moved_by and kind not in (Kind.SPLIT, Kind.EXAMPLES):
        yield f"{_never(knobs)} {name}: {_same(knobs)}{_why(row)} {_MENDS[kind]}"
    elif not row.moved_by and row.besides is not Besides.NOTHING:
        yield f"{name[0].upper()}{name[1:]} {_are(kind)} not of a seed: {_besides(row)} {_MENDS[kind]}"
    elif row.besides is Besides.EACH_CALL:
        yield f"{name[0].upper()}{name[1:]} {_are(kind)} not reproducible: {_besides(row)}"
    elif row.unreached:
        part = f"{row.unreached} of {row.parts} parts" if row.unreached < row.parts else "all parts"
        yield f"{part} of {name} are not reached by a knob: {_besides(row)} {_MENDS[kind]}"
    elif row.moved_by and row.passes_unmoved:
        what = "passes" if row.place.kind is not Kind.LOOP else "steps"
        yield (
            f"{row.passes_unmoved} of the {what} of {name} are moved by no knob: a fixed seed is used there. "
            f"{_MENDS[kind]}"
        )
    if row.repeats and kind is Kind.ORDER:
        yield (
            f"Each pass has the same order ({row.place.what}, {row.place.line}): the examples are shuffled once. A "
            f"DistributedSampler needs sampler.set_epoch(epoch); any other one a generator that goes on from pass to "
            f"pass."
        )
    elif row.repeats:
        yield (
            f"Each pass draws the same again for {name}: a seed is set anew in each pass, as by a worker_init_fn that "
            f"ignores torch.initial_seed(), or by a seed in the dataset."
        )


def _never(knobs: Sequence[Knob]) -> str:
    names = [knob.name for knob in knobs]
    return f"{names[0]} never reaches" if len(names) == 1 else f"None of {', '.join(names)} reaches"


def _same(knobs: Sequence[Knob]) -> str:
    return f"nothing of it changes between {', between '.join(f'{k.name}={k.one!r} and {k.other!r}' for k in knobs)}"


def _why(row: Row) -> str:
    if row.besides is not Besides.NOTHING:
        return f". {_besides(row)[0].upper()}{_besides(row)[1:]}"
    own = f" by {row.own_seed}" if row.own_seed else ""
    return f", nor in another state of the process: it is fixed in the code{own}."


def _besides(row: Row) -> str:
    if row.besides is Besides.EACH_CALL:
        return (
            "it differs in every call, where all else is equal: it draws from the system's entropy, as a generator "
            "without a seed does, or from an object that lives on from one call to the next."
        )
    return "it comes of what the process drew before: it is drawn before a seed is set, or none is set."


def _named(row: Row) -> str:
    return f"{row.place.kind.value} ({row.place.what}, {row.place.line})"


def _are(kind: Kind) -> str:
    return "are" if kind in (Kind.PARAMETERS, Kind.ITEMS, Kind.EXAMPLES) else "is"


def notes_of(rows: Sequence[Row], base: Observation) -> list[str]:
    """Return what a reader should know, and need not mend."""
    kinds = {row.place.kind for row in rows}
    notes = []
    if Kind.ORDER not in kinds and base.passes:
        notes.append("No loader shuffles: every pass goes through the examples in one order.")
    elif Kind.ORDER not in kinds:
        notes.append(
            "No order was seen: no loader of torch's began a pass, and no line drew a permutation by torch, numpy or "
            "random. One that a generator of its own draws is not seen."
        )
    if not kinds & {Kind.ITEMS, Kind.BATCHES}:
        notes.append("Items are not drawn randomly: no augmentation was seen.")
    if Kind.LOOP not in kinds:
        notes.append("Nothing draws between batches: no dropout, and no other random operation of the model.")
    if not base.steps:
        notes.append("No optimizer of torch's made a step, so no parameters were seen.")
    if base.is_cut:
        notes.append(f"Only the first {base.steps} steps were looked at.")
    for place, drawn in base.places.items():
        if place.kind is Kind.ORDER and drawn.may_draw and place not in {row.place for row in rows}:
            notes.append(
                f"Not known to draw: {place.what} ({place.line}), whose order is the same in each pass and training."
            )
    return notes + [
        f"Not followed: {what}" + (f" ({count} times)" if count > 1 else "") for what, count in base.unseen.items()
    ]
