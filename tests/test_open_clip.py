"""Any open_clip model as a backbone, offline: a tiny one with weights on disk, and weights that cannot be had."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import servers
import torch
from safetensors.torch import save_file

from robopref.configs.baselines import BaselineConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.preference.backbone import load_backbone, parse_open_clip
from robopref.preference.baselines.goal_image import Goals
from robopref.preference.baselines.load import load_baseline

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A registered model robopref-tiny with weights on disk: (model, weights file, folder for local-dir:)."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "robopref-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "robopref-tiny.json")
    torch.manual_seed(3)
    model = open_clip.create_model("robopref-tiny").eval()
    save_file(model.state_dict(), folder / "weights.safetensors")
    local = folder / "local"
    local.mkdir()
    (local / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    shutil.copy(folder / "weights.safetensors", local / "open_clip_model.safetensors")
    return model, folder / "weights.safetensors", local


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """HF_HUB_OFFLINE=1, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def test_patch_tokens_are_the_models_own(tiny, frames):
    model, weights, _ = tiny
    backbone = load_backbone(f"open_clip:robopref-tiny:{weights}")
    tokens = backbone.encode_frames(frames)
    assert tokens.shape == (3, 16, 24) == (3, backbone.tokens_per_frame, backbone.image_dim)
    assert tokens.dtype == torch.float32 and not tokens.requires_grad
    # By hand: normalise, run the tower with its class token, drop that token, norm and project what is left.
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.visual.image_mean, model.visual.image_std))
    with torch.no_grad():
        inside = model.visual.transformer(model.visual._embeds((images - mean) / std))
        expected = model.visual.ln_post(inside)[:, 1:] @ model.visual.proj
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)


def test_the_last_word_token_is_clips_text_vector(tiny):
    model, weights, _ = tiny
    backbone = load_backbone(f"open_clip:robopref-tiny:{weights}")
    texts = ["close the drawer", "push"]
    tokens, mask = backbone.encode_text(texts)
    assert mask.sum(1).tolist() == [5, 3]  # start, words, end
    assert tokens.shape == (2, 5, 24) and mask.shape == (2, 5) and backbone.text_dim == 24
    with torch.no_grad():
        whole = model.encode_text(open_clip.get_tokenizer("robopref-tiny")(texts))
    torch.testing.assert_close(tokens[[0, 1], mask.sum(1) - 1], whole, atol=1e-5, rtol=1e-4)


def test_an_instruction_that_fills_the_context_is_read_and_a_longer_one_is_an_error(tiny):
    backbone = load_backbone(f"open_clip:robopref-tiny:{tiny[1]}")
    tokens, mask = backbone.encode_text(["close the drawer", "close " * 14])  # 14 words between start and end: 16 tokens
    assert tokens.shape[1] == 16 and mask.sum(1).tolist() == [5, 16]
    with pytest.raises(RoboprefError, match=r"\(close close .* longer than the 16 tokens"):
        backbone.encode_text(["close the drawer", "close " * 15])


def test_a_joint_space_of_pictures_and_sentences(tiny, frames):
    model, weights, _ = tiny
    settings = BaselineConfig(f"open_clip:robopref-tiny:{weights}", frames="last")
    scorer = load_baseline("cosine", settings, 2, "cpu")
    assert scorer.frame_size == 32 and scorer.backbone.tokens_per_frame == 1
    # By hand: CLIP's own two vectors of the last frame and the sentence, and its own logit scale.
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.visual.image_mean, model.visual.image_std))
    said = ["close the drawer", "push"]
    with torch.no_grad():
        pictures = model.encode_image((images - mean) / std, normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer("robopref-tiny")(said), normalize=True)
        expected = model.logit_scale.exp() * pictures[[2, 1]] @ texts.T
    clips = np.stack([frames, frames[[2, 0, 1]]])
    np.testing.assert_allclose(scorer.score(clips, said), expected.diagonal(), atol=5e-3)  # the cache holds float16
    alike = load_baseline("vlm-rm", replace(settings, alpha=0.0), 2, "cpu")
    np.testing.assert_allclose(alike.score(clips, said), scorer.score(clips, said), atol=1e-4)
    assert len({scorer.digest, alike.digest, load_baseline("vlm-rm", settings, 2, "cpu").digest}) == 3
    with pytest.raises(RoboprefError, match="longer than the 16 tokens"):
        scorer.score(clips[:1], ["close " * 15])


