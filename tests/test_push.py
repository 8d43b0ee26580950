"""Sharing a VLP: the pushed folder scores like the run, its card says what the run's files say, and the hub may fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzz_models
import numpy as np
import open_clip
import pandas as pd
import pytest
from hub_stub import TOKEN, Hub, serving
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from small_run import labelled_pairs

from robopref.configs import cli
from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import digest, read_json, write_json
from robopref.configs.push import PushConfig
from robopref.configs.run import write_manifest
from robopref.configs.vlp import ModelConfig, PretrainConfig, TrainVLPConfig
from robopref.datasets.preferences import write_preferences
from robopref.embodied.video import write_video
from robopref.policies import push
from robopref.preference import pretrain, train
from robopref.preference.backbone import load_backbone
from robopref.preference.card import markdown
from robopref.preference.hub import FILES, PICTURES, find_model, parse_reference
from robopref.preference.vlp import KIND, VLP, VLPScorer

TRAINED = ("drawer-open", "door-open", "window-close")
UNSEEN = "drawer-close"
ORDERED = {
    "itp_accuracy": 0.91796875,
    "ivp_accuracy": 0.561,
    "ilp_loss": 0.7021,
    "tuples": 256.0,
    "expert_over_random": 0.99,
}
AGREED = {
    "n": 20,
    "accuracy": 0.733,
    "constant_accuracy": 0.5004,
    "balanced_accuracy": 0.731,
    "clear_balanced_accuracy": 0.752,
    "auc": 0.8271,
    "kendall_tau": 0.457,
    "near_ties": 3,
    "cluster_accuracy": 0.781,
    "cluster_balanced_accuracy": 0.623,
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The run folder of a VLP trained for two steps on noise: real files, worthless scores."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for task in TRAINED:
        rows = [
            {"task": task, "level": level, "episode": number, "step": 7 * step, "length": 70}
            for number, level in enumerate(("random", "medium", "expert"))
            for step in range(10)
        ]
        (folder / "clips" / task).mkdir(parents=True)
        pd.DataFrame(rows).assign(success_step=-1, camera="corner2-zoom").to_parquet(folder / "clips" / task / "index.parquet")
        np.save(folder / "clips" / task / "frames.npy", rng.integers(0, 256, (len(rows), 64, 64, 3), dtype=np.uint8))
        np.save(folder / "clips" / task / "states.npy", rng.normal(size=(len(rows), 39)).astype(np.float32))
    common = {"clips": folder / "clips", "tasks": TRAINED, "steps": 2, "threads": 1, "device": "cpu"}
    backbone = pretrain.run(PretrainConfig(**common, out=folder / "backbone", batch=4, width=8, features=16, keypoints=4))
    small = ModelConfig(dim=16, heads=2, layers=1, hidden=(16, 8))
    return train.run(TrainVLPConfig(**common, out=folder / "vlp", backbone=f"small:{backbone}", model=small, batch=4))


@pytest.fixture
def run(bare, tmp_path) -> Path:
    """A copy of it inside what a pipeline leaves: measures on an unseen task, and labels."""
    vlp = Path(shutil.copytree(bare, tmp_path / "quick" / "vlp"))
    measured = {"task": UNSEEN, "model": digest(vlp / "model.safetensors"), "wordings": {"train": ORDERED, "heldout": ORDERED}}
    write_json(vlp / "generalisation.json", measured)
    labels = tmp_path / "quick" / "labels"
    rng = np.random.default_rng(0)
    for labeller, inputs in (("vlp", {"model": vlp / "model.safetensors"}), ("scripted", {})):
        write_preferences(labels / f"{labeller}.parquet", labelled_pairs("close the drawer", labeller, rng))
        write_json(labels / f"{labeller}.run" / "agreement.json", AGREED if labeller == "vlp" else AGREED | {"accuracy": 1.0})
        write_manifest(labels / f"{labeller}.run", "annotate", {}, inputs, 0, 0.0)
    return vlp


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scores(folder: Path) -> list[float]:
    clips = np.random.default_rng(1).integers(0, 256, (5, 9, 64, 64, 3), dtype=np.uint8)
    return VLPScorer.load(folder).score(clips, ["close the drawer", "open it", "open it", "go", "close the drawer"]).tolist()


def test_a_pushed_folder_scores_the_same_wherever_it_is_taken(run, tmp_path, capsys):
    expected = scores(run)
    assert cli.main(["push", str(run), "--to", str(tmp_path / "out" / "drawers")]) == 0
    said = capsys.readouterr().out
    moved = tmp_path / "elsewhere" / "drawers"
    moved.parent.mkdir()
    (tmp_path / "out" / "drawers").rename(moved)
    shutil.rmtree(run)
    assert files(moved).keys() == set(FILES["vlp"])
    assert scores(moved) == expected and len(set(expected)) == 5
    assert len({path.stat().st_mode for path in moved.rglob("*") if path.is_file()}) == 1, "others may read all or nothing"
    for name, content in files(moved).items():
        assert str(tmp_path) not in content.decode(errors="replace"), f"{name} tells a path of this machine"
        assert re.search(rf"^{re.escape(name)} +{len(content)} bytes$", said, re.MULTILINE)
    assert f"{tmp_path / 'out' / 'drawers'}: 6 files" in said


def test_a_backbone_elsewhere_comes_along(run, tmp_path):
    (run / "backbone").rename(tmp_path / "backbone")
    state, config = load_model(run, KIND)
    save_model(run, KIND, state, config | {"backbone": "small:../../backbone"})
    expected = scores(run)
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    shutil.rmtree(tmp_path / "backbone")
    assert scores(tmp_path / "drawers") == expected


def test_the_card_says_what_the_files_of_the_run_say(run, tmp_path):
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    card = ModelCard.load(tmp_path / "drawers" / "README.md")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "robopref", "robotics")
    assert data.model_name == "drawers" and "preference-learning" in data.tags
    found: dict[str, list[float]] = {}
    for result in data.eval_results:
        assert (result.dataset_type, result.dataset_config) == ("metaworld", UNSEEN)
        found.setdefault(result.dataset_split, []).append(result.metric_value)
    ordered = [value for key, value in ORDERED.items() if key != "tuples"]
    assert found == {
        "256 orders of whole episodes, train wordings": ordered,
        "256 orders of whole episodes, heldout wordings": ordered,
        "20 labelled pairs of segments, 3 of them near-ties": [v for k, v in AGREED.items() if k not in ("n", "near_ties")],
    }
    rows = [re.split(r" *\| *", line)[1:-1] for line in card.text.splitlines() if line.startswith(f"| {UNSEEN} | no | ")]
    assert [row[-1] for row in rows] == [f"{value:.3f}" for values in found.values() for value in values]
    manifest = read_json(run / "manifest.json")
    for part in (
        f"Trained on 3 tasks: {', '.join(TRAINED)}.",
        "the other 47 of Meta-World's 50 tasks",
        "| steps | 2 |",
        "| model.dim | 16 |",
        "| orders.ilp_weight | 0.1 |",
        "| backbone: width | 8 |",
        f"commit {manifest['code']['commit']}" if manifest["code"] else "Code: robopref",
        f"torch {manifest['packages']['torch']}",
        "`corner2-zoom` at 64 x 64 pixels",
        f"| model.safetensors | {(run / 'model.safetensors').stat().st_size} |",
        "`pictures.safetensors` holds mean and covariance of the training's pictures",
    ):
        assert part in card.text, part


def test_the_card_says_how_many_pairs_the_labels_left_out(run, tmp_path):
    labels = run.parent / "labels" / "vlp.run"
    write_json(labels / "agreement.json", AGREED | {"abstained": 5, "left_out": AGREED | {"accuracy": 0.111}})
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    card = ModelCard.load(tmp_path / "drawers" / "README.md")
    assert "20 labelled pairs of segments, 3 of them near-ties (5 more left out by abstention)" in card.text
    assert "0.111" not in card.text


def test_a_vlp_without_statistics_of_its_pictures_is_shared_without(run, tmp_path):
    (run / PICTURES).unlink()
    _, sizes = push.run(PushConfig(run, str(tmp_path / "drawers")))
    assert sizes.keys() == set(FILES["vlp"]) - {PICTURES}
    assert PICTURES not in (tmp_path / "drawers" / "README.md").read_text()


@pytest.mark.parametrize("measured", ["never", "before other training"])
def test_without_measures_of_these_weights_none_is_given(measured, run, tmp_path):
    for path in (run / "generalisation.json", run.parent / "labels" / "vlp.run" / "manifest.json"):
        if measured == "never":
            path.unlink()
        else:
            path.write_text(path.read_text().replace(digest(run / "model.safetensors"), "0" * 64))
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    card = ModelCard.load(tmp_path / "drawers" / "README.md")
    assert card.data.eval_results is None and "model-index" not in card.content
    assert "held no measurement of these weights" in card.text and "0.733" not in card.text and "0.918" not in card.text


def test_the_lines_of_the_card_run(run, inside, capsys):
    push.run(PushConfig(run, "drawers"))
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
        write_video(Path("rollouts") / f"{number}.mp4", frames)
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", Path("drawers/README.md").read_text(), flags=re.DOTALL))
    assert blocks.keys() == {"sh", "python"}
    program, *arguments = shlex.split(blocks["sh"])
    assert program == "robopref" and cli.main(arguments) == 0
    labels = pd.read_parquet("labels.parquet")
    capsys.readouterr()
    exec(blocks["python"], {})
    printed = [float(word) for word in capsys.readouterr().out.strip(" []\n").split()]
    assert len(labels) == 1 and sorted(labels[["score_a", "score_b"]].iloc[0]) == pytest.approx(sorted(printed), abs=1e-5)


def test_a_dry_run_writes_nothing_and_lists_what_a_push_writes(run, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before = files(tmp_path)
    _, sizes = push.run(PushConfig(run, str(tmp_path / "drawers"), dry_run=True))
    assert files(tmp_path) == before
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    assert sizes == {name: len(content) for name, content in files(tmp_path / "drawers").items()}
    assert cli.main(["push", str(run), "--to", "hf-hub:me/drawers", "--dry-run"]) == 0  # neither token nor network
    assert "hf-hub:me/drawers: 6 files" in capsys.readouterr().out


def test_only_what_a_push_wrote_is_overwritten(run, tmp_path):
    target = tmp_path / "drawers"
    push.run(PushConfig(run, str(target)))
    first = files(target)
    (run / "generalisation.json").unlink()
    push.run(PushConfig(run, str(target)))
    assert files(target).keys() == first.keys() and files(target)["README.md"] != first["README.md"]
    (target / "notes.txt").write_text("mine")
    own = tmp_path / "own"
    own.mkdir()
    (own / "README.md").write_text("my project")
    for folder, why in ((target, r"notes\.txt"), (own, "no README.md of one"), (run, "it holds"), (own / "README.md", "README")):
        before = files(tmp_path)
        with pytest.raises(RoboprefError, match=f"is there already, and no folder that `robopref push` wrote.*{why}"):
            push.run(PushConfig(run, str(folder)))
        assert files(tmp_path) == before


def test_another_model_is_replaced_only_when_told(run, tmp_path, capsys):
    target = tmp_path / "drawers"
    push.run(PushConfig(run, str(target)))
    tensors, config = load_model(run, KIND)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = tensors[name] + 0.5
    save_model(run, KIND, tensors, config)
    before = files(tmp_path)
    told = f"error: --to {target} holds another VLP that an earlier push wrote: choose another --to, or replace it with "
    for words in ([], ["--dry-run"]):
        assert cli.main(["push", str(run), "--to", str(target), *words]) == 1
        assert capsys.readouterr().err.strip() == told + "--overwrite"
        assert files(tmp_path) == before
    push.run(PushConfig(run, str(target), overwrite=True))
    assert scores(target) == scores(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "hf_hub:me/drawers"}, "neither a folder nor hf-hub:OWNER/NAME"),
        ({"to": "hf-hub:drawers"}, "write hf-hub:OWNER/NAME"),
        ({"to": "hf-hub:me/drawers@v1"}, "leave out @v1"),
        ({"to": "drawers", "private": True}, "--private is for the hub"),
        ({"to": "hf-hub:me/drawers", "overwrite": True}, "--overwrite is for folders"),
    ],
)
def test_targets_that_are_none(run, inside, changes, message):
    with pytest.raises(UsageError, match=message):
        push.run(PushConfig(run, **changes))
    assert not Path("drawers").exists()


def test_a_run_that_cannot_be_shared_leaves_no_folder(run, inside):
    with pytest.raises(RoboprefError, match=r"quick is not what .* no manifest\.json of it; .*vlp may be"):
        push.run(PushConfig(run.parent, "drawers"))
    with pytest.raises(RoboprefError, match="backbone is not what"):
        push.run(PushConfig(run / "backbone", "drawers"))
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RoboprefError, match=r"model\.safetensors is damaged"):
        push.run(PushConfig(run, "drawers"))
    (run / "model.safetensors").write_bytes(whole)
    (run / "backbone" / "model.safetensors").unlink()
    with pytest.raises(RoboprefError, match=r"model\.safetensors does not exist"):
        push.run(PushConfig(run, "drawers"))
    assert sorted(os.listdir()) == ["quick"]


def test_a_damaged_copy_is_named(run, tmp_path):
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    shutil.rmtree(tmp_path / "drawers" / "backbone")
    with pytest.raises(RoboprefError, match="backbone is not a folder"):
        VLPScorer.load(tmp_path / "drawers")


def test_a_clip_backbone_must_be_one_that_others_can_get(run, inside, monkeypatch):
    tiny = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    Path("robopref-tiny-push.json").write_text(json.dumps(tiny))
    open_clip.add_model_config("robopref-tiny-push.json")
    save_file(open_clip.create_model("robopref-tiny-push").state_dict(), "tiny.safetensors")
    backbone = f"open_clip:robopref-tiny-push:{Path('tiny.safetensors').resolve()}"
    loaded = load_backbone(backbone)
    model = VLP(
        ModelConfig(dim=16, heads=2, layers=1, hidden=(16, 8)), 8, loaded.tokens_per_frame, loaded.image_dim, loaded.text_dim
    )
    _, config = load_model(run, KIND)
    of_clip = {"shape": model.shape, "backbone_digest": loaded.digest}
    save_model(run, KIND, model.state_dict(), config | of_clip | {"backbone": backbone})
    with pytest.raises(RoboprefError, match="lies on this machine alone; train VLP with a pretrained tag"):
        push.run(PushConfig(run, "drawers"))
    assert not Path("drawers").exists()

    tag = {"file": str(Path("tiny.safetensors").resolve())}
    for module in ("open_clip.pretrained", "open_clip.factory"):
        monkeypatch.setattr(f"{module}.get_pretrained_cfg", lambda name, wanted: tag)
    save_model(run, KIND, model.state_dict(), config | of_clip | {"backbone": "open_clip:robopref-tiny-push:openai"})
    _, sizes = push.run(PushConfig(run, "drawers"))
    assert sizes.keys() == {"README.md", "config.json", "model.safetensors", "pictures.safetensors"}
    assert "`open_clip:robopref-tiny-push:openai`, which open_clip downloads" in Path("drawers/README.md").read_text()
    assert scores(Path("drawers")) == scores(run)


def test_references():
    assert parse_reference("hf-hub:me/my.vlp_1") == ("me/my.vlp_1", None)
    assert parse_reference("hf-hub:me/vlp@refs/pr/1") == ("me/vlp", "refs/pr/1")
    assert find_model("runs/vlp") == find_model(Path("runs/vlp")) == Path("runs/vlp")
    for wrong in ("hf-hub:", "hf-hub:vlp", "hf-hub:me/a/b", "hf-hub:me/vlp@", "hf-hub:me/a..b", "hf-hub:me/a b"):
        with pytest.raises(UsageError, match=re.escape(wrong)):
            find_model(wrong)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


FIND = """
import sys, time
time.sleep = lambda seconds: None  # the library waits between its attempts
from robopref.configs.errors import RoboprefError
from robopref.preference.hub import check_upload, find_model, upload
for reference in sys.argv[1:]:
    try:
        print(find_model(reference))
    except RoboprefError as error:
        print(f"error: {error}")
