"""A small invented log of Chinese films: ``python tests/examples/chinese_catalog.py FOLDER``.

Writes items.csv, interactions.csv and run.yaml (the encoder ``multilingual``, notes and texts about
users in Chinese, a small budget). All titles are made up from parts.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

KINDS = {
    "科幻": (
        "星际 深空 量子 机械 火星 银河 时空 光年",
        "迷航 孤岛 觉醒 边界 方舟",
        "人类在宇宙中的冒险",
    ),
    "爱情": (
        "初夏 江南 春雨 月下 南方 秋日 海边 十年",
        "情书 之约 恋人 来信 相遇",
        "两个人的相遇与分离",
    ),
    "悬疑": (
        "雾港 午夜 第七 消失的 红色 旧楼 雨夜 无声",
        "追凶 密室 证人 钥匙 档案",
        "侦探追查一桩命案",
    ),
    "武侠": (
        "长安 断剑 青衣 大漠 铁马 孤烟 雪山 寒江",
        "侠影 恩仇 行 令 刀客",
        "江湖儿女的恩怨",
    ),
    "喜剧": (
        "乌龙 倒霉 疯狂 隔壁 欢乐 意外 迷糊 囧途",
        "亲家 老板 保镖 假期 兄弟",
        "一连串好笑的误会",
    ),
    "纪录": (
        "稻田 黄河 手艺 候鸟 草原 茶山 老街 渔村",
        "人家 四季 往事 守望 之旅",
        "真实记录普通人的生活",
    ),
}
"""By kind: beginnings and ends of titles, and what such a film is about."""
RUN = """# The made-up log of Chinese films, from end to end.
name: chinese
environment:
  max_requests: 8
  data: {{source: {folder}}}
  embeddings: {{encoder: multilingual, reduction: {{dimension: 16}}}}
  catalog: {{num_topics: 6}}
  population: {{history: 12}}
  measure: {{true_top: 20}}
  text: {{language: zh, notes: true, user_every: 3}}
  pipeline:
    candidates: 40
    slate_size: 5
    components: [profile/told, recall, feature, ranking]
    recall:
      channels: [cf, text, affinity, item_to_item, popular, fresh, diverse, notes, user_text]
sampling: {{num_sessions: 64, rollout_length: 8}}
training: {{env_steps: 10240, checkpoint_every: 10240}}
evaluation: {{sessions: 64, baselines: [random, popularity, static]}}
"""


def write_log(folder: Path, users: int = 90) -> list[tuple[str, str]]:
    """Write the log and the configuration; return title and kind of each item.

    Every user likes one kind, and sometimes another.
    """
    films = [
        (f"{first}{second}", kind, words)
        for kind, (firsts, seconds, words) in KINDS.items()
        for first in firsts.split()
        for second in seconds.split()
    ]
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["item_id", "title", "genres", "description"])
        table.writerows(
            (f"i{n}", title, kind, words) for n, (title, kind, words) in enumerate(films)
        )
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "item_id", "rating", "timestamp"])
        for user in range(users):
            favourite = list(KINDS)[user % len(KINDS)]
            for order, item in enumerate(draw.sample(range(len(films)), 36)):
                good = films[item][1] == favourite or draw.random() < 0.1
                rating = draw.choice([4, 5] if good else [1, 2, 3])
                table.writerow([f"u{user}", f"i{item}", rating, 1_700_000_000 + 3600 * order])
    (folder / "run.yaml").write_text(RUN.format(folder=folder.resolve()), encoding="utf-8")
    return [(title, kind) for title, kind, _ in films]


if __name__ == "__main__":
    write_log(Path(sys.argv[1]))
    print(f"python train.py {sys.argv[1]}/run.yaml")
