import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from agents.config import RunConfig
from agents.runs.environment import input_hashes
from marec_env.embeddings import EmbeddingConfig, embed_texts, fit_reduction, weights_hash
from marec_env.embeddings.config import FineTuneConfig
from marec_env.embeddings.finetune import fine_tune, fine_tuned
from marec_env.embeddings.pairs import (
    clicked_over_passed,
    co_consumed_pairs,
    info_nce,
    pairs_of,
    retrieval_recall,
    split_pairs,
)
from marec_env.environment_config import EnvironmentConfig
from marec_env.errors import ConfigError, DataError
from marec_env.played import played_clicks
from marec_env.world import build_world
from tests.worlds import small_environment


def test_the_loss_in_closed_form():
    left = torch.eye(3)
    items = torch.tensor([[0, 3], [1, 4], [2, 5]])
    loss = info_nce(left, left, items, temperature=0.5)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-2)))


def test_the_loss_of_a_clicked_item_beside_a_passed_one_in_closed_form():
    anchor, clicked = torch.eye(3)[[0, 1]], torch.eye(3)[[0, 2]]
    passed = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    by_hand = (math.log(1 + math.exp(-0.4 / 0.5)) + math.log(1 + math.exp(0.6 / 0.5))) / 2
    assert float(clicked_over_passed(anchor, clicked, passed, 0.5)) == pytest.approx(by_hand)


def test_an_item_is_no_negative_of_itself_or_of_its_partner():
    left, right = torch.eye(3), torch.eye(3)[[0, 0, 2]]
    items = torch.tensor([[0, 3], [1, 3], [2, 0]])
    scores = left @ right.T
    by_hand = 0.0
    for row in range(3):
        keep = [j for j in range(3) if j == row or items[j, 1] not in items[row]]
        by_hand += float(torch.logsumexp(scores[row, keep], 0) - scores[row, row])
        keep = [j for j in range(3) if j == row or items[j, 0] not in items[row]]
        by_hand += float(torch.logsumexp(scores[keep, row], 0) - scores[row, row])
    assert float(info_nce(left, right, items, 1.0)) == pytest.approx(by_hand / 6)
    plain = torch.nn.functional.cross_entropy(scores, torch.arange(3))
    plain = plain + torch.nn.functional.cross_entropy(scores.T, torch.arange(3))
    assert by_hand / 6 < float(plain) / 2 - 0.1  # the masks matter here


def test_popularity_correction_undoes_sampling_by_popularity():
    """At scores equal to log p(b) the corrected softmax is uniform."""
    frequency = torch.tensor([[0.1, 0.5], [0.1, 0.25], [0.1, 0.125]])
    width = torch.eye(4)
    left = torch.ones(3, 1) @ width[:1]
    right = torch.zeros(3, 4)
    right[:, 0] = frequency[:, 1].log()
    items = torch.tensor([[0, 3], [1, 4], [2, 5]])
    plain = info_nce(left, right, items, 1.0)
    corrected = info_nce(left, right, items, 1.0, frequency.log())
    assert float(corrected) < float(plain)
    uniform = torch.nn.functional.cross_entropy(torch.zeros(3, 3), torch.arange(3))
    forward = 2 * float(corrected) - float(
        torch.nn.functional.cross_entropy((left @ right.T).T, torch.arange(3))
    )
    assert forward == pytest.approx(float(uniform), abs=1e-5)


def test_recall_by_hand():
    vectors = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]), dim=1
    )
    pairs = torch.tensor([[0, 1], [0, 2], [0, 3], [3, 2]])
    assert retrieval_recall(vectors, pairs, 1) == pytest.approx(2 / 4)
    assert retrieval_recall(vectors, pairs, 2) == pytest.approx(3 / 4)
    with pytest.raises(DataError, match="no held-out pairs"):
        retrieval_recall(vectors, pairs[:0], 1)


def test_pairs_stay_within_a_user_and_a_window():
    user = torch.tensor([0, 0, 0, 0, 1, 1])
    item = torch.tensor([5, 6, 5, 7, 8, 9])
    pairs, owners = co_consumed_pairs(user, item, window=2)
    found = sorted(torch.cat([pairs, owners[:, None]], dim=1).tolist())
    assert found == [[5, 6, 0], [5, 7, 0], [6, 5, 0], [6, 7, 0], [8, 9, 1]]


def test_nothing_held_out_is_trained_on():
    pairs = torch.randint(0, 300, (5000, 2), generator=torch.Generator().manual_seed(0))
    owners = torch.arange(5000) // 25
    split = split_pairs(pairs, owners, share=0.2, seed=3)
    trained = set(split.train.flatten().tolist())
    assert not trained & set(split.cold[:, 1].tolist())
    assert set(split.warm.flatten().tolist()) <= trained
    assert 0.4 < len(split.train) / 5000 < 0.65
    assert len(split.warm) and len(split.cold)
    again = split_pairs(pairs, owners, share=0.2, seed=3)
    assert torch.equal(split.train, again.train) and torch.equal(split.cold, again.cold)


