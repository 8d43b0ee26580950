"""`robopref pipeline`: the main job, from scripted rollouts to a report, on a task that VLP never saw.

    collect -> pretrain -> train-vlp -> annotate -> train -> evaluate -> video -> report

Each stage is a command of its own and keeps what it has finished, so a killed pipeline goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from robopref.configs.errors import RoboprefError
from robopref.configs.files import as_written, read_json, write_json
from robopref.configs.parallel import in_processes
from robopref.configs.pipeline import PipelineConfig
from robopref.configs.policy import EvaluateConfig, PolicyConfig, TrainConfig
from robopref.configs.run import write_manifest
from robopref.configs.run_folder import run_folder
from robopref.configs.show import ReportConfig, VideoConfig
from robopref.datasets import collect
from robopref.datasets.clips import FrameBank
from robopref.datasets.preferences import AGREEMENT, side_folder
from robopref.embodied.tasks import canonical, expand_tasks, task
from robopref.policies import evaluate, report, train, video
from robopref.preference import annotate, pretrain
from robopref.preference import train as train_vlp
from robopref.preference.agreement import format_table
from robopref.preference.baselines.motion import MOTIONS
from robopref.preference.generalisation import generalisation, motion_scores, order_measures
from robopref.preference.vlp import VLPScorer

LABELLERS: tuple[Literal["vlp", "scripted"], ...] = ("vlp", "scripted")
CHEAP: tuple[Literal["constant", "hand-displacement", "motion-share"], ...] = ("constant", "hand-displacement", "motion-share")
"""Labellers without pixels or words, from whose labels no policy learns: what VLP's agreement has to be read beside."""


def main(config: PipelineConfig) -> None:
    """`robopref pipeline`."""
    run(config)


def run(config: PipelineConfig) -> Path:
    """Run every stage; return the report.  Prints a line a stage and, last, where the report is."""
    started = time.time()
    job = Job(config)
    page = config.out / "report.html"
    with run_folder(config.out, "pipeline", config, {}, overwrite=config.overwrite, writes=[page.name]) as complete:
        if complete and page.exists():
            print(f"already done, report: {page.resolve()}", flush=True)
        else:
            run_stages(job, started)
            print(f"report: {page.resolve()}", flush=True)
    return page


def run_stages(job: Job, started: float) -> None:
    """One after the other, a line each."""
    config = job.config
    for number, stage in enumerate(job.stages, 1):
        clock = time.time()
        print(f"[{number}/{len(job.stages)}] {stage.__name__.replace('_', '-')} ...", flush=True)
        said = stage()
        print(f"      {said}  ({time.time() - clock:.0f} s)", flush=True)
        if stage == job.video:
            # The report reads this manifest, so it is written before the report and not after.
            write_manifest(config.out, "pipeline", config, {}, config.seed, started)


