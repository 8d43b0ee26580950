"""`robopref prof`: reward code for offline data, written by a language model and ranked against one expert trajectory.

Comes after data (datasets/d4rl.py); what it writes, OUT/reward.py, is a reward of `robopref train`.  A person may edit a copy of
it and rank that beside others, in another folder: files=[mine.py,OUT/reward.py], candidates=0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from robopref.configs.errors import RoboprefError, UsageError, visible
from robopref.configs.files import as_written, atomic_file, plain, read_json, write_json
from robopref.configs.prof import PROFConfig
from robopref.configs.progress import tell_end
from robopref.configs.run import is_complete, write_manifest
from robopref.configs.run_folder import run_folder
from robopref.datasets.d4rl import clipped, load_offline
from robopref.datasets.offline import OfflineData
from robopref.embodied.control import full_name
from robopref.embodied.fields import Described, described
from robopref.preference.chat import Chat
from robopref.preference.imitation.experts import best_episodes
from robopref.preference.prof.code import Fields
from robopref.preference.prof.grammar import Grammar
from robopref.preference.prof.names import names_of
from robopref.preference.prof.ranking import Comparison
from robopref.preference.prof.sandbox import Sandbox
from robopref.preference.prof.search import Candidate, Search, fields_of
from robopref.preference.prof.writers import Endpoint, Manual, Recorded, Replay, Writer
from robopref.preference.prof.written import COLUMNS, read_code

REWARD, RANKING, TRANSCRIPT, SUMMARY = "reward.py", "ranking.csv", "transcript.jsonl", "summary.json"
SHOWN = 12  # lines of the table
NUMBERS = ("dominance", "margin", "order", "gap", "constant")  # columns of the table that hold numbers, or nothing
AGAIN = "delete it and run `robopref prof` again"


def main(config: PROFConfig) -> None:
    """`robopref prof`."""
    began = time.time()
    out = run(config if config.fields else replace(config, env=full_name(config.env)))
    show(out)
    again = f"files=[mine.py,{out / REWARD}] candidates=0 rounds=0 out={out}-edited"
    print(f"to edit {out / REWARD}, copy it to mine.py and rank both, with the same env and data: {again}")
    then = ["train", "policy=iql_d4rl", f"data={config.data}", f"reward={out / REWARD}"]
    tell_end(out, began, f"the candidate marked * in {REWARD}", "robopref", *then)


def run(config: PROFConfig) -> Path:
    """Write, rank and improve; return the folder, which is kept when it is complete."""
    for path in config.files:
        read_code(path)  # that there is no code is said before the folder is looked at
    inputs = {f"file {number}": path for number, path in enumerate(config.files)}
    sets = {"data": config.data, "experts": config.expert_data}
    inputs |= {name: Path(where) for name, where in sets.items() if where is not None and Path(where).exists()}
    read = {"fields": config.fields, "transcript": config.writer.transcript if config.writer.kind == "replay" else None}
    inputs |= {name: path for name, path in read.items() if path is not None}
    if not config.overwrite and not is_complete(config.out, config, inputs):
        refuse_edited(config.out)
    writes = (REWARD, COLUMNS, RANKING, SUMMARY, TRANSCRIPT, "candidates/*")
    with run_folder(config.out, "prof", config, inputs, overwrite=config.overwrite, writes=writes) as complete:
        if not complete:
            search(config, inputs)
    return config.out


def refuse_edited(out: Path) -> None:
    """RoboprefError when the reward that an earlier run chose has been edited since, which the same command would undo."""
    path = out / REWARD
    made = {file.read_bytes() for file in (out / "candidates").glob("*.py")}
    if path.is_file() and made and path.read_bytes() not in made:
        raise RoboprefError(
            f"{path} has been edited since it was chosen: move it elsewhere, and rank it with files=[...] out=..."
        )


def search(config: PROFConfig, inputs: Mapping[str, Path]) -> None:
    """Write, rank and improve, and leave the chosen code and the table."""
    started = time.time()
    codes = [read_code(path) for path in config.files]
    world = described(config.env, config.fields)
    check_names(fields_of(world), config.fields)
    data = clipped(load_offline(config.data))  # as learners see it
    pool = data if config.expert_data is None else clipped(load_offline(config.expert_data))
    experts = best_episodes(pool, config.experts)
    for part in (data, experts):
        check_sizes(world, part)
    writer = Recorded(make_writer(config, world, experts), config.out / TRANSCRIPT, config.writer)
    with Comparison(data, experts, config.ranking, config.seed) as comparison:
        found = Search(world, experts.take([0]), comparison, Sandbox(config.sandbox), writer, config)
        try:
            chosen = found.run(list(zip(names_of(config.files, found.own_names()), codes, strict=True)))
        except KeyboardInterrupt as stop:
            count = len(writer.kept)
            what = f"{count} answer{'s are' if count > 1 else ' is'} kept in {writer.path}"
            kept = what if count else "there is no answer to keep yet"
            raise type(stop)(f"{kept}, and the same command continues") from None
    write(config.out, world, found, chosen)
    outputs = [REWARD, COLUMNS, RANKING, TRANSCRIPT, "candidates"]
    write_manifest(config.out, "prof", config, inputs, config.seed, started, outputs)


def make_writer(config: PROFConfig, world: Described, experts: OfflineData) -> Writer:
    """Who `writer.kind` says."""
    asked = config.writer
    if asked.kind == "grammar":
        return Grammar(fields_of(world), experts.take([0]), config.seed)
    if asked.kind == "manual":
        return Manual(config.out / "manual")
    if asked.kind == "replay":
        if asked.transcript is None:
            raise UsageError("writer.kind=replay needs writer.transcript=FILE, transcript.jsonl of an earlier run")
        return Replay(asked.transcript)
    if asked.chat.model is None:
        raise UsageError("writer.kind=openai needs writer.chat.model=NAME, and writer.chat.base_url where it is not OpenAI's")
    return Endpoint(Chat(asked.chat, config.out / "answers"))


def check_names(fields: Fields, where: Path | None) -> None:
    """RoboprefError naming the file `where` (None: the built-in one) and the first column that code cannot call by its name."""
    if unusable := [name for name in (*fields.obs, *fields.act) if name not in fields.columns]:
        raise RoboprefError(
            f"{where or 'fields.yaml'}: code cannot call a column {unusable[0]!r}: give it a name of letters, digits and _ that "
            "means nothing else in Python"
        )


def check_sizes(world: Described, data: OfflineData) -> None:
    """RoboprefError when `data` has other columns than the words about them."""
    sizes = len(world.observations), len(world.actions)
    if data.dims != sizes:
        raise RoboprefError(
            f"{data.name} has {data.dims[0]} numbers an observation and {data.dims[1]} an action, but {world.env_id} is "
            f"described with {sizes[0]} and {sizes[1]}: give the env that the data are of, or fields=FILE.yaml"
        )


def write(out: Path, world: Described, search: Search, chosen: Candidate) -> None:
    """The chosen code, all code, and the table."""
    names = {"obs": list(search.fields.obs), "act": list(search.fields.act)}
    for candidate in search.candidates:
        save_code(out / "candidates" / f"{candidate.name}.py", candidate.score.source)
    for folder in (out, out / "candidates"):
        write_json(folder / COLUMNS, names)
    save_code(out / REWARD, chosen.score.source)
    with atomic_file(out / RANKING) as temp:
        pd.DataFrame(rows(search.candidates, chosen)).to_csv(temp, index=False, lineterminator="\n", float_format="%.6g")
    layers = sorted({layer for candidate in search.candidates for layer in candidate.score.layers})
    facts = {"env": world.env_id, "chosen": chosen.name, "layers": layers, "writer": search.writer.writer.name}
    write_json(out / SUMMARY, facts | plain(search.writer.spent()))


def save_code(path: Path, source: str) -> None:
    """Code to a file."""
    with atomic_file(path) as temp:
        temp.write_text(source, encoding="utf-8", errors="backslashreplace")  # of half a character that a model wrote


def rows(candidates: Sequence[Candidate], chosen: Candidate) -> list[dict[str, Any]]:
    """A row a candidate, the best first."""
    ordered = sorted(candidates, key=lambda candidate: candidate.score.key, reverse=True)
    return [
        {
            "candidate": candidate.name,
            "chosen": candidate.name == chosen.name,
            "round": candidate.round,
            "parent": candidate.parent,
            "dominance": candidate.score.dominance if (evidence := candidate.score.evidence) else None,
            "margin": candidate.score.margin if evidence else None,
            "order": evidence.order if evidence else None,
            "gap": evidence.gap if evidence else None,
            "constant": evidence.constant if evidence else None,
            "characters": len(candidate.score.source),
            "problem": candidate.score.problem,
        }
        for candidate in ordered
    ]


def read_ranking(folder: Path) -> pd.DataFrame:
    """The table of a finished run; what a candidate has not is an empty word."""
    path = folder / RANKING
    with as_written(path, AGAIN):
        table = pd.read_csv(path, dtype={"candidate": str, "problem": str}, keep_default_na=False)
        if missing := {"candidate", "chosen", *NUMBERS, "problem"} - set(table.columns):
            raise ValueError(f"no column {min(missing)}")
        if strange := [name for name in table["candidate"] if Path(name).name != name]:
            raise ValueError(f"candidate {strange[0]!r} is no name of a file")
        for column in NUMBERS:
            _ = [float(cell) for cell in table[column] if cell != ""]
        return table


def show(out: Path) -> None:
    """Print the table and the chosen code of a finished run."""
    console, ranking, facts = Console(), read_ranking(out), read_json(out / SUMMARY)
    with as_written(out / SUMMARY, AGAIN):
        title = f"{facts['env']}, written by {facts['writer']}; sandbox: {', '.join(facts['layers'])}"
    table = Table("candidate", *NUMBERS, "problem", title=plain_text(title))
    for row in ranking.head(SHOWN).to_dict("records"):
        mark = " *" if str(row["chosen"]) == "True" else ""
        numbers = (f"{float(row[c]):.3f}" if row[c] != "" else "" for c in NUMBERS)
        table.add_row(plain_text(f"{row['candidate']}{mark}"), *numbers, plain_text(row["problem"]))
    console.print(table)
    if len(ranking) > SHOWN:
        print(f"{len(ranking) - SHOWN} more in {out / RANKING}")
    console.print(Syntax(visible(read_code(out / REWARD)), "python", word_wrap=True))


def plain_text(text: str) -> Text:
    """Words that are shown as they are: brackets in them are no markup, and nothing in them steers the terminal."""
    return Text(visible(text))
