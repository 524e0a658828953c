"""Which components make a team, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from marec_env.errors import ConfigError, unknown_name
from marec_env.pipeline.component import COMPONENTS, Component
from marec_env.pipeline.config import PipelineConfig
from marec_env.pipeline.observations import FIELDS
from marec_env.pipeline.plugin_checks import guarded
from marec_env.registry import is_own


def components_of(config: PipelineConfig) -> tuple[Component, ...]:
    """Return a pipeline's components in order.

    Raises:
        ConfigError: one does not exist or is unsound, names are doubled, a decision would come too
            late, or data are granted to nobody.
    """
    components = tuple(_component_class(name)(config) for name in config.components)
    _check_team(config, components)
    return components


def _component_class(name: str) -> type[Component]:
    """Return the class of a component.

    Raises:
        ConfigError: there is none of that name, or it is no component.
    """
    found: object = COMPONENTS.get(name)
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ConfigError(
            f"pipeline.components: '{name}' is no component; name a subclass of "
            "marec_env.pipeline.Component"
        )
    return guarded(name, found) if is_own(name) else found


def data_price(config: PipelineConfig, components: Sequence[Component]) -> float:
    """Return what the fields that components see cost a request.

    Raises:
        ConfigError: a price is of a field that no component of this pipeline asks for.
    """
    asked = {field for component in components for field in component.fields}
    for field in config.data_prices:
        if field not in asked:
            raise ConfigError(f"pipeline.data_prices: {unknown_name(FIELDS.kind, field, asked)}")
    seen = [field for component in components for field in component.granted]
    return sum(config.data_prices.get(field, 0.0) for field in seen)


def _check_team(config: PipelineConfig, components: Sequence[Component]) -> None:
    """Refuse doubled names, an impossible order, and data limits for nobody."""
    names = [component.name for component in components]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise ConfigError(
            f"pipeline.components: two are called '{doubled[0]}'; give each class its own name"
        )
    for place, component in enumerate(components):
        late = [name for name in component.before if name in names[:place]]
        if late:
            raise ConfigError(
                f"pipeline.components: '{component.name}' must come before '{late[0]}'; swap them"
            )
    for name, granted in config.data_access.items():
        if name in names:
            continue  # the component itself has looked at its grants
        if name not in COMPONENTS:
            raise ConfigError(f"pipeline.data_access: {unknown_name('component', name, names)}")
        known = COMPONENTS.get(name).fields
        for field in granted:
            if field not in known:
                raise ConfigError(
                    f"pipeline.data_access.{name}: {unknown_name(FIELDS.kind, field, known)}"
                )
