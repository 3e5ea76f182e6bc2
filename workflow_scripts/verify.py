"""Is every file as its job left it, and are numbers that are computed again the same?"""

import re
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.audits import Finding, Record, findings, numbers, read_records, same_numbers
from diffalign.job_records import code_of, place_of
from diffalign.randomness import keyed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_SCRIPTS = Path(__file__).resolve().parent


class Mismatch(ValueError):
    """Files that are not as their jobs left them; the message names all of them."""


class Given(list[Any]):
    """Files or parameters of a job as Snakemake gives them: by number, by name and as an attribute."""

    def __init__(self, values: Sequence[Any], named: dict[str, Any]) -> None:
        super().__init__(values)
        self.named = named

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["named"][name]
        except KeyError:
            raise AttributeError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        return self.named.get(name, default)

    def items(self) -> Iterator[tuple[str, Any]]:
        """All names and their values."""
        yield from self.named.items()


def verify(kept: Path, folder: Path, sample: int, seed: int, temporary: str) -> None:
    """Check all files of a study, and compute those of `sample` jobs again.

    kept: the folder of records. folder: the one that paths of a study begin in, the current one. seed: of the draw of
    jobs. temporary: pattern of paths that are removed once they have been read. Raises Mismatch that names every file
    that was edited, cut off or replaced, or was made by other code, from other inputs or with other numbers.
    """
    records = read_records(kept)
    if not records:
        raise Mismatch(f"no job has left a record below {kept}, so there is nothing to verify")
    found = findings(records, folder, re.compile(temporary), code_now)
    # those of other code are findings already, and their scripts may be gone
    could = [record for record in numbers(records, folder) if record["code"] == code_now(record)]
    drawn = keyed(seed, "verify", "jobs").permutation(len(could))[:sample]
    for index in logs.progress(sorted(drawn), len(drawn), "verify"):
        found += different(could[index], folder)
    if found:
        listed = "\n".join(f"  {each}" for each in found)
        raise Mismatch(f"{len(found)} findings in the files of {len(records)} jobs:\n{listed}")
    logs.log.info("the files of %d jobs are as they were written; %d jobs computed again", len(records), len(drawn))


def code_now(record: Record) -> str:
    """The digest of the code of a job as it is now."""
    return code_of(_SCRIPTS / record["script"], record["families"])


def different(record: Record, folder: Path) -> list[Finding]:
    """The numbers of a job that are others when its script runs again."""
    logs.log.info("computing again: %s", ", ".join(record["written"]))
    with TemporaryDirectory() as scratch:
        job = again(record, Path(scratch))
        try:
            runpy.run_path(str(_SCRIPTS / record["script"]), {"snakemake": job}, "__main__")
        except SystemExit:
            # the last line says how long it took, the one before why it ended
            said = Path(job.log[0]).read_text(encoding="utf-8", errors="replace").splitlines()
            why = f"could not be computed again: {said[-2] if len(said) > 1 else 'no reason given'}"
            return [Finding(next(iter(record["written"])), why)]
        return [
            Finding(path, "holds other numbers than its job gives when it runs again")
            for path in record["written"]
            if (folder / path).is_file() and not same_numbers(folder / path, Path(scratch) / path)
        ]


def again(record: Record, scratch: Path) -> Any:
    """What Snakemake gave to the script of a job, with outputs in another folder."""
    inputs, outputs, params = record["inputs"], record["outputs"], record["params"]

    def moved(path: Any) -> Any:
        return str(scratch / path) if isinstance(path, str) else [moved(each) for each in path]

    return SimpleNamespace(
        input=Given(inputs["all"], inputs["named"]),
        output=Given(moved(outputs["all"]), {name: moved(path) for name, path in outputs["named"].items()}),
        params=Given(list(params.values()), params),
        wildcards=Given(list(record["wildcards"].values()), record["wildcards"]),
        resources=SimpleNamespace(**record["resources"]),
        threads=record["threads"],
        log=[str(scratch / "job.log")],
        rule=record["rule"],
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "verify"):
        params = snakemake.params
        verify(place_of(Path(snakemake.log[0])).parent, Path(), params.sample, params.seed, params.temporary)