class Job:
    """The stages of one pipeline, in order; each returns a line that says what came of it."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.out = config.out
        self.task = task(config.task).name
        self.train_tasks = tuple(name for name in expand_tasks(config.train_tasks) if name != self.task)
        if len(self.train_tasks) < 2:
            raise RoboprefError(f"train_tasks={list(config.train_tasks)} leaves {len(self.train_tasks)} tasks; VLP needs two.")
        self.instruction = config.instruction or canonical(self.task)
        self.offline = self.out / "offline" / self.task
        self.stages: tuple[Callable[[], str], ...] = (
            self.collect,
            self.pretrain,
            self.train_vlp,
            self.annotate,
            self.train,
            self.evaluate,
            self.video,
            self.report,
        )

    def collect(self) -> str:
        """Episodes and frames of the train tasks and of the held-out one, and the held-out task's offline data."""
        names = (*self.train_tasks, self.task)
        episodes, clips, seed = self.out / "episodes", self.out / "clips", self.config.seed
        settings = replace(self.config.collect, processes=self.config.processes, out=episodes, clips=clips)
        collect.run(replace(settings, tasks=names, seed=seed))
        # Another seed: the offline data must not share an episode with anything that VLP's measures are taken on.
        settings = replace(self.config.offline, processes=self.config.processes, out=self.offline.parent, clips=None)
        collect.run(replace(settings, tasks=(self.task,), seed=seed + 1))
        return f"{len(names)} tasks in {episodes}, offline data of {self.task} in {self.offline}"

    def pretrain(self) -> str:
        """The small backbone, from the train tasks alone."""
        settings = self.config.pretrain
        out = pretrain.run(
            replace(
                settings,
                out=self.out / "backbone",
                clips=self.out / "clips",
                tasks=self.train_tasks,
                seed=self.config.seed,
            )
        )
        return f"{out}"

    def train_vlp(self) -> str:
        """VLP from the train tasks alone, and how well it orders the held-out task's episodes."""
        backbone = self.config.vlp.backbone
        if backbone.startswith("small:"):
            backbone = f"small:{self.out / 'backbone'}"
        clips = self.out / "clips"
        folder = train_vlp.run(
            replace(
                self.config.vlp,
                out=self.out / "vlp",
                clips=clips,
                backbone=backbone,
                tasks=self.train_tasks,
                seed=self.config.seed,
            )
        )
        bank = FrameBank([clips / name for name in (*self.train_tasks, self.task)])
        scorer = VLPScorer.load(folder)
        measures = {
            part: generalisation(scorer, bank, self.task, self.train_tasks, folder / "features", part=part)
            for part in ("train", "heldout")
        }
        by_hand = {
            motion: order_measures(motion_scores(bank, motion), bank.index, self.task, self.train_tasks) for motion in MOTIONS
        }
        # The digest, because a VLP trained anew in the same folder would leave these measures beside other weights.
        found = {"task": self.task, "model": scorer.digest, "wordings": measures, "without_pixels": by_hand}
        write_json(folder / "generalisation.json", found)
        itp, ivp, ilp = (measures["train"][key] for key in ("itp_accuracy", "ivp_accuracy", "ilp_loss"))
        told = ", ".join(f"{motion} {row['itp_accuracy']:.3f}" for motion, row in by_hand.items())
        return f"{self.task}, never seen: IVP accuracy {ivp:.3f}, ITP accuracy {itp:.3f} ({told}), ILP loss {ilp:.3f}"

    def annotate(self) -> str:
        """The same pairs, labelled by VLP from pixels and the instruction, by the true return, and by what is cheap."""
        settings = replace(
            self.config.annotate,
            episodes=self.offline,
            instruction=self.instruction,
            model=(self.out / "vlp",),
            seed=self.config.seed,
        )
        for labeller in LABELLERS:
            annotate.run(replace(settings, labeller=labeller, out=self.labels(labeller)))
        for cheap in CHEAP:
            annotate.run(replace(settings, labeller=cheap, out=self.labels(cheap), abstain=0.0))
        agreements: dict[str, dict[str, float]] = {name: read_json(side_folder(self.labels(name)) / AGREEMENT) for name in CHEAP}
        with as_written(self.out / "labels", "delete it and run the same command again"):
            return f"{annotate.summary(self.labels('vlp'))}\n{format_table(agreements)}"

    def labels(self, labeller: str) -> Path:
        """Where the labels of a labeller are."""
        return self.out / "labels" / f"{labeller}.parquet"

    def train(self) -> str:
        """Cloning without labels, P-IQL and CPL from either labeller's: one process a policy, one thread each."""
        runs: dict[str, tuple[PolicyConfig, Path | None]] = {"bc": (self.config.bc, None)}
        for labeller in LABELLERS:
            runs[f"piql-{labeller}"] = (self.config.piql, self.labels(labeller))
            runs[f"cpl-{labeller}"] = (self.config.cpl, self.labels(labeller))
        jobs = [
            TrainConfig(self.out / "policies" / name, self.offline, policy, labels, self.config.policy_seeds, device="cpu")
            for name, (policy, labels) in runs.items()
        ]
        what = "policies:" if self.config.processes > 1 else ""  # in this process each shows its own progress
        for _ in in_processes(train.run, [(job,) for job in jobs], self.config.processes, what):
            pass
        return f"{', '.join(runs)} in {self.out / 'policies'}"

    def policies(self) -> tuple[str, ...]:
        """The policy folders, in the order of the tables."""
        names = ("bc", *(f"{kind}-{labeller}" for kind in ("piql", "cpl") for labeller in LABELLERS))
        return tuple(str(self.out / "policies" / name) for name in names)

    def evaluate(self) -> str:
        """Success of every policy and member on the same fixed goals, between random and the scripted expert."""
        config = EvaluateConfig(
            policy=("random", *self.policies(), "expert"),
            out=self.out / "evaluation",
            env=f"metaworld/{self.task}",
            goals=self.config.goals,
            max_steps=self.config.max_steps,
            references=len(self.config.policy_seeds),
            processes=self.config.processes,
        )
        evaluate.run(config)
        summary = read_json(path := config.out / "summary.json")
        with as_written(path, "delete its folder and run the same command again"):
            return ", ".join(f"{name} {row['iqm']:.2f}" for name, row in summary.items())

    def video(self) -> str:
        """Films of the policies that learnt from VLP's labels."""
        filmed = tuple(policy for policy in self.policies() if policy.endswith("-vlp"))
        config = VideoConfig(
            policy=filmed,
            env=f"metaworld/{self.task}",
            out=self.out / "videos",
            goals=self.config.film_goals,
            first_goal=EvaluateConfig.first_goal,
            model=self.out / "vlp",
            instruction=self.instruction,
            max_steps=self.config.max_steps,
            quality=self.config.film_quality,
        )
        return str(video.run(config))

    def report(self) -> str:
        """One page about all of it."""
        return str(report.run(ReportConfig(run=self.out)))