"""


def python(hub: Hub, home: Path, script: str, *arguments: str, status: int = 0, **env: str) -> list[str]:
    """Lines that a new process printed, which knows the hub from its environment alone; the token must not be in them."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    known |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"} | env
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return (done.stdout if status == 0 else done.stderr).splitlines()


ROBOPREF = "import sys; from robopref.configs.cli import main; sys.exit(main())"


def test_to_the_hub_and_back(run, hub, tmp_path, inside):
    expected = scores(run)
    home = tmp_path / "home"
    lines = python(hub, home, ROBOPREF, "push", str(run), "--to", "hf-hub:me/drawers", "--private", HF_TOKEN=TOKEN)
    (_, pushed) = hub.commits["me/drawers"]
    assert hub.private == {"me/drawers"} and pushed.keys() == {".gitattributes", *FILES["vlp"]}
    pinned = re.match(r"(hf-hub:me/drawers@[0-9a-f]{40}): 6 files", lines[-1])
    assert pinned is not None
    commit = pinned[1].partition("@")[2]
    card = ModelCard(pushed["README.md"].decode())
    assert "--model hf-hub:me/drawers --pairs" in card.text and card.data.model_name == "drawers"

    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
        write_video(Path("rollouts") / f"{number}.mp4", frames)
    (annotate,) = re.findall(r"^robopref (annotate .*)$", card.text, flags=re.MULTILINE)
    python(hub, home, ROBOPREF, *shlex.split(annotate), HF_TOKEN=TOKEN)
    manifest = read_json("labels.run/manifest.json")
    assert manifest["config"]["model"] == ["hf-hub:me/drawers"]
    model = manifest["inputs"]["model"]
    assert f"/snapshots/{commit}/" in model["path"] and model["sha256"] == digest(run / "model.safetensors")
    assert scores(Path(model["path"]).parent) == expected

    before = len(hub.asked)
    # Now without a network: what was kept is used, by name and by commit; the finished labels stay.
    made = Path("labels.parquet").stat().st_mtime_ns
    python(hub, home, ROBOPREF, *shlex.split(annotate), HF_HUB_OFFLINE="1")
    found = python(hub, home, FIND, "hf-hub:me/drawers", pinned[1], HF_HUB_OFFLINE="1")
    assert {Path(line).name for line in found} == {commit} and len(hub.asked) == before
    assert Path("labels.parquet").stat().st_mtime_ns == made
    assert not [path for path, content in files(tmp_path).items() if TOKEN.encode() in content]
    assert not [path for path, content in pushed.items() if TOKEN.encode() in content]