def test_a_goal_picture_through_clip(tiny, frames):
    settings = BaselineConfig(f"open_clip:robopref-tiny:{tiny[1]}")
    scorer = load_baseline("goal-image", settings, 2, "cpu", Goals([frames[2]], {"push": 0}))
    near, far = scorer.score(np.stack([frames, frames[[2, 0, 1]]]), ["push"] * 2)
    assert near == pytest.approx(0.0, abs=1e-3) and far < -1e-2


def test_patches_can_be_averaged_to_a_smaller_grid(tiny, frames):
    spec = f"open_clip:robopref-tiny:{tiny[1]}"
    every, four = load_backbone(spec), load_backbone(f"{spec}@2")
    found = four.encode_frames(frames)
    assert found.shape == (3, 4, 24) and four.tokens_per_frame == 4
    expected = every.encode_frames(frames).view(3, 2, 2, 2, 2, 24).mean((2, 4)).view(3, 4, 24)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert four.digest != every.digest
    with pytest.raises(RoboprefError, match="4 x 4 grid, not @5"):
        load_backbone(f"{spec}@5")


def test_frames_of_any_size_are_resized(tiny, frames):
    backbone = load_backbone(f"open_clip:robopref-tiny:{tiny[1]}")
    large = frames.repeat(3, axis=1).repeat(3, axis=2)
    assert backbone.encode_frames(large).shape == (3, 16, 24)


def test_a_local_folder_gives_the_same_tokens_and_digest(tiny, frames):
    _, weights, folder = tiny
    one, other = load_backbone(f"open_clip:robopref-tiny:{weights}"), load_backbone(f"open_clip:local-dir:{folder}")
    torch.testing.assert_close(one.encode_frames(frames), other.encode_frames(frames), atol=0, rtol=0)
    assert one.digest == other.digest


def test_the_digest_follows_the_weights(tiny, tmp_path):
    model, weights, _ = tiny
    state = model.state_dict() | {"visual.proj": model.visual.proj.detach() + 1e-3}
    save_file(state, tmp_path / "changed.safetensors")
    one = load_backbone(f"open_clip:robopref-tiny:{weights}")
    other = load_backbone(f"open_clip:robopref-tiny:{tmp_path / 'changed.safetensors'}")
    assert one.digest != other.digest
    assert one.digest == load_backbone(f"open_clip:robopref-tiny:{weights}").digest


def test_a_resnet_gives_patches_too(tmp_path, frames):
    config = TINY | {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}}
    (tmp_path / "robopref-tiny-resnet.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "robopref-tiny-resnet.json")
    save_file(open_clip.create_model("robopref-tiny-resnet").state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone(f"open_clip:robopref-tiny-resnet:{tmp_path / 'weights.safetensors'}")
    assert backbone.encode_frames(frames).shape == (3, 4, 256)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:ViT-B-16:openai", "ViT-B-16 with openai cannot be had .* or give a file, open_clip:ViT-B-16:FILE"),
        ("open_clip:ViT-B-32:openay", "neither a file nor a pretrained tag .* Did you mean 'openai'"),
        ("open_clip:ViT-B-33:openai", "no model 'ViT-B-33'. Did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32:/nowhere/weights.pt", "'/nowhere/weights.pt' is neither a file nor a pretrained tag"),
        ("open_clip:ViT-B-32", "names no weights, and random ones would score nothing"),
        ("open_clip:hf-hub:nobody/nothing", "weights hf-hub:nobody/nothing cannot be had"),
        ("open_clip:local-dir:/nowhere", "weights local-dir:/nowhere cannot be had"),
    ],
)
def test_weights_that_cannot_be_had_are_an_error(spec, message, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))  # whatever this machine has cached
    with pytest.raises(RoboprefError, match=message):
        load_backbone(spec)
    with pytest.raises(RoboprefError, match=message):
        load_baseline("cosine", BaselineConfig(spec), 8, "cpu")


