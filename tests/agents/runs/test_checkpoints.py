from __future__ import annotations

from pathlib import Path

import pytest

from agents.runs.checkpoints import Progress, damage, latest_checkpoint, save_checkpoint
from marec_env.errors import RunError


def save(root: Path, steps: int, keep: int = 0, text: str = "weights") -> Path:
    def write(folder: Path) -> None:
        (folder / "w.bin").write_text(text * 10)

    return save_checkpoint(root, write, Progress(steps, steps // 10, 1.0), keep)


def test_newest_by_number_not_by_name_length(tmp_path: Path) -> None:
    save(tmp_path, 90)
    save(tmp_path, 1_000_000)
    found = latest_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert found.progress == Progress(1_000_000, 100_000, 1.0)
    assert (found.trainer / "w.bin").read_text() == "weights" * 10


def test_none_written(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path, pytest.fail) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def other_progress(folder: Path) -> None:
    """Sound by its checksums, of another shape."""
    (folder / "checksums.json").write_text("{}")
    (folder / "progress.json").write_text('{"env_steps": 1, "iterations": "x", "seconds": 1}')


def flip(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: cut(folder / "trainer/w.bin"), r"trainer/w.bin has 67 of 70 bytes"),
        (lambda folder: flip(folder / "trainer/w.bin"), r"does not have the SHA-256"),
        (lambda folder: (folder / "trainer/w.bin").unlink(), r"trainer/w.bin is missing"),
        (lambda folder: cut(folder / "checksums.json"), r"checksums.json cannot be read"),
        (lambda folder: cut(folder / "progress.json"), r"progress.json has"),
        (lambda folder: (folder / "checksums.json").unlink(), r"checksums.json is missing"),
        *(
            (lambda folder, text=text: (folder / "checksums.json").write_text(text), reason)
            for text, reason in (
                ("[]", r"checksums.json: its content: Input should be a valid dict"),
                ('{"trainer/w.bin": 3}', r"checksums.json: trainer/w.bin: Input should be"),
                ('{"trainer/w.bin": {"bytes": 70}}', r"trainer/w.bin.sha256: Field required"),
                ('{"a\\u0000b": {"bytes": 70, "sha256": ""}}', r"cannot be read|is missing"),
            )
        ),
        (lambda folder: other_progress(folder), r"progress.json: iterations: Input should be a"),
    ],
)
def test_damage_is_found_and_the_checkpoint_before_is_used(
    tmp_path: Path, harm: object, reason: str
) -> None:
    first, second = save(tmp_path, 10), save(tmp_path, 20)
    assert damage(second) is None
    harm(second)  # type: ignore[operator]
    said: list[str] = []
    found = latest_checkpoint(tmp_path, said.append)
    assert found is not None
    assert found.folder == first
    [line] = said
    assert "env_steps-000000000020 is damaged" in line
    assert line.endswith("using env_steps-000000000010 instead")
    harm(first)  # type: ignore[operator]
    with pytest.raises(RunError, match=reason) as caught:
        latest_checkpoint(tmp_path, said.append)
    assert "\n" not in str(caught.value)
    assert "start anew: python train.py" in str(caught.value)


def test_a_damaged_checkpoint_reached_again_is_kept_aside(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    cut(folder / "trainer/w.bin")
    save(tmp_path, 10, text="again")
    assert (folder / "trainer/w.bin").read_text() == "again" * 10
    assert len((tmp_path / f"damaged-{folder.name}/trainer/w.bin").read_text()) == 67


def test_a_whole_checkpoint_of_the_same_step_stays(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    save(tmp_path, 10, text="other")
    assert (folder / "trainer/w.bin").read_text() == "weights" * 10


def test_a_checkpoint_keeps_the_metrics_so_far(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    save(tmp_path / "checkpoints", 10)
    found = latest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    assert found is not None
    assert found.metrics.read_text() == "{}\n"


def test_keep(tmp_path: Path) -> None:
    for steps in (10, 20, 30):
        save(tmp_path, steps, keep=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_save_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 10, keep=1)

    def full(folder: Path) -> None:
        (folder / "w.bin").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"No space left on device; earlier .* make room") as caught:
        save_checkpoint(tmp_path, full, Progress(20, 2, 1.0), 1)
    assert f"python train.py --resume {tmp_path.parent}" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["env_steps-000000000010"]
    found = latest_checkpoint(tmp_path, pytest.fail)
    assert found is not None
    assert found.progress.env_steps == 10
    save(tmp_path, 20, keep=1)
    assert latest_checkpoint(tmp_path, pytest.fail).progress.env_steps == 20  # type: ignore[union-attr]
