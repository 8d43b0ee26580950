"""The model card of a shared VLP: what the hub shows, and what a stranger must know before trusting a score.

Every number is read from the run's own files (manifest, generalisation.json, agreement.json), none is written here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError

from robopref.configs.errors import visible
from robopref.configs.files import MANIFEST, digest, read_json, read_record
from robopref.datasets.preferences import AGREEMENT, read_preferences
from robopref.embodied.tasks import TASKS, canonical, expand_tasks
from robopref.preference.hub import WEIGHTS
from robopref.preference.train import PLACES

MEASURES = {  # key in the run's files -> (what it is called, the hub's type of metric)
    "itp_accuracy": ("ITP accuracy (higher level over lower, chance 0.5)", "accuracy"),
    "ivp_accuracy": ("IVP accuracy (own task over another, chance 0.5)", "accuracy"),
    "ilp_loss": ("ILP loss (foreign instruction; indifference 0.693)", "loss"),
    "expert_over_medium": ("accuracy, expert over medium", "accuracy"),
    "expert_over_random": ("accuracy, expert over random", "accuracy"),
    "medium_over_random": ("accuracy, medium over random", "accuracy"),
    "accuracy": ("accuracy against the true return", "accuracy"),
    "constant_accuracy": ("accuracy of a constant label", "accuracy"),
    "cluster_accuracy": ("accuracy of knowing only which cluster is better", "accuracy"),
    "balanced_accuracy": ("balanced accuracy", "balanced_accuracy"),
    "clear_balanced_accuracy": ("balanced accuracy without near-ties", "balanced_accuracy"),
    "cluster_balanced_accuracy": ("accuracy balanced over which cluster wins", "balanced_accuracy"),
    "auc": ("AUC", "roc_auc"),
    "kendall_tau": ("Kendall tau", "kendall_tau"),
}
UNSAID = (*PLACES, "tasks", "backbone", "log_every", "checkpoint_every")  # said elsewhere in the card, or of one machine only
FEW = 10  # tasks left out are named up to this number


@dataclass(frozen=True)
class Evaluation:
    """Measures of one kind on one task."""

    task: str
    cases: str
    values: Mapping[str, float]


def model_card(
    name: str, reference: str, run: Path, config: Mapping[str, Any], files: Mapping[str, int], parameters: Mapping[str, int]
) -> str:
    """The card (Markdown below a YAML header) of the VLP in `run`, a folder that `robopref train-vlp` finished.

    reference: what --model is given to use it.  config: of the shared model.  files: name -> bytes.  parameters: name of
    a weights file -> how many are in it.
    """
    manifest = read_record(run / MANIFEST)
    trained = expand_tasks(manifest["config"]["tasks"])
    unseen = [task for task in TASKS if task not in trained]
    evaluations = list(read_evaluations(run))
    backbone = run / "backbone" / MANIFEST
    return render(
        Path(__file__).with_name("card.md.j2"),
        header=header(name, evaluations),
        name=name,
        reference=reference,
        config=config,
        trained=trained,
        unseen=unseen if len(unseen) <= FEW else None,
        total=len(TASKS),
        instruction=canonical(trained[0]),
        evaluations=evaluations,
        measures=MEASURES,
        settings=dict(settings(manifest["config"])),
        backbone_settings=dict(settings(read_json(backbone)["config"])) if backbone.exists() else {},
        manifest=manifest,
        files=files,
        parameters=parameters,
    )


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def markdown(value: object) -> str:
    """A name, a sentence or a number as words of one line in Markdown: no table, code, link, picture or HTML begins in it."""
    if isinstance(value, Markdown):
        return value
    text = " ".join(visible(str(value)).split("\n")).replace("\t", " ")
    text = text.replace("<", "&lt;").replace("`", "'").replace("|", "\\|")
    return re.sub(r"\](?=[(\[:])", r"\\]", text)


def render(template: Path, **words: Any) -> str:
    """A card of a template, which may include those of this folder; ValueError where the run has not said what stands in it.

    What is no `Markdown` is escaped on its way in: names and sentences are other people's words.
    """
    folders = [template.parent, Path(__file__).parent]
    env = Environment(
        loader=FileSystemLoader(folders), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=markdown
    )
    try:
        return env.get_template(template.name).render(words)
    except UndefinedError as error:
        raise ValueError(str(error)) from error


def header(name: str, evaluations: list[Evaluation]) -> Markdown:
    """The metadata that the hub reads, as YAML: evaluations become its model-index."""
    results = [
        EvalResult(
            task_type="robotics",
            task_name="Ordering clips under an instruction",
            dataset_type="metaworld",
            dataset_name=visible(f"Meta-World {evaluation.task}, {evaluation.cases}"),
            dataset_config=visible(evaluation.task),
            dataset_split=visible(evaluation.cases),
            metric_type=MEASURES[key][1],
            metric_name=MEASURES[key][0],
            metric_value=value,
        )
        for evaluation in evaluations
        for key, value in evaluation.values.items()
        if key in MEASURES and value is not None
    ]
    data = ModelCardData(
        license="apache-2.0",
        library_name="robopref",
        pipeline_tag="robotics",
        tags=["robotics", "preference-learning", "reward-model", "vision-language", "metaworld"],
        model_name=visible(name) if results else None,
        eval_results=results or None,
    )
    return Markdown(data.to_yaml())


def read_evaluations(run: Path) -> Iterator[Evaluation]:
    """What was measured of the VLP in `run`: its generalisation.json, and the labels that a pipeline let it write beside it.

    Only what holds the digest of exactly these weights counts: the folder may have been trained anew since.
    """
    weights = digest(run / WEIGHTS)
    ordered = run / "generalisation.json"
    measured = read_json(ordered) if ordered.exists() else {}
    if measured.get("model") == weights:
        for part, values in measured["wordings"].items():
            yield Evaluation(measured["task"], f"{values['tuples']:.0f} orders of whole episodes, {part} wordings", values)
    for path in sorted((run.parent / "labels").glob(f"*/{AGREEMENT}")):
        manifest = path.with_name(MANIFEST)  # missing while annotation is under way
        labelled_by = read_record(manifest)["inputs"].get("model", {}) if manifest.exists() else {}
        if labelled_by.get("sha256") == weights:
            table = read_preferences(path.parent.with_suffix(".parquet"))
            values = read_json(path)
            cases = f"{values['n']} labelled pairs of segments, {values['near_ties']} of them near-ties"
            cases += f" ({values['abstained']} more left out by abstention)" if "abstained" in values else ""
            yield Evaluation(str(table["task"].iloc[0]), cases, values)


def settings(config: Mapping[str, Any], unsaid: Collection[str] = UNSAID, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a manifest that say how a model was trained, nested ones as `group.key`, without those `unsaid`."""
    for key, value in config.items():
        if key in unsaid:
            continue
        if isinstance(value, Mapping):
            yield from settings(value, unsaid, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