def test_a_tag_outside_the_hub_is_not_fetched_offline(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda name, tag: {"url": "https://weights.invalid/a.pt"})
    with pytest.raises(RoboprefError, match=r"HF_HUB_OFFLINE is set and .*a\.pt does not exist"):
        load_backbone("open_clip:robopref-tiny:somewhere")


def test_weights_trained_with_quick_gelu_get_it(tiny, monkeypatch, tmp_path):
    shutil.copy(tiny[1], tmp_path / "weights.safetensors")
    tag = {"file": str(tmp_path / "weights.safetensors"), "quick_gelu": True}
    for module in ("open_clip.pretrained", "open_clip.factory"):
        monkeypatch.setattr(f"{module}.get_pretrained_cfg", lambda name, wanted: tag)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    quick = load_backbone("open_clip:robopref-tiny:openai")
    assert any(type(layer).__name__ == "QuickGELU" for layer in quick._model.modules())
    monkeypatch.undo()
    assert quick.digest != load_backbone(f"open_clip:robopref-tiny:{tiny[1]}").digest


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_damaged_weights_are_an_error(tiny, tmp_path, content):
    whole = tiny[1].read_bytes()
    for name in ("weights.safetensors", "weights.pt"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(RoboprefError, match=f"robopref-tiny with .*{name} cannot be had"):
            load_backbone(f"open_clip:robopref-tiny:{tmp_path / name}")


def test_weights_of_another_architecture_are_an_error(tiny, tmp_path):
    state = tiny[0].state_dict()
    del state["visual.proj"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RoboprefError, match=r"cannot be had .*visual\.proj"):
        load_backbone(f"open_clip:robopref-tiny:{tmp_path / 'weights.safetensors'}")


def test_specs():
    assert parse_open_clip("ViT-B-16:openai") == ("ViT-B-16", "openai", None)
    assert parse_open_clip("ViT-B-16:/a:b/w@x.pt@4") == ("ViT-B-16", "/a:b/w@x.pt", 4)
    assert parse_open_clip("hf-hub:org/model@7") == ("hf-hub:org/model", None, 7)
    with pytest.raises(UsageError, match="Did you mean 'open_clip'"):
        load_backbone("open-clip:ViT-B-16:openai")
    with pytest.raises(UsageError, match="none of small:FOLDER"):
        load_backbone("small")


def test_a_server_that_quotes_the_token_is_not_quoted(monkeypatch):
    def refused(*_, **__):
        raise FileNotFoundError("Failed to download file. Last error: 403 for Bearer hf_not-to-be-seen\n(Request ID: 1)")

    monkeypatch.setenv("HF_TOKEN", "hf_not-to-be-seen")
    monkeypatch.setattr(open_clip, "create_model", refused)
    with pytest.raises(RoboprefError, match=r"Last error: 403 for Bearer \[token\] \(Request ID: 1\)\)\. Connect"):
        load_backbone("open_clip:hf-hub:me/clip")


def test_weights_outside_the_hub_are_whole_or_absent(monkeypatch, tmp_path):
    """A server that cuts the connection leaves nothing that open_clip would take for weights."""
    cut = servers.Case("", "", servers.after(servers.head(length=10**6) + b"x" * 10**5, "reset"), "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    with servers.serving(cut) as url:
        monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda *_: {"url": f"{url}/clip.pt"})
        with pytest.raises(RoboprefError, match=rf"weights ViT-B-32 with openai cannot be had \({url}/clip.pt: .* bytes arrived"):
            load_backbone("open_clip:ViT-B-32:openai")
    assert not (tmp_path / ".cache/clip/clip.pt").exists()
