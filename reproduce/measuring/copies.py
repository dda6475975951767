"""How near samples are to the training images, as rows: a share and its tail, in pixels and in 768 features.

| metric | what it is |
|---|---|
| `nearer_pixels`, `nearer_768` | probability that a sample is nearer to its nearest training image than held-out ones |
| `copied_pixels`, `copied_768` | share of samples nearer than the 1 % quantile of the held-out images' distances |

The spread of a row is its standard error.
"""

import time
from collections.abc import Iterator, Sequence

from jlebm.evaluation.fidelity import NotMeasured
from jlebm.evaluation.training_images import SPACES, Space, copied_in, nearer_in
from reproduce.measuring.row_store import Answer, Part, Rows, Wanted
from reproduce.measuring.sample_sets import SampleSets
from reproduce.results.identity import Of


def copies(rows: Rows, samples: SampleSets, source: str) -> Iterator[Part]:
    """Yield the parts of one source's distances to the training images, in each space; none without --held-out."""
    training, count = rows.session.training, samples.count(source)
    if training is None:
        return
    for space in SPACES:
        if space != "pixels" and source not in rows.session.size.judged:
            reason = f"the images of the {source} do not go through Inception here"
            rows.session.lacks(NotMeasured(nearer_in(space), reason, "take a larger --preset without a variation"))
        elif (refused := training.refusal(space, count)) is not None:
            rows.session.lacks(refused)
        else:
            yield _part(rows, samples, source, space)


def _part(rows: Rows, samples: SampleSets, source: str, space: Space) -> Part:
    training, count = rows.session.training, samples.count(source)
    assert training is not None
    by = "" if space == "pixels" else str(training.extractor)
    names = (nearer_in(space), copied_in(space))
    wanted = [Wanted(name, Of(source), count, reference=training.describe(space), extractor=by) for name in names]

    def answers(asked: Sequence[Wanted]) -> Iterator[Answer]:
        drawn, started = samples[source].images, time.monotonic()
        shares = training.copying(drawn, space)
        seconds = {"sample": samples.seconds[source], "evaluate": time.monotonic() - started}
        for one, share in zip(wanted, shares, strict=True):
            if one in asked:
                yield Answer(one, share.value, seconds, {"spread": share.error})

    return Part(wanted, answers)
