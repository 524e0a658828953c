"""What the wheel holds beside the packages: configs/ and examples/, below ``marec_env.shipped``."""

from setuptools import find_namespace_packages, setup

SHIPPED = {
    "marec_env.shipped.configs": "configs",
    "marec_env.shipped.configs.scenarios": "configs/scenarios",
    "marec_env.shipped.configs.suite": "configs/suite",
    "marec_env.shipped.examples": "examples",
}

setup(
    packages=[*find_namespace_packages(include=["marec_env*", "agents*"]), *SHIPPED],
    package_dir=SHIPPED,
)
