"""The ladder of priors: each trained for the same time below the same generator, and measured alike."""

import dataclasses

import numpy as np

from figures import plotting
from jlebm.devices import resolve_device
from jlebm.errors import UserError, nearest
from jlebm.evaluation import latent
from jlebm.experiment import Experiment
from jlebm.run import Run, open_run
from jlebm.sampling import Sampler
from jlebm.training import TrainState
from jlebm.weights import save_model
from reproduce.measuring.data_root import loaded
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.places import refuse_what_does_not_fit, try_places
from reproduce.measuring.row_store import Rows, Subject, stored
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.measuring.summary import print_own_verdicts
from reproduce.pipelines.arguments import refuse_processes
from reproduce.pipelines.command_arguments import PriorsArguments
from reproduce.pipelines.fitting import fitted
from reproduce.pipelines.joint import samples_folder, samples_of, subject_of
from reproduce.pipelines.pictures import SHOWN, figures_of, files_of, store, there
from reproduce.pipelines.plans import changes_of_one_stage
from reproduce.pipelines.run_page import leave_page
from reproduce.presets.extents import SOURCES
from reproduce.presets.prior_sizes import DATASET, FALLBACK, SIZES, PriorSize, experiment_of
from reproduce.results.identity import PRIORS, noise_option
from reproduce.results.prior_lines import LADDER, PriorLine
from reproduce.terminal.console import ConsoleReporter

DRAWN = ("samples", "training")  # pictures of a run


def run_priors(arguments: PriorsArguments) -> None:
    """Train and measure each prior and seed that is asked for, and print the verdicts."""
    report = ConsoleReporter()
    refuse_processes("the priors")
    lines, size = _chosen(arguments), _size(arguments)
    device, root = resolve_device(arguments.device), arguments.root(report)
    try_places(arguments.results, arguments.runs)
    dataset = loaded(root, DATASET, arguments.dataset, FALLBACK if size.name == "tiny" else None)
    shape, there_are = dataset.images.shape[1:], len(dataset.images)
    report.line(f"preset {size.name}, data: {dataset.name}, {there_are} images, {dataset.origin}")
    experiments = [_planned(line, size, dataset.name, shape, arguments) for line in lines]
    refuse_what_does_not_fit(size.images, shape, len(SOURCES) * len(lines) * len(arguments.seeds), arguments.runs)
    session = Session.prepare(PRIORS, dataset, _within(size, there_are), root, device, arguments.noise)
    subjects = []
    for line, experiment in zip(lines, experiments, strict=True):
        for seed in arguments.seeds:
            with open_run(arguments.runs, experiment, seed) as run:
                report.line(f"prior {line.name}: {line.title}")
                state = fitted(run, dataset.images, device, report)
                subject = _subject(line, session, run, experiment, state)
                _measure(run, experiment, state, Rows(subject, session, arguments.results))
                leave_page(run, session, arguments.results)
                subjects.append(subject)
    print_own_verdicts(subjects, session, arguments.seeds, arguments.results)


def _chosen(arguments: PriorsArguments) -> list[PriorLine]:
    """Return the priors that are asked for, in the order of the ladder.

    Raises:
        UserError: a name is unknown, or an option is for one prior alone.
    """
    known = {line.name: line for line in LADDER}
    for name in arguments.priors:
        if name not in known:
            raise UserError(f"{name!r} is no prior of the ladder{nearest(name, known)}")
    if arguments.set and len(set(arguments.priors)) != 1:
        raise UserError("--set applies to one prior; name it with --priors")
    return [line for name, line in known.items() if name in (arguments.priors or known)]


def _size(arguments: PriorsArguments) -> PriorSize:
    if arguments.preset not in SIZES:
        raise UserError(f"unknown preset {arguments.preset!r}{nearest(arguments.preset, SIZES)}")
    size = SIZES[arguments.preset]
    images = size.images if arguments.images is None else arguments.images
    if images < latent.FEWEST:
        raise UserError(f"--images must be at least {latent.FEWEST}, what the two-sample test needs, not {images}")
    return dataclasses.replace(size, images=images)


def _within(size: PriorSize, there_are: int) -> PriorSize:
    """Return the size with no more reference images than there are training images."""
    asked = size.reference_images
    return dataclasses.replace(size, reference_images=None if asked is None else min(asked, there_are))


def _planned(
    line: PriorLine, size: PriorSize, dataset: str, shape: tuple[int, ...], arguments: PriorsArguments
) -> Experiment:
    return experiment_of(line, size, dataset, shape).override(changes_of_one_stage(arguments))


def _subject(line: PriorLine, session: Session, run: Run, experiment: Experiment, state: TrainState) -> Subject:
    return dataclasses.replace(
        subject_of(session, run, experiment, state),
        model=line.name,
        variation=line.variation | noise_option(session.noise),
    )


def _measure(run: Run, experiment: Experiment, state: TrainState, rows: Rows) -> None:
    """Store the rows that the results still lack, the weights and the pictures."""
    session, model = rows.session, state.evaluated_model()
    samples = samples_of(run, experiment, state, rows)
    SampleMetrics(rows, samples).measure()
    rows.fill(judged_latents(rows, samples, model.backbone.latent_shapes))
    into = samples_folder(run, session)
    left = [run.weights, *samples.paths, *files_of(rows, into, DRAWN), *figures_of(into, DRAWN)]
    if rows.added == 0 and there(left):
        session.report.line(f"everything in {run.folder} was measured before; its rows are kept")
        return
    header = run.header() | {"step": state.step, "weights": rows.subject.weights}
    save_model(run.weights, model, header, Sampler(experiment.prior_chain))
    shown = {source: np.array(samples[source].images[:SHOWN]) for source in SOURCES if source in samples.draws}
    curves = plotting.recorded(run.events())
    store("samples", {source.replace("-", "_"): some for source, some in shown.items()}, rows, into)
    store("training", curves, rows, into)
    plotting.save(plotting.image_rows(shown, columns=SHOWN // 2), into / "samples")
    plotting.save(plotting.curve_panels(curves), into / "training")
    session.report.line(f"{stored(rows)}; pictures are in {into}, the weights in {run.folder}")