WORDS = ("toy", "story", "war", "peace", "robot", "space", "child", "love", "drama", "film")


@pytest.mark.parametrize("rank", [0, 8])
def test_training_brings_pairs_together(trainable_bert, tmp_path, rank):
    if rank:
        pytest.importorskip("peft")
    encoder = EmbeddingConfig(encoder=str(trainable_bert), max_length=16, dtype="fp32", cache=False)
    texts = [f"the {word}" for word in WORDS] + [f"{word} of x" for word in WORDS]
    pairs = torch.stack([torch.arange(10), torch.arange(10, 20)], dim=1)
    folder = tmp_path / "tuned"
    settings = {"steps": 80, "batch_size": 8, "learning_rate": 6e-3, "lora_rank": rank}
    losses = list(fine_tune(encoder, texts, pairs, folder, **settings))
    assert len(losses) == 80
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    tuned = encoder.model_copy(update={"encoder": str(folder)})
    before, after = embed_texts(encoder, texts), embed_texts(tuned, texts)
    margin = [
        float((v[:10] @ v[10:].T).diag().mean() - (v[:10] @ v[10:].T).mean())
        for v in (before, after)
    ]
    assert margin[1] > margin[0] + 0.1
    assert retrieval_recall(after, pairs, 1) == 1.0
    assert (folder / "model.safetensors").is_file() and not list(folder.glob("*.bin"))


def test_too_few_pairs_are_refused(tiny_bert, tmp_path):
    encoder = EmbeddingConfig(encoder=str(tiny_bert), max_length=16)
    with pytest.raises(DataError, match="3 training pairs are fewer than one batch"):
        next(
            fine_tune(
                encoder, ["a"] * 9, torch.zeros(3, 2).long(), tmp_path,
                steps=1, batch_size=4, learning_rate=1e-3,
            )
        )  # fmt: skip


def test_the_command(tiny_bert, tmp_path):
    import typer

    from marec_env.embeddings.finetune import main

    app = typer.Typer()
    app.command()(main)
    log = tmp_path / "log"
    log.mkdir()
    rows = [f"u{n // 20},i{(n * 7 + n // 20) % 40},5,{n}" for n in range(1200)]
    (log / "interactions.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))
    items = [f"i{n},{WORDS[n % 10]} {WORDS[n // 10]}" for n in range(40)]
    (log / "items.csv").write_text("\n".join(["item_id,title", *items]))
    out = tmp_path / "out"
    arguments = [
        "--out", str(out), "--source", str(log), "--encoder", str(tiny_bert), "--steps", "2",
        "--batch-size", "4",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "warm@10" in done.output and "cold@50" in done.output
    report = json.loads((out / "finetune.json").read_text())
    assert set(report["before"]) == set(report["after"])
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "exists already" in again.output


def finetuned_world(tmp_path, encoder, *, finetune=True, **changes):
    section = {"steps": 3, "batch_size": 8, "learning_rate": 1e-2, "rank": 4, **changes}
    embeddings = {
        "encoder": str(encoder), "max_length": 32, "cache_folder": str(tmp_path),
        "reduction": {"dimension": 8}, "finetune": section if finetune else None,
    }  # fmt: skip
    return build_world(EnvironmentConfig(**small_environment(40, 200, embeddings=embeddings)))


def tuned_of(config, world):
    log = world.visible_log
    pairs = pairs_of(log, config.finetune.objective)
    return fine_tuned(config, log.texts, lambda: pairs, torch.device("cpu"))


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_decoder"])
def test_a_run_trains_its_encoder_once(model, request, tmp_path, capsys, monkeypatch):
    pytest.importorskip("peft")
    encoder = request.getfixturevalue(model)
    world = finetuned_world(tmp_path, encoder)
    assert "step 3/3, loss" in capsys.readouterr().err
    folder = Path(world.embeddings.encoder)
    assert folder.parent == tmp_path / "finetuned" and world.embeddings.finetune is None
    assert world.embeddings.pooling == ("last" if model == "tiny_decoder" else "mean")
    report = json.loads((folder / "finetune.json").read_text())
    assert len(report["losses"]) == 3 and report["rank"] == 4
    plain = world.embeddings.model_copy(update={"encoder": str(encoder)})
    moved = embed_texts(plain, world.log.texts) - embed_texts(world.embeddings, world.log.texts)
    assert moved.abs().max() > 1e-3
    assert list(folder.parent.iterdir()) == [folder]  # nothing half made is left

    monkeypatch.setattr(
        "marec_env.embeddings.finetune.fine_tune", lambda *a, **k: pytest.fail("trained")
    )
    assert tuned_of(world.config.embeddings, world) == world.embeddings


def test_users_are_of_the_published_encoder_and_vectors_of_the_fitted_one(tiny_bert, tmp_path):
    world = finetuned_world(tmp_path, tiny_bert, method="full")
    plain = finetuned_world(tmp_path, tiny_bert, finetune=None)
    full = embed_texts(world.embeddings, world.catalog.texts)
    fitted = fit_reduction(world.embeddings, full).apply(full)
    assert torch.equal(world.catalog.text, fitted) and torch.equal(world.knowledge.text, fitted)
    assert (fitted - plain.catalog.text).abs().max() > 1e-2
    told, before = (
        input_hashes(RunConfig.model_validate({"environment": w.config})) for w in (world, plain)
    )
    assert told["topics"] == before["topics"]
    assert told["encoder weights as published"] == before["encoder weights"]
    assert told["encoder weights"] == weights_hash(world.embeddings) != before["encoder weights"]
    assert "encoder weights as published" not in before
    assert torch.equal(world.catalog.topics, plain.catalog.topics)
    for name in ("user_factors", "item_factors", "quality", "topics", "scale", "intercept"):
        one, other = (getattr(w.population, name) for w in (world, plain))
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other)), name


