"""The chapters as assignments: students' copies, and grading what comes back.

questions, release   what a chapter asks; copies without solutions
submission, screen   whose cell is whose, and what can be said without running it
judge, isolate       one submission, in processes of its own
runner, child, watch   what these processes do
"""

import csv
import os
from pathlib import Path

from lib.params import ConfigError


def exercises(*names: str) -> None:
    """Write the students' copies of chapters, by default of all, to results/exercises/."""
    from lib.course import questions, release

    for name in names or questions.names():
        print(release.release(name))


def grade(chapter: str, where: str, *pairs: str) -> None:
    """Grade one notebook, or each notebook of a folder into <folder>/grades-<chapter>.csv.

    pairs: 'seconds=60' and 'memory=2', the time by the clock and the GiB that one question may take.
    """
    from lib.course import isolate
    from lib.course.judge import judge
    from lib.course.questions import path

    place, options, name = Path(where), _options(pairs), path(chapter).stem
    if not place.exists():
        raise ConfigError(f"there is no {where}: name a notebook, or a folder of them")
    if not isolate.possible():
        print("not isolated: this machine gives no namespaces, so a submission could reach the network and your files")
    if place.is_file():
        print(judge(chapter, place, **options).text())
        return
    files = sorted(file for file in place.glob("*.ipynb") if file.is_file())
    if not files:
        raise ConfigError(f"no *.ipynb in {where}")
    table = place / f"grades-{name}.csv"
    rows = _rows(table, files)
    for number, file in enumerate(files, 1):
        found = judge(chapter, file, **options)
        print(f"submission {number}/{len(files)}  {file.name}  {'/'.join(map(str, found.total()))}", flush=True)
        rows[file.name] = _row(found)
        _write(table, rows)
    print(f"\n{_shown(rows)}\n\n{table}")


def _options(pairs: tuple[str, ...]) -> dict[str, float]:
    """seconds and memory, as numbers."""
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0
        if name not in ("seconds", "memory") or not 0 < found[name] < 1e6:
            raise ConfigError(f"'{pair}' is no option: there are seconds=120 and memory=2 (GiB), both above 0")
    return found


def _row(found) -> dict[str, str]:
    """A grade as a line of the table."""
    got, of = found.total()
    remarks = [f"{name}: {found.reasons[name]}" for name in found.of if found.reasons.get(name)] + found.remarks
    points = {name: str(points) for name, points in found.points.items()}
    return {"submission": found.submission, "points": str(got), "of": str(of), **points, "remarks": "; ".join(remarks)}


def _rows(table: Path, files: list[Path]) -> dict[str, dict]:
    """What an earlier, perhaps interrupted, run has found of these files."""
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        found = {row.get("submission"): row for row in csv.DictReader(file)}
    return {file.name: found[file.name] for file in files if file.name in found}


def _write(table: Path, rows: dict[str, dict]) -> None:
    """Write the table at once, so that an interruption leaves it whole."""
    columns = list(list(rows.values())[-1])
    temporary = table.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: _tame(value) for key, value in rows[name].items()} for name in sorted(rows))
    os.replace(temporary, table)


def _tame(value: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return "'" + value if value[:1] in ("=", "+", "-", "@") else value


def _shown(rows: dict[str, dict]) -> str:
    """The table without remarks."""
    lines = [[key for key in list(rows.values())[-1] if key != "remarks"]]
    lines += [[rows[name].get(key, "") for key in lines[0]] for name in sorted(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{word:{w}}" for word, w in zip(line, widths, strict=True)).rstrip() for line in lines)
