"""What the views and own plug-ins of the pipeline and of rewards are refused, in one line each."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

import marec_env
from marec_env.errors import ConfigError, MarecError, PluginError
from marec_env.pipeline import Component

WORLD = {
    "max_requests": 4,
    "data": {"source": "synthetic/streaming", "synthetic": {"num_users": 40, "num_items": 120}},
    "embeddings": {"encoder": "hashing", "reduction": {"dimension": 8}},
    "catalog": {"num_topics": 5},
    "population": {"history": 12},
}
FUNNEL = {"candidates": 20, "slate_size": 5}
TEAM = ("profile", "recall", "feature", "ranking")


def team_with(kind, *, place=3, **rewards):
    components = [*TEAM[:place], f"{__name__}:{kind.__name__}", *TEAM[place:]]
    pipeline = {**FUNNEL, "components": components}
    return {**WORLD, "pipeline": pipeline, "rewards": rewards}


def play(config, steps=2):
    simulator = marec_env.make_vec(config, 3)
    for _ in range(steps):
        simulator.step(simulator.default_actions())
    return simulator


# ------------------------------------------------------------------ views


@pytest.mark.parametrize("number", [1.5, 2.0, "3", None, float("nan"), True, 0, -1])
def test_a_number_of_sessions_is_a_whole_number_above_zero(number):
    with pytest.raises(ConfigError, match=r"^num_sessions is .*; give (a whole number|at least 1)"):
        marec_env.make_vec({**WORLD, "pipeline": FUNNEL}, number)


@pytest.mark.parametrize("number", [10**9, 10**30])
def test_sessions_that_cannot_fit_are_refused_with_the_estimate(number):
    with pytest.raises(ConfigError, match=r"sessions over 120 items: needs about [\d,.]+ GB"):
        marec_env.make_vec({**WORLD, "pipeline": FUNNEL}, number)


@pytest.mark.parametrize("config", [5, ["a"], b"x", 1.5, object()])
def test_what_configures_no_environment_is_refused(config):
    with pytest.raises(ConfigError, match="a mapping of its keys, a YAML file's path or"):
        marec_env.parallel_env(config)


def test_of_a_runs_file_the_environment_counts(tmp_path):
    place = tmp_path / "run.yaml"
    place.write_text(
        "environment:\n  max_requests: 7\n  embeddings: {encoder: hashing}\n"
        "algorithm:\n  kind: mappo\n"
    )
    assert marec_env.parallel_env(str(place)).config.max_requests == 7
    place.write_text("environment:\n  max_request: 7\n")
    with pytest.raises(ConfigError, match=r"environment\.max_request.*did you mean"):
        marec_env.parallel_env(place)


@pytest.fixture(scope="module")
def env():
    return marec_env.parallel_env({**WORLD, "pipeline": FUNNEL})


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_a_box_takes_numbers_of_any_real_kind(env, dtype):
    rewards = {}
    for kind in (np.float32, dtype):
        env.reset(seed=0)
        actions = {agent: np.zeros(env.action_space(agent).shape, int) for agent in env.agents}
        for agent in ("profile_0", "ranking_0"):
            actions[agent] = np.ones(env.action_space(agent).shape, kind)
        rewards[kind] = env.step(actions)[1]
    assert rewards[np.float32] == rewards[dtype]


@pytest.mark.parametrize(
    ("agent", "action", "message"),
    [
        ("profile_0", np.full(5, 1e39), "not finite"),
        ("profile_0", np.zeros(5, complex), "give a tensor of numbers"),
        ("profile_0", np.zeros(5, object), "not made of numbers"),
        ("profile_0", {"a": 1}, "not made of numbers"),
        ("recall_0", [1.0] * 7, "not made of whole numbers"),
        ("recall_0", [4] * 7, r"choices outside 0 \.\.\. 3"),
        ("recall_0", [-1] * 7, r"choices outside 0 \.\.\. 3"),
        ("recall_0", 1, r"shape \[1\]; needed: \[1, 7\]"),
    ],
)
def test_actions_that_do_not_fit_are_refused(env, agent, action, message):
    env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    with pytest.raises(ConfigError, match=f"^{agent}: action.*{message}"):
        env.step({**actions, agent: action})


@pytest.mark.parametrize("actions", [5, None, [1, 2, 3, 4]])
def test_actions_are_given_by_agent(env, actions):
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="give a mapping from agent to action"):
        env.step(actions)


def test_the_sequential_view_before_its_reset_and_after_its_end():
    env = marec_env.aec_env({**WORLD, "pipeline": FUNNEL})
    for call in (lambda: env.step([0.0] * 5), env.last, lambda: env.observe("rank")):
        with pytest.raises(ConfigError, match=r"reset\(\)|agent 'rank' is unknown"):
            call()
    env.reset(seed=0)
    for agent in env.agent_iter():
        dead = env.terminations[agent] or env.truncations[agent]
        env.step(None if dead else env.action_space(agent).sample())
    with pytest.raises(ConfigError, match=r"call reset\(\) before step\(\)"):
        env.step([0.0] * 5)


# ------------------------------------------------------------------ own components


class Sound(Component):
    """Does nothing, and remembers how often."""

    name = "sound"
    fields = ("session", "count")

    @property
    def action_space(self):
        return spaces.Box(-1.0, 1.0, (1,))

    def initial_state(self, knowledge):
        return {"count": torch.zeros(1), "clicked": torch.tensor(0)}

    def act(self, request, action):
        pass

    def learn(self, request, clicks):
        self.state["count"] = self.state["count"] + 1
        self.state["clicked"] += clicks.sum(1).to(torch.int64)

    def default_action(self):
        return torch.zeros(1)


def test_what_a_component_remembers_goes_with_the_session():
    config = {**team_with(Sound), "users": {"patience": {"kind": "none"}}}
    simulator = play(config, 3)
    component = simulator.pipeline.components[3]
    assert component.state["count"].tolist() == [[3.0]] * 3
    assert simulator.observe("sound_0")[:, -1].tolist() == [3.0] * 3
    stored = simulator.state_dict()
    step = simulator.step(simulator.default_actions())  # the fourth ends every episode
    assert step.final_observations["sound_0"][:, -1].tolist() == [4.0] * 3
    assert step.observations["sound_0"][:, -1].tolist() == [0.0] * 3
    assert component.state["count"].tolist() == [[0.0]] * 3
    simulator.load_state_dict(stored)
    assert component.state["count"].tolist() == [[3.0]] * 3
    assert (
        component.state["clicked"].tolist()
        == stored["pipeline"]["components"]["sound_0"]["clicked"].tolist()
    )
    del stored["pipeline"]["components"]["sound_0"]["count"]
    with pytest.raises(ConfigError, match="saved state of sound_0 holds"):
        simulator.load_state_dict(stored)


def test_replays_of_a_component_leave_what_it_remembers():
    simulator = play(team_with(Sound, mode="difference"), 2)
    assert simulator.pipeline.components[3].state["count"].tolist() == [[2.0]] * 3


def broken(**members):
    """Return a component that is sound but for what is given, and can be named by its place."""
    kind = type(f"Broken{len(BROKEN)}", (Sound,), {"__module__": __name__, **members})
    globals()[kind.__name__] = kind
    BROKEN.append(kind)
    return kind


BROKEN = []


def acting(write):
    return lambda self, request, action: write(request, request.need("candidates"))


def space(made):
    return property(lambda self: made)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"name": ""}, "name '' is no name"),
        ({"name": "two words"}, "name 'two words' is no name"),
        ({"name": 5}, "name 5 is no name"),
        ({"name": "ranking"}, "two are called 'ranking'"),
        ({"fields": "session"}, "fields is 'session'; list names"),
        ({"fields": ("sesion",)}, "observation field 'sesion' is unknown; did you mean"),
        ({"fields": ()}, "grants none of the fields"),
        ({"fields": ("session", f"{__name__}:narrow")}, "observation field .*narrow' returned"),
        ({"fields": ("session", f"{__name__}:failing")}, "observation field .*failing' failed"),
        ({"__init__": lambda self, config: None}, "must call super"),
        ({"__init__": lambda self: None}, "failed: TypeError"),
        ({"action_space": space(spaces.Box(-np.inf, np.inf, (1,)))}, "action_space is unbounded"),
        ({"action_space": space(spaces.Box(-1.0, 1.0, (0,)))}, r"action_space has shape \(0,\)"),
        ({"action_space": space(spaces.Box(-1.0, 1.0, (2, 2)))}, r"has shape \(2, 2\)"),
        ({"action_space": space(spaces.Discrete(3, start=1))}, "start at 0"),
        ({"action_space": space(spaces.Text(3))}, "use a Box, a Discrete or a MultiDiscrete"),
        ({"action_space": space(None)}, "action_space is None"),
        ({"default_action": lambda self: torch.zeros(3)}, r"shape \[1, 3\]; needed: \[1, 1\]"),
        ({"default_action": lambda self: torch.full((1,), 9.0)}, "which is not in Box"),
        ({"default_action": lambda self: torch.full((1,), torch.nan)}, "not finite"),
        ({"default_action": lambda self: [0.0]}, "returned list; return a tensor"),
        ({"initial_state": lambda self, knowledge: 5}, "initial_state returned 5"),
        ({"initial_state": lambda self, knowledge: {"count": 0}}, "return tensors by name"),
        ({"observe": lambda self, view: None}, "observe returned NoneType"),
        (
            {"observe": lambda self, view: view["session"][:1]},
            r"observe returned.*\[1",
        ),
        ({"observe": lambda self, view: view["session"] / 0}, "observe returned numbers that"),
        ({"observe": lambda self, view: view["group"]}, "may not read the field 'group'"),
        ({"active": lambda self, memory: torch.ones(3)}, r"active returned torch.float32 \[3\]"),
        ({"act": acting(lambda r, c: r.add_bonus(torch.full(c.shape, torch.nan)))}, "bonus holds"),
        ({"act": acting(lambda r, c: r.add_bonus(torch.zeros(3, 1)))}, r"bonus holds.*\[3, 1\]"),
        ({"act": acting(lambda r, c: r.add_veto(torch.full(c.shape, torch.nan)))}, "veto holds"),
        ({"act": acting(lambda r, c: r.add_veto(torch.zeros(3)))}, r"veto holds.*\[3\]; needed"),
        ({"act": acting(lambda r, c: r.add_veto(torch.full(c.shape, -1.0)))}, "veto negative"),
        ({"act": acting(lambda r, c: r.spend(torch.tensor(1.0)))}, "extra_cost holds"),
        ({"act": acting(lambda r, c: setattr(r, "candidates", c + 120))}, "outside 0 ... 119"),
        ({"act": acting(lambda r, c: setattr(r, "candidates", c[:, :7]))}, r"holds.*\[3, 7\]"),
        ({"act": acting(lambda r, c: setattr(r, "candidates", 0 * c))}, "holds an item twice"),
        ({"learn": lambda self, r, clicks: self.state.clear()}, r"left the state \[\]"),
        (
            {"learn": lambda self, r, clicks: self.state.update(count=torch.zeros(3))},
            r"state 'count' holds torch.float32 \[3\]; needed: torch.float32 \[3, 1\]",
        ),
    ],
)
def test_a_component_that_is_unsound_is_named_in_one_line(members, message):
    kind = broken(**members)
    with pytest.raises(MarecError, match=message) as caught:
        play(team_with(kind))
    assert "\n" not in str(caught.value)
    if "two are called" not in message and "field" not in message:
        assert f"'{__name__}:{kind.__name__}'" in str(caught.value)


@pytest.mark.parametrize(
    "method",
    ["act", "learn", "observe", "default_action", "initial_state", "active", "action_space"],
)
def test_an_exception_names_the_function_and_keeps_its_cause(method):
    def fail(*arguments):
        return {}["nothing"]

    kind = broken(**{method: property(fail) if method == "action_space" else fail})
    with pytest.raises(PluginError, match=f"{kind.__name__}': {method} failed: KeyError") as caught:
        play(team_with(kind))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_component_may_not_change_the_slate_after_the_ranking():
    def pad(self, request, action):
        if request.slate is not None:
            request.slate[:, -1] = request.candidates[:, -1]

    def replace(self, request, action):
        if request.slate is not None:
            request.slate = request.slate.flip(1)

    for act in (pad, replace):
        with pytest.raises(ConfigError, match="changed the slate after the ranking"):
            play(team_with(broken(act=act), place=4))


def test_a_ranking_of_ones_own_needs_no_propensity():
    def show(self, request, action):
        request.slate = request.need("candidates")[:, :5].clone()

    kind = broken(act=show)
    config = {
        **WORLD,
        "pipeline": {**FUNNEL, "components": ["recall", f"{__name__}:{kind.__name__}"]},
    }
    simulator = play(config)
    with pytest.raises(ConfigError, match="no propensity"):
        _ = simulator.last.request.log_propensity


def test_a_bonus_is_in_score_units_and_no_match_for_a_veto():
    def push(self, request, action):
        candidates = request.need("candidates")
        request.add_bonus(100.0 * (candidates % 2).to(torch.float32))
        request.add_veto((candidates % 3 == 0).to(torch.float32))

    simulator = play(team_with(broken(act=push)), 1)
    request = simulator.last.request
    odd, vetoed = request.slate % 2 == 1, request.slate % 3 == 0
    assert not bool(vetoed.any())
    assert bool((odd.sum(1) >= 3).all())
    assert bool(request.log_propensity.isfinite().all())


# ------------------------------------------------------------------ own terms, channels, blocks


def failing(*arguments):
    raise ZeroDivisionError("the user's own\nmistake")


def leaving(*arguments):
    raise SystemExit(0)


def narrow(*arguments):
    return torch.zeros(1)


def nothing(*arguments):
    return None


PLACES = {
    "reward term": lambda place: {"rewards": {"team": {place: 1.0}}},
    "shaping potential": lambda place: {"rewards": {"shaping": [{"potential": place}]}},
    "recall channel": lambda place: {"pipeline": {**FUNNEL, "recall": {"channels": [place]}}},
    "feature block": lambda place: {"pipeline": {**FUNNEL, "blocks": {place: 0.0}}},
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (failing, "failed: ZeroDivisionError: the user's own mistake$"),
        (leaving, "failed: SystemExit: 0$"),
        (narrow, r"returned torch.float32 \[1\]; needed: torch\.\w+ \[3"),
        (nothing, r"returned NoneType; needed: torch\.\w+ \[3"),
    ],
)
def test_an_own_function_that_fails_is_named_and_the_session_goes_on(kind, function, message):
    place = f"{__name__}:{function.__name__}"
    config = {**WORLD, "pipeline": FUNNEL, **PLACES[kind](place)}
    simulator = marec_env.make_vec(config, 3)
    before = simulator.state_dict()
    with pytest.raises(MarecError, match=f"{kind} '{place}' {message}"):
        simulator.step(simulator.default_actions())
    assert equal(simulator.state_dict(), before), "as before the request"


def equal(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
