"""Published data sets as folders of the plain format."""

from marec_env.data.published.convert import Dataset, convert, dataset, datasets
from marec_env.data.published.rows import Report

__all__ = ["Dataset", "Report", "convert", "dataset", "datasets"]
