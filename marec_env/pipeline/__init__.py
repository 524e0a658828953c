"""The recommender's side: components, recall channels, feature blocks, messages, slates."""

from marec_env.pipeline.component import COMPONENTS, Component
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.knowledge import Knowledge
from marec_env.pipeline.pipeline import Pipeline
from marec_env.pipeline.request import Request

__all__ = ["COMPONENTS", "Component", "Knowledge", "Pipeline", "PipelineConfig", "Request"]

for _name, _place in {
    "profile/query": "profile:Query",
    "profile/told": "told:ToldProfile",
    "recall/topics": "topics:TopicRecall",
    "ranking/tiring": "topics:TiringRanking",
    "ranking/topics": "topics:TopicRanking",
}.items():
    COMPONENTS.register_at(_name, f"marec_env.pipeline.{_place}")