def test_a_revision_stays_what_it_was_and_only_what_is_needed_is_fetched(run, hub, tmp_path):
    push.run(PushConfig(run, str(tmp_path / "drawers")))
    shared = files(tmp_path / "drawers")
    strange = {
        name: b"not to be fetched" for name in ("pytorch_model.bin", "model.pkl", "checkpoint.safetensors", "backbone/x.pt")
    }
    first = hub.commit("me/drawers", shared | strange)
    second = hub.commit("me/drawers", {"README.md": b"another card"})
    lines = python(hub, tmp_path / "home", FIND, f"hf-hub:me/drawers@{first}", "hf-hub:me/drawers", f"hf-hub:me/drawers@{first}")
    assert [Path(line).name for line in lines] == [first, second, first]
    assert files(Path(lines[0])) == shared and files(Path(lines[1])) == shared | {"README.md": b"another card"}


def test_what_the_hub_answers_is_one_line(hub, tmp_path):
    settings = {"config.json": json.dumps({"kind": "vlp", "config": {}}).encode(), "model.safetensors": bytes(10)}
    hub.commit("me/there", settings)
    hub.commit("me/cuts-settings", settings)
    hub.commit("me/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": bytes(1000), "README.md": b"BERT"})
    hub.commit("me/empty", {"README.md": b"nothing yet"})
    hub.private.add("me/there")
    wanted = {
        "hf-hub:me/answers-401": "the hub answers 401 Unauthorized; check the name",
        "hf-hub:me/answers-403": "the hub answers 403 Forbidden; check the name",
        "hf-hub:me/answers-500": "the hub answers 500 Internal Server Error; check the name",
        "hf-hub:me/nothing": "the hub answers 404 Not Found; check the name",
        "hf-hub:me/there": "the hub answers 401 Unauthorized; check the name",
        "hf-hub:me/bert@v7": "the hub has no such revision of it; check the name",
        "hf-hub:me/cuts-info": "no usable answer from the hub (",
        "hf-hub:me/cuts-settings": "no usable answer from the hub (",
        "hf-hub:me/bert": "was not written by robopref (config.json says no kind)",
        "hf-hub:me/empty": "was not written by robopref (config.json says no kind)",
    }
    lines = python(hub, tmp_path / "home", FIND, *wanted, HF_TOKEN="another")
    assert len(lines) == len(wanted)
    for line, (reference, why) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(f"error: {reference} ") and why in line, line
    assert not any("bert" in asked and "model.safetensors" in asked for asked in hub.asked)
    assert not [path for path, content in files(tmp_path).items() if TOKEN.encode() in content]