def test_an_encoder_is_fitted_to_clicks(tiny_bert, tmp_path, monkeypatch):
    section = {
        "objective": "from_reward", "method": "full", "sessions": 24, "seed": 3,
        "steps": 40, "batch_size": 16, "learning_rate": 5e-3,
    }  # fmt: skip
    world = finetuned_world(tmp_path, tiny_bert, **section)
    plain = finetuned_world(tmp_path, tiny_bert, finetune=None)
    assert torch.equal(world.catalog.topics, plain.catalog.topics)
    folder = Path(world.embeddings.encoder)
    report = json.loads((folder / "finetune.json").read_text())
    clicks = played_clicks(plain.config, 24, 3)
    assert report["pairs"] == hashlib.sha256(clicks.numpy().tobytes()).hexdigest()
    assert report["sessions"] == 24
    assert report["losses"][0] == pytest.approx(math.log(2), abs=0.4)
    before, after = (embed_texts(w.embeddings, w.log.texts)[clicks] for w in (plain, world))
    losses = [float(clicked_over_passed(*v.unbind(1))) for v in (before, after)]
    assert losses[1] < losses[0] - 0.05

    def fit(*arguments, **settings):
        raise LookupError("fits anew")

    monkeypatch.setattr("marec_env.embeddings.finetune.fine_tune", fit)
    team = small_environment(
        40, 200, embeddings=world.config.embeddings.model_dump(),
        pipeline={"candidates": 20, "slate_size": 5, "components": ("recall", "ranking")},
    )  # fmt: skip
    assert build_world(EnvironmentConfig(**team)).embeddings == world.embeddings
    with pytest.raises(LookupError):
        build_world(EnvironmentConfig(**team, users={"new_user_share": 0.6}))


def test_clicks_of_protected_users_are_not_fitted_to():
    section = {"finetune": {"objective": "from_reward"}}
    EnvironmentConfig(embeddings=section, data={"privacy": {"users": "release"}})
    with pytest.raises(ValueError, match=r"from_reward .* data\.privacy\.users: release, or"):
        EnvironmentConfig(embeddings=section, data={"privacy": {"users": "log"}})


def test_each_setting_has_an_encoder_of_its_own(tiny_bert, tmp_path):
    config = EmbeddingConfig(encoder=str(tiny_bert), max_length=16, cache_folder=str(tmp_path))
    world = build_world(EnvironmentConfig(**small_environment(40, 200)))
    found = set()
    for changes in ({}, {"seed": 1}, {"objective": "contrastive"}, {"learning_rate": 1e-3}):
        section = FineTuneConfig(**{"method": "full", "steps": 1, "batch_size": 4} | changes)
        tuned = tuned_of(config.model_copy(update={"finetune": section}), world)
        found.add(weights_hash(tuned))
    assert len(found | {weights_hash(config)}) == 5


@pytest.mark.parametrize("encoder", ["hashing", "multilingual"])
def test_an_encoder_that_cannot_be_trained_is_refused(encoder):
    with pytest.raises(ConfigError, match=rf"'{encoder}' cannot be trained"):
        fine_tuned(
            EmbeddingConfig(encoder=encoder, finetune=FineTuneConfig()),
            ["a", "b"],
            lambda: pytest.fail("made pairs in vain"),
            torch.device("cpu"),
        )
