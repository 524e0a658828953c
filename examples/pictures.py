"""Pictures: ``python examples/pictures.py FOLDER`` and ``python train.py FOLDER/run.yaml``.

Writes an invented shop whose titles say nothing and whose pictures are squares of six colours, a
small image model, and a run that reads both. The model is untrained, which does for colours; of
pictures of things name a real one as ``encoder``, such as 'openai/clip-vit-base-patch32'.
"""

import csv
import random
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

COLOURS = {
    "red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 210),
    "yellow": (230, 210, 50), "violet": (150, 60, 190), "grey": (130, 130, 130),
}  # fmt: skip
RUN = """# The invented shop of coloured squares, with its pictures.
name: pictures
environment:
  max_requests: 10
  data: {{source: {folder}}}
  embeddings:
    reduction: {{dimension: 8}}
    pictures: {{encoder: {folder}/model}}
  catalog: {{num_topics: 6}}
  population: {{history: 12}}
  measure: {{true_top: 20}}
  pipeline:
    candidates: 40
    slate_size: 5
    recall: {{channels: [cf, text, item_to_item, popular, fresh, pictures]}}
    blocks: {{cf: 0.02, text: 0.03, popularity: 0.005, exposure: 0.01, pictures: 0.03}}
sampling: {{num_sessions: 64, rollout_length: 10}}
training: {{env_steps: 12800, checkpoint_every: 12800}}
evaluation: {{sessions: 64, baselines: [random, popularity, static]}}
"""


def write_model(folder: Path) -> None:
    """Save a vision transformer of random weights, as any of transformers' is saved."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    model = ViTModel(ViTConfig(image_size=32, patch_size=16, hidden_size=32, **layers))
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def write_shop(folder: Path, users: int = 90, items: int = 240, ratings: int = 20) -> list[str]:
    """Write pictures, log, model and configuration; return each item's colour.

    Every user likes one colour, and looks at its items three times in four.
    """
    draw = random.Random(0)
    colours = [list(COLOURS)[item % len(COLOURS)] for item in range(items)]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with (folder / "items.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "title", "image"])
        for item, colour in enumerate(colours):
            shade = tuple(part + draw.randint(-30, 30) for part in COLOURS[colour])
            Image.new("RGB", (48, 48), shade).save(folder / f"pictures/{item}.png")
            table.writerow([f"i{item}", f"no. {draw.randint(1, 9999)}", f"pictures/{item}.png"])
    with (folder / "interactions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "rating", "timestamp"])
        for user in range(users):
            liked = range(user % len(COLOURS), items, len(COLOURS))
            seen = draw.sample(liked, 3 * ratings // 4)
            seen += draw.sample([*set(range(items)) - set(seen)], ratings - len(seen))
            for order, item in enumerate(draw.sample(seen, ratings)):
                rating = draw.choice([4, 5] if item in liked else [1, 2, 3, 4])
                table.writerow([f"u{user}", f"i{item}", rating, 1_700_000_000 + 3600 * order])
    write_model(folder / "model")
    (folder / "run.yaml").write_text(RUN.format(folder=folder.resolve()))
    return colours


if __name__ == "__main__":
    write_shop(Path(sys.argv[1]))
    print(f"python train.py {sys.argv[1]}/run.yaml")