def test_a_download_cut_short_is_not_taken_for_a_model(hub, tmp_path):
    settings = {"config.json": json.dumps({"kind": "vlp", "config": {}}).encode(), "model.safetensors": bytes(10)}
    hub.commit("me/cuts-weights", settings)
    (online,) = python(hub, tmp_path / "home", FIND, "hf-hub:me/cuts-weights")
    (offline,) = python(hub, tmp_path / "home", FIND, "hf-hub:me/cuts-weights", HF_HUB_OFFLINE="1")
    assert "cannot be had: no usable answer from the hub (" in online and "cannot be had: HF_HUB_OFFLINE is set" in offline


def test_without_a_network_the_way_out_is_said(hub, tmp_path):
    (offline,) = python(hub, tmp_path / "home", FIND, "hf-hub:me/drawers", HF_HUB_OFFLINE="1")
    assert "cannot be had: HF_HUB_OFFLINE is set; " in offline and "`robopref push RUN --to FOLDER` wrote" in offline
    assert hub.asked == []
    with serving() as gone:
        pass
    (unreachable,) = python(hub, tmp_path / "home", FIND, "hf-hub:me/drawers", HF_ENDPOINT=gone.endpoint)
    assert "cannot be had: no usable answer from the hub (ConnectError); " in unreachable


