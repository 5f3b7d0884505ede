"""The command ``stability-cache``: list, show, explain, verify and prune the experiments of a run store."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._version import __version__
from .errors import StoreError
from .render.columns import aligned
from .store.catalog import SHORT, Catalog, Entry, size_of, trained_at
from .store.history import History
from .store.layout import ABOUT, PARTS, SESSIONS
from .store.pruning import Pruning
from .store.reading import harmless

OK, BAD, USAGE = 0, 1, 2

_EXAMPLES = """\
examples:
  stability-cache list                      all experiments, the last used first
  stability-cache show 3f2a                 one experiment: its task, its protocol and its runs
  stability-cache show 3f2a:7               seeds, curve and error of its run 7
  stability-cache why test_a.py::test_net   why its runs were trained again: what differs from the last time
  stability-cache verify                    read every byte; exit 1 if a run is not as it was written
  stability-cache prune --older-than 30d    remove experiments that no session has used in 30 days
  stability-cache prune --all --dry-run     say what would be removed

ages are a number and h, d or w: 12h, 30d, 2w. A run that is being trained, and its experiment, are never removed.
exit codes: 0 done, 1 verify found a bad run, 2 the command cannot be carried out.
"""


def main(arguments: Sequence[str] | None = None, name: str = "stability-cache") -> int:
    """Carry out one command and return its exit code; ``name`` is the program that its user has called."""
    asked = _parser(name).parse_args(arguments)
    try:
        catalog = Catalog.above(Path.cwd()) if asked.store is None else Catalog.of(asked.store)
        return int(asked.carry_out(catalog, asked) or OK)
    except BrokenPipeError:  # the reader of the pipe has closed it
        sys.stderr.close()
        return OK
    except (OSError, StoreError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return USAGE


def _list(catalog: Catalog, asked: argparse.Namespace) -> None:
    entries = catalog.entries()
    if asked.json:
        print(json.dumps([_summary(entry) for entry in entries], indent=1))
        return
    rows = [("KEY", "TASK", "VARIES", "RUNS", "SIZE", "AGE", "LAST USED")]
    for entry in entries:
        ages = (_ago(entry.created), _ago(entry.used))
        rows.append((entry.key[:SHORT], entry.task, entry.varies, _counted(entry), _sized(entry.bytes), *ages))
    if entries:
        _print_table(rows)
    else:
        print(f"No experiments in {catalog.folder}.")
    _list_baselines(catalog)


def _list_baselines(catalog: Catalog) -> None:
    rows = [("BASELINE", "STUDIES", "COMMIT", "SIZE", "AGE")]
    for baseline in catalog.baselines():
        headers = baseline.headers()
        commits = sorted({str(header["commit"]) for header in headers if header.get("commit")})
        age = _ago(max((float(header.get("saved", 0)) for header in headers), default=0.0))
        size = _sized(size_of(baseline.folder))
        rows.append((baseline.name, str(len(headers)), ", ".join(commits) or "unknown", size, age))
    if len(rows) > 1:
        print()
        _print_table(rows)


def _summary(entry: Entry) -> dict[str, Any]:
    named = {"key": entry.key, "task": entry.task, "varies": entry.varies, **entry.count()}
    return named | {"bytes": entry.bytes, "created": entry.created, "used": entry.used}


def _size(catalog: Catalog, asked: argparse.Namespace) -> None:
    entries = sorted(catalog.entries(), key=lambda entry: -entry.bytes)
    sizes = {
        "total": size_of(catalog.folder),
        "experiments": sum(entry.bytes for entry in entries),
        "old": sum(size_of(entry.files.old) for entry in entries if entry.files.old.is_dir()),
        "baselines": sum(size_of(baseline.folder) for baseline in catalog.baselines()),
        "sessions": size_of(catalog.folder / SESSIONS),
        "other_formats": sum(map(size_of, catalog.other_formats())),
    }
    if asked.json:
        print(json.dumps(sizes | {"keys": {entry.key: entry.bytes for entry in entries}}, indent=1))
        return
    rows = [("total", _sized(sizes["total"]), str(catalog.folder))]
    rows += [("experiments", _sized(sizes["experiments"]), f"{len(entries)}")]
    rows += [(f"  {entry.key[:SHORT]}", _sized(entry.bytes), f"{entry.name}, {_counted(entry)}") for entry in entries]
    rows += [("  of it old/", _sized(sizes["old"]), "bad files, and failures that were retried")]
    named = ", ".join(baseline.name for baseline in catalog.baselines()) or "none"
    rows += [("baselines", _sized(sizes["baselines"]), f"{named}; never pruned")]
    rows += [("sessions", _sized(sizes["sessions"]), "of sessions that live, or were killed")]
    rows += [("other formats", _sized(sizes["other_formats"]), "of earlier versions")]
    _print_table(rows)


def _show(catalog: Catalog, asked: argparse.Namespace) -> None:
    key, _, run = asked.what.partition(":")
    entry = catalog.find(key)
    if run:
        _show_run(entry, run, asked.json)
        return
    if asked.json:
        records = {index: header and header["record"] for index, header in entry.runs.items()}
        print(json.dumps({"key": entry.key, "about": entry.about, "runs": records}, indent=1))
        return
    about = {name: value for name, value in entry.about.items() if name != PARTS}  # hundreds of lines
    print(f"{entry.key}  {entry.name}\n{entry.folder}\n\n{json.dumps(about, indent=1)}\n")
    rows = [("RUN", "STATUS", "SECONDS", "TRAINED BY", "AGE")]
    running = entry.running()
    for index in sorted({*entry.runs, *running}):
        if header := entry.runs.get(index):
            record = header["record"]
            by, age = _trainer(record["trained_by"]), _ago(trained_at(header))
            rows.append((str(index), record["status"], f"{record['seconds']:.1f}", by, age))
        elif now := running.get(index):
            by = f"{now.worker}, pid {now.pid}, {now.host}"
            rows.append((str(index), "running", f"{time.time() - now.started:.0f}", by, ""))
        else:
            rows.append((str(index), "unreadable", "", entry.files.problem(index), ""))
    _print_table(rows)


def _show_run(entry: Entry, run: str, as_json: bool) -> None:
    if not run.isdecimal() or int(run) not in entry.runs:
        known = ", ".join(map(str, entry.runs)) or "none"
        raise StoreError(f"Expected a run of {entry.key[:SHORT]} but got {run!r}. It has the runs: {known}.")
    header = entry.runs[int(run)]
    if header is None:
        raise StoreError(
            f"Expected a whole run but run {run} of {entry.key[:SHORT]} is not: {entry.files.problem(int(run))}. The "
            f"next session trains it again."
        )
    if as_json:
        print(json.dumps(header, indent=1))
        return
    record, arrays = header["record"], header["arrays"]
    print(f"{entry.key}:{run}  {entry.name}\n")
    rows = [("status", record["status"]), ("seconds", f"{record['seconds']:.3f}")]
    rows += [("trained by", _trainer(record["trained_by"]))]
    rows += [(f"seed of {source}", str(seed)) for source, seed in record["seeds"].items()]
    rows += [(name, _plain(record[name])) for name in ("low_level", "perturbation", "fingerprint", "environment")]
    rows += [("logits", f"{arrays['dtype']} {arrays['shape']} in {arrays['file']}" if arrays else "none")]
    rows += [(f"score {name}", f"{score!r}") for name, score in record.get("scores", {}).items()]
    rows += [("weights", f"in {header['weights']['file']}")] if header.get("weights") else []
    rows += [(f"epoch {epoch}", _plain(values)) for epoch, values in enumerate(record["curve"])]
    _print_table(rows)
    if record["error"]:
        print(f"\n{harmless(record['error'])}")


def _why(catalog: Catalog, asked: argparse.Namespace) -> None:
    for number, history in enumerate(History.of(catalog, asked.study)):
        by = f" of {history.test}" if history.test else ""
        print(f"{chr(10) * (number > 0)}{history.task} [{history.varies}]{by}")
        rows = [("KEY", "AGE", "RUNS", "TRAINED BECAUSE")]
        for chapter in history.chapters:
            entry = chapter.entry
            reason = chapter.reason or "nothing was kept of this study before"
            rows.append((entry.key[:SHORT], _ago(entry.created), _counted(entry), reason))
        _print_table(rows)


def _verify(catalog: Catalog, asked: argparse.Namespace) -> int:
    entries = catalog.entries() if asked.key is None else [catalog.find(asked.key)]
    bad = runs = torn = 0
    for entry in entries:
        if entry.about_is_torn:
            torn += 1
            print(f"{entry.key[:SHORT]} is bad: {ABOUT} is torn. The next session that trains it writes it anew.")
        for index in entry.files.indices():
            runs += 1
            # Read twice: a session may have replaced the run between the reading of header and array.
            if problem := entry.files.problem(index) and entry.files.problem(index):
                bad += 1
                moved = f" {_move_away(entry, index)}" if asked.remove else ""
                print(f"{entry.key[:SHORT]}:{index} is bad: {problem}.{moved}")
        for epoch in entry.prefixes.epochs():
            if problem := entry.prefixes.problem(epoch) and entry.prefixes.problem(epoch):
                torn += 1
                state = f"{entry.key[:SHORT]}: the state before epoch {epoch}"
                print(f"{state} is bad: {problem}. The next session that needs it trains it again.")
    print(f"As written: {runs - bad} of {_plural(runs, 'run')} in {_plural(len(entries), 'experiment')}.")
    return BAD if bad or torn else OK


def _move_away(entry: Entry, index: int) -> str:
    locks = entry.claims.locks
    if not locks.acquire(index):
        return "Left alone: it is being trained again."
    try:
        if not entry.files.problem(index):
            return "Left alone: it has just been trained again."
        entry.files.retire(index)
        return "Moved to old/; the next session trains it again."
    finally:
        locks.release(index)


def _prune(catalog: Catalog, asked: argparse.Namespace) -> None:
    narrow = asked.key is not None or asked.older_than is not None
    if not (narrow or asked.failed or asked.old or asked.all):
        raise StoreError(
            "Expected prune to be told what to remove but got nothing. Name experiments by --key or --older-than, only "
            "the --failed runs or --old files, or --all."
        )
    if asked.all and (narrow or asked.failed or asked.old):
        raise StoreError("Expected --all to stand alone, but it came with what selects less. Leave one of them out.")
    entries = catalog.entries() if asked.key is None else [catalog.find(asked.key)]
    pruning = Pruning(catalog, older_than=asked.older_than or 0.0, rehearsal=asked.dry_run)
    removals = pruning.failed_runs(entries) if asked.failed else []
    if asked.old:
        removals += pruning.old(entries)
    if not (asked.failed or asked.old):
        removals += pruning.experiments(entries)
    if asked.key is None:
        removals += pruning.leftovers()
        if asked.old or asked.all:
            removals += pruning.other_formats()
    done = "Would remove" if asked.dry_run else "Removed"
    for one in removals:
        print(f"Kept {one.what}: {one.kept}." if one.kept else f"{done} {one.what}, {_sized(one.bytes)}.")
    freed = [removal.bytes for removal in removals if not removal.kept]
    print(f"{done} {_plural(len(freed), 'thing')}, {_sized(sum(freed))}." if freed else "Nothing to remove.")


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name,
        description="Look at, check and prune the runs that stabilitykit keeps.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stabilitykit {__version__}")
    parser.add_argument("--store", type=Path, metavar="PATH", help="the store (default: .stabilitykit here or above)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    listing = _command(commands, "list", _list, "one line for each experiment")
    size = _command(commands, "size", _size, "the space that each part takes")
    show = _command(commands, "show", _show, "one experiment, or one run of it")
    show.add_argument("what", metavar="KEY[:RUN]", help="the beginning of a key, and the number of a run")
    for command in (listing, size, show):
        command.add_argument("--json", action="store_true", help="write JSON")

    why = _command(commands, "why", _why, "why runs were trained again: what differs from the last time")
    why.add_argument("study", metavar="STUDY", help="the name of a task, the id of a test, or the beginning of a key")
    why.add_argument("--store", type=Path, metavar="PATH", default=argparse.SUPPRESS, help="the store")

    verify = _command(commands, "verify", _verify, "read all runs, and name those that are not as they were written")
    verify.add_argument("key", metavar="KEY", nargs="?", help="only runs of this experiment")
    verify.add_argument("--remove", action="store_true", help="move bad runs to old/, so that they are trained again")

    prune = _command(commands, "prune", _prune, "remove experiments, failed runs or old files")
    prune.add_argument("--older-than", type=_age, metavar="AGE", help="only experiments not used for AGE: 12h, 30d, 2w")
    prune.add_argument("--key", metavar="KEY", help="only this experiment")
    prune.add_argument("--failed", action="store_true", help="only runs that failed, or cannot be read")
    prune.add_argument("--old", action="store_true", help="only files that were moved to old/, and earlier formats")
    prune.add_argument("--all", action="store_true", help="every experiment, and earlier formats")
    prune.add_argument("--dry-run", action="store_true", help="remove nothing, and say what would be removed")
    return parser


def _command(commands: Any, name: str, carry_out: Callable[..., int | None], help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help.capitalize() + ".")
    parser.set_defaults(carry_out=carry_out)
    return parser


def _age(text: str) -> float:
    """Return the seconds of ``30d``."""
    found = re.fullmatch(r"(\d+)([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected an age such as 12h, 30d or 2w but got {text!r}")
    return int(found[1]) * {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}[found[2]]


def _counted(entry: Entry) -> str:
    parts = [f"{count} {what}" for what, count in entry.count().items() if count]
    if epochs := entry.prefixes.epochs():
        parts.append(f"states before epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}")
    return ", ".join(parts) or "none"


def _trainer(by: dict[str, Any]) -> str:
    attempt = f", attempt {by['attempt']}" if by.get("attempt", 1) != 1 else ""
    return f"{by.get('worker', 'main')}, pid {by.get('pid')}, {by.get('host')}{attempt}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sized(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _ago(then: float) -> str:
    seconds = max(0.0, time.time() - then)
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    print(*aligned([[harmless(cell) for cell in row] for row in rows], "<" * len(rows[0])), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