UPLOAD = """
import sys
from pathlib import Path
from robopref.configs.errors import RoboprefError
from robopref.preference.hub import check_upload, upload
for name in sys.argv[2:]:
    try:
        check_upload(f"hf-hub:{name}")
        print(upload(Path(sys.argv[1]), name, private=True))
    except RoboprefError as error:
        print(f"error: {error}")
"""


def test_what_an_upload_is_told_is_one_line(hub, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    hub.commit("me/public", {"README.md": b"for all to see"})
    wanted = {
        "me/answers-401": "the hub answers 401 Unauthorized; check",
        "me/answers-403": "the hub answers 403 Forbidden; check",
        "me/answers-404": "the hub answers 404 Not Found; check",
        "me/answers-500": "the hub answers 500 Internal Server Error; check",
        "me/cuts-info": "no usable answer from the hub (",
        "me/public": "is there already and public: make it private",
    }
    lines = python(hub, tmp_path / "home", UPLOAD, str(tmp_path / "model"), *wanted, "me/mine", HF_TOKEN=TOKEN)
    assert len(lines) == len(wanted) + 1
    for line, (name, why) in zip(lines, wanted.items(), strict=False):
        assert line.startswith(f"error: hf-hub:{name} ") and why in line, line
    assert lines[-1].startswith("hf-hub:me/mine@") and len(hub.commits["me/public"]) == 1
    asked = len(hub.asked)
    (no_token,) = python(hub, tmp_path / "home", UPLOAD, str(tmp_path / "model"), "me/mine")
    assert "there is no token; set HF_TOKEN" in no_token
    (offline,) = python(hub, tmp_path / "home", UPLOAD, str(tmp_path / "model"), "me/mine", HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
    assert "cannot be written: HF_HUB_OFFLINE is set; " in offline and len(hub.asked) == asked


def test_the_command_ends_with_one_line_and_a_status(run, hub, tmp_path):
    (line,) = python(hub, tmp_path / "home", ROBOPREF, "push", str(run), "--to", "hf-hub:me/drawers", status=1)
    assert line.startswith("error: hf-hub:me/drawers cannot be written: there is no token")
    refused = ("push", str(run), "--to", "hf-hub:me/answers-403")
    (line,) = python(hub, tmp_path / "home", ROBOPREF, *refused, status=1, HF_TOKEN=TOKEN)
    assert line.startswith("error: hf-hub:me/answers-403 cannot be written: the hub answers 403 Forbidden")
    assert hub.commits == {}


EVIL = "<script>x</script> ![x](http://evil) [y]: http://evil a|b `c` \x1b[2J [/b]\n---\n# head\n```\n\u202e"


def shown(card: Path) -> tuple[ModelCard, str]:
    """The card as the hub reads it, and its text outside of code."""
    loaded = ModelCard.load(card)
    text = re.sub(r"```.*?```", "", loaded.text, flags=re.DOTALL)
    for part in ("<script", "\x1b", "\u202e", "\n---\n# head", "\n# head", "\n```\n\n"):
        assert part not in text, part
    assert not re.search(r"(?<!\\)\](?=[(\[:])", text), "a link or a picture"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if "note |" in line} == {3}
    return loaded, text


def test_what_others_wrote_is_text_in_the_card_of_a_vlp(tmp_path):
    fuzz_models.shared_vlp(tmp_path)
    run = tmp_path / "run" / "vlp"
    manifest = read_json(run / "manifest.json")
    write_json(run / "manifest.json", manifest | {"config": manifest["config"] | {"note": EVIL, EVIL: 3}, "robopref": EVIL})
    measured = read_json(run / "generalisation.json")
    write_json(run / "generalisation.json", measured | {"task": EVIL, "wordings": {EVIL: measured["wordings"]["train"]}})
    push.run(PushConfig(run, str(tmp_path / "shared")))
    card, text = shown(tmp_path / "shared" / "README.md")
    assert (card.data.library_name, card.data.license) == ("robopref", "apache-2.0")
    assert card.data.eval_results[0].dataset_name.startswith("Meta-World <script>"), "in YAML it is a word like others"
    rows = [line for line in text.splitlines() if line.startswith("| note |")]
    assert len(rows) == 1 and "&lt;script>" in rows[0] and "a\\|b 'c' \\x1b[2J" in rows[0]


def test_what_others_wrote_is_text_in_the_card_of_a_policy(tmp_path):
    fuzz_models.shared_policy(tmp_path)
    state, config = load_model(tmp_path / "bc", "policy")
    save_model(tmp_path / "bc", "policy", state, config | {"env": f"metaworld/{EVIL}", "set": EVIL})
    manifest = read_json(tmp_path / "bc" / "manifest.json")
    write_json(tmp_path / "bc" / "manifest.json", manifest | {"config": manifest["config"] | {"note": EVIL}})
    told = {"env": f"metaworld/{EVIL}", "protocol": "return"}
    write_manifest(tmp_path / "evaluation", "evaluate", told, {"bc": tmp_path / "bc" / "model.safetensors"}, [0], 0.0)
    push.run(PushConfig(tmp_path / "bc", str(tmp_path / "shared")))
    card, text = shown(tmp_path / "shared" / "README.md")
    assert card.data.library_name == "robopref" and len(card.data.eval_results) == 1
    assert "Episodes of `&lt;script>x" in text and "for `metaworld/&lt;script>x" in text


def test_good_names_stand_in_a_card_as_they_are():
    for name in ("door-close_v2", "policy.hidden", "[256, 256]", "{'a': 1}", "3 * 4", "a/b.c", 0.5, None, "it's (so)", "50 %"):
        assert markdown(name) == str(name)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("generalisation.json", "[]"),
        ("generalisation.json", "9" * 5000),
        ("manifest.json", "{}"),
        ("manifest.json", None),
        ("backbone/manifest.json", "3"),
        ("../labels/vlp.run/agreement.json", "{}"),
        ("../labels/vlp.run/agreement.json", '{"n": 3, "near_ties": 1, "accuracy": "x"}'),
        ("../labels/vlp.run/manifest.json", "{"),
    ],
)
def test_a_run_with_values_of_another_kind_is_not_pushed(tmp_path, file, text):
    fuzz_models.shared_vlp(tmp_path)
    run = tmp_path / "run" / "vlp"
    wrong = json.dumps(read_json(run / file) | {"config": {"tasks": 3}}) if text is None else text
    (run / file).write_text(wrong)
    with pytest.raises(RoboprefError) as caught:
        push.run(PushConfig(run, str(tmp_path / "shared")))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "shared").exists() and not [*tmp_path.glob(".shared*")]
