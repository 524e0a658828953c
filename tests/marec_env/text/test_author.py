"""Texts by models: a server that fails, small models in folders, replays, limits."""

import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from marec_env.errors import AssetError, ConfigError, DataError, RunError
from marec_env.text import Author, Prompt
from marec_env.text.config import GgufText, OpenAIText, ReplayText, TemplateText, TransformersText
from marec_env.text.models import Reply, open_model
from marec_env.text.prompts import DESCRIPTION, described


def prompts(count, schema=None):
    return [Prompt("be brief", f"item {n}", f"template {n}", schema) for n in range(count)]


class Server(ThreadingHTTPServer):
    """Answers chat completions about "item n" as it is told to; counts what it gets."""

    def __init__(self, answer):
        self.answer, self.asked, self.headers = answer, [], []
        self.counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counting:
            self.server.asked.append(body)
            self.server.headers.append(dict(self.headers))
            number = len(self.server.asked)
        status, answer = self.server.answer(body, number)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *values):
        pass


def completion(text, **more):
    return json.dumps(
        {
            "choices": [{"message": {"content": text}, **more}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    )


class Silent:
    name = "silent"

    def complete(self, asked, schema):
        return [Reply("") for _ in asked]


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def openai(server, **changes):
    return OpenAIText(
        **{"url": server.url, "model": "tiny", "backoff": 0.0, "timeout": 200.0} | changes
    )


def test_a_bad_server_is_outlived_and_its_replay_is_the_same(serve, tmp_path):
    broken = {"item 3", "item 7"}  # never usable; every tenth call fails; all are slow

    def answer(body, number):
        time.sleep(0.005)
        item = body["messages"][1]["content"]
        if number % 10 == 0:
            return (429, "slow down") if number % 20 else (500, "")
        if item in broken:
            return 200, completion('{"description": "cut') if item == "item 3" else "{not JSON"
        return 200, completion(json.dumps({"description": f"a note  of {item}"}))

    server, said = serve(answer), []
    author = Author(openai(server, price_in=10.0, price_out=100.0), tmp_path, said.append)
    found = author.write(prompts(40, DESCRIPTION), described)
    expected = [f"a note of item {n}" for n in range(40)]
    expected[3], expected[7] = "template 3", "template 7"
    assert found == expected
    report = author.report
    assert (report.texts, report.templates) == (40, 2)
    assert report.calls == len(server.asked) > 44 and report.retried == report.calls - 40
    assert report.problems["malformed"] >= 2 and report.problems["broken JSON"] >= 2
    assert sum(report.problems.values()) == report.calls - 38
    assert report.problems["rate limit"] + report.problems["status 500"] == len(server.asked) // 10
    assert report.cost == pytest.approx(
        (report.tokens_read * 10 + report.tokens_written * 100) / 1e6
    )
    assert report.tokens_written == 3 * (38 + report.problems["malformed"])
    assert "40 calls" in said[0] and "cost at most" in said[0] and "the template's for 2" in said[1]
    form = server.asked[0]["response_format"]["json_schema"]["schema"]
    assert form["required"] == ["description"]

    calls = len(server.asked)
    replay = Author(ReplayText(file=report.file), tmp_path, said.append)
    assert replay.write(prompts(40, DESCRIPTION), described) == expected
    assert len(server.asked) == calls and replay.report.templates == 2
    with pytest.raises(DataError, match=r"lacks 1 of 41 texts \(the first is of 'item 40'\)"):
        Author(ReplayText(file=report.file), tmp_path).write(prompts(41, DESCRIPTION))

    again = Author(openai(server), tmp_path, said.append)
    assert again.write(prompts(40, DESCRIPTION), described) == expected
    assert again.report.cached == 38  # what failed is tried again


@pytest.mark.parametrize(
    ("system", "tokens", "longest"),
    [("describe", 40, 90), ("描述", 40, 30), ("describe", 8, 1), ("describe", 4096, 600)],
)
def test_a_schemas_text_ends_before_the_tokens_do(system, tokens, longest, serve):
    server = serve(lambda body, number: (200, completion('{"description": "short"}')))
    model = open_model(openai(server, max_tokens=tokens))
    model.complete([(system, "a title in 中文")], DESCRIPTION)
    model.complete([(system, "free")], None)
    form = server.asked[0]["response_format"]["json_schema"]["schema"]
    pattern = form["properties"]["description"].pop("pattern")
    assert form == DESCRIPTION and "response_format" not in server.asked[1]
    assert re.search(pattern, "中" * longest) and not re.search(pattern, "a" * (longest + 1))
    assert not any(re.search(pattern, text) for text in ("", '"', "\\", "\n"))


def test_another_setting_is_another_file(serve, tmp_path):
    server = serve(lambda body, number: (200, completion(f"text {number}")))
    files = set()
    for changes in ({}, {"seed": 1}, {"temperature": 0.5}, {"model": "other"}, {"max_tokens": 9}):
        author = Author(openai(server, **changes), tmp_path, lambda line: None)
        author.write(prompts(1))
        files.add(author.report.file)
    author.write(prompts(1, DESCRIPTION))  # another form: another text in the same file
    assert len(files | {author.report.file}) == 5 and len(server.asked) == 6


def test_the_key_is_sent_and_written_nowhere(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-of-mine")
    server, said = serve(lambda body, number: (200, completion("fine"))), []
    author = Author(openai(server, key_variable="MY_KEY"), tmp_path, said.append)
    assert author.write(prompts(2)) == ["fine", "fine"]
    assert server.headers[0]["Authorization"] == "Bearer s3cret-of-mine"
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "s3cret" not in kept + "".join(said) + repr(author.report)


def test_calls_have_a_limit(serve, tmp_path):
    server = serve(lambda body, number: (200, completion(" ")))
    with pytest.raises(ConfigError, match="max_calls allows 5 more"):
        Author(openai(server, max_calls=5), tmp_path).write(prompts(6))
    assert not server.asked
    author = Author(openai(server, max_calls=5, attempts=4), tmp_path, lambda line: None)
    assert author.write(prompts(3)) == ["template 0", "template 1", "template 2"]
    assert len(server.asked) == author.report.calls == 5
    assert author.report.problems == {"empty": 5}


def test_the_plan_counts_options_too(tmp_path):
    asked = [Prompt("system", "user", "[0, 0]", options=("a" * 70, "b" * 60))]
    author = Author(OpenAIText(model="m", max_calls=0), tmp_path, model=lambda config: Silent())
    with pytest.raises(
        ConfigError, match="1 calls of silent, about 40 tokens to read and at most 1"
    ):
        author.score(asked)


def test_time_outs_count_and_wrong_keys_end_the_run(serve, tmp_path):
    over = threading.Event()
    slow = serve(lambda body, number: (over.wait(), (200, completion("late")))[1])
    author = Author(openai(slow, timeout=0.05, attempts=1), tmp_path, lambda line: None)
    assert author.write(prompts(1)) == ["template 0"]
    over.set()
    assert author.report.problems == {"time-out": 1}
    closed = serve(lambda body, number: (401, "no"))
    with pytest.raises(RunError, match=r"answers 401 .* variable OPENAI_API_KEY"):
        Author(openai(closed), tmp_path, lambda line: None).write(prompts(1))


def test_a_template_asks_nobody(tmp_path):
    author = Author(TemplateText(), tmp_path, model=lambda config: pytest.fail("asked"))
    assert author.write(prompts(2)) == ["template 0", "template 1"]
    assert str(author.report) == "2 texts by template" and not list(tmp_path.iterdir())


def test_equal_prompts_are_written_once_and_files_that_are_none_are_refused(tmp_path):
    class Counting:
        name = "counting"

        def complete(self, asked, schema):
            return [Reply(f"{len(asked)} asked") for _ in asked]

    config = OpenAIText(model="x")
    author = Author(config, tmp_path, lambda line: None, lambda config: Counting())
    assert author.write([*prompts(2), *prompts(2)]) == ["2 asked"] * 4
    (tmp_path / "bad.jsonl").write_text('{"model": "x"}\n{"key": 3}')
    with pytest.raises(DataError, match="no file of texts"):
        Author(ReplayText(file=str(tmp_path / "bad.jsonl")), tmp_path).write(prompts(1))


def test_options_are_scored_by_the_likeliest_letters(serve):
    def answer(body, number):
        assert "A. red\nB. blue\nC. green" in body["messages"][1]["content"]
        likely = [{"token": " B", "logprob": -0.1}, {"token": "A", "logprob": -2.1}]
        return 200, completion("B", logprobs={"content": [{"top_logprobs": likely}]})

    model = open_model(openai(serve(answer)))
    (reply,) = model.score([("s", "which?")], [["red", "blue", "green"]])
    red, blue, green = json.loads(reply.text)
    assert reply.read == 7
    assert blue - red == pytest.approx(2.0) and red - green == pytest.approx(5.0)
    assert torch.tensor([red, blue, green]).exp().sum() == pytest.approx(1.0)
    said = {
        "status 500": (500, ""),
        "no log-probabilities": (200, completion("A")),
        "no option among the likeliest": (
            200,
            completion("I", logprobs={"content": [{"top_logprobs": [likely("I", -0.1)]}]}),
        ),
    }
    for problem, answer in said.items():
        model = open_model(openai(serve(lambda body, number, answer=answer: answer)))
        assert [(r.text, r.problem) for r in model.score([("s", "u")], [["x", "y"]])] == [
            ("", problem)
        ]


def likely(token, logprob):
    return {"token": token, "logprob": logprob}


def test_scores_are_kept_repeated_and_replaced_by_the_template(serve, tmp_path):
    def answer(body, number):
        asked = body["messages"][1]["content"]
        if "item 2" in asked or number == 1:
            return 500, ""
        top = [likely("A", -0.2 - ("item 1" in asked)), likely("B", -2.0)]
        return 200, completion("A", logprobs={"content": [{"top_logprobs": top}]})

    asked = [
        Prompt("judge", f"item {n}", "[-3.0, -0.05]", options=("yes", "no")) for n in (0, 1, 2, 0)
    ]
    server = serve(answer)
    author = Author(openai(server, concurrency=1), tmp_path, lambda line: None)
    found = author.score(asked)
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx([1.8, 0.8, -2.95, 1.8])
    report = author.report
    assert (report.scores, report.texts, report.templates) == (4, 0, 1)
    assert report.calls == len(server.asked) == 6 and server.asked[0]["max_tokens"] == 1
    assert str(report).startswith("0 texts and 4 scores by openai")
    replay = Author(ReplayText(file=report.file), tmp_path)
    assert torch.equal(replay.score(asked), found) and len(server.asked) == 6
    other = [Prompt("judge", "item 0", "[0, 0]", options=("no", "yes"))]
    with pytest.raises(DataError, match="lacks 1 of 1"):
        replay.score(other)
    by_template = Author(TemplateText(), tmp_path).score(asked)
    assert by_template.tolist() == [pytest.approx([-3.0, -0.05])] * 4


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A causal model with random weights and a tokenizer of a dozen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("causal")
    words = ["<unk>", "<end>", *map(str, range(4)), "be", "brief", "item", "a"]
    words += ["note", "of", "war", "love"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=64,
        bos_token_id=1, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    return folder


def test_a_local_model_writes_the_same_in_any_batch(small_model, tmp_path):
    asked = [("be brief", "item 0"), ("be brief", "a note of item 1 2 3"), ("be", "war")]
    one, many = (
        open_model(TransformersText(folder=str(small_model), max_tokens=6, concurrency=size))
        for size in (1, 3)
    )
    alone, together = one.complete(asked, None), many.complete(asked, None)
    assert [reply.text for reply in alone] == [reply.text for reply in together]
    assert len({reply.text for reply in alone}) > 1 and alone[1].read > alone[0].read
    assert one.name == many.name
    with pytest.raises(AssetError, match=r"text\.model\.folder"):
        open_model(TransformersText(folder=str(tmp_path)))


def test_a_local_model_scores_by_probability(small_model):
    from transformers import AutoModelForCausalLM

    model = open_model(TransformersText(folder=str(small_model), concurrency=2))
    options = ["war", "love", "a note of war"]
    replies = model.score([("be brief", "item 0"), ("be", "item 1")], [options, ["war"]])
    assert replies[0].read == 3 * 4  # the prompt once for each option
    found, other = (json.loads(reply.text) for reply in replies)
    assert other == [0.0]
    plain = AutoModelForCausalLM.from_pretrained(small_model).eval()
    ids = model._tokenizer("be brief\n\nitem 0\n\n", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logs = plain(ids).logits[0, -1].log_softmax(-1)
    war, love = (float(logs[model._tokenizer.convert_tokens_to_ids(w)]) for w in options[:2])
    assert found[0] - found[1] == pytest.approx(war - love, abs=1e-4)
    assert torch.tensor(found).exp().sum() == pytest.approx(1.0)


def test_a_prompt_that_a_local_model_cannot_take_fails_alone(small_model):
    model = open_model(TransformersText(folder=str(small_model), max_tokens=4, concurrency=3))
    asked = [("be", "war"), ("be", "item 0 " * 40), ("be", "brief")]
    found, scores = model.complete(asked, None), model.score(asked, [["war", "love"]] * 3)
    alone = model.complete(asked[:1], None) + model.complete(asked[2:], None)
    assert [found[0].text, found[2].text] == [reply.text for reply in alone]
    assert found[1] == scores[1] == Reply("", problem="longer than the model takes")
    assert scores[0].text and scores[2].text


def test_the_packaged_model_completes_and_scores():
    pytest.importorskip("xllamacpp")
    config = GgufText(max_tokens=24, concurrency=1)
    try:
        model = open_model(config)
    except AssetError as error:
        pytest.skip(str(error))
    tale = ("", "Tell a long tale of the sea, as JSON.")
    free, held = (model.complete([tale], form)[0] for form in (None, DESCRIPTION))
    assert free.text.strip() and free.written == 24 and not free.problem
    told = json.loads(held.text)["description"]
    assert 0 < len(told) <= 42 and held.written <= 24
    yes, no = json.loads(model.score([("", "Is water wet?")], [["yes", "no"]])[0].text)
    assert yes != no and torch.tensor([yes, no]).exp().sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (GgufText(file="/nowhere.gguf"), "is no file"),
        (OpenAIText(model="m"), "needs httpx"),
        (GgufText(file=__file__), "needs xllamacpp"),  # a file that is there
    ],
)
def test_what_is_missing_is_named(config, says, monkeypatch):
    if "needs" in says:
        monkeypatch.setitem(sys.modules, says.split()[1], None)
    with pytest.raises(AssetError, match=says):
        open_model(config)


@pytest.mark.parametrize(("temperature", "calls"), [(0.0, 2), (0.5, 6)])
def test_a_local_model_that_would_say_the_same_is_asked_once(temperature, calls, tmp_path):
    config = GgufText(temperature=temperature)
    author = Author(config, tmp_path, lambda line: None, lambda config: Silent())
    assert author.write(prompts(2)) == ["template 0", "template 1"]
    assert author.report.calls == calls
    again = Author(config, tmp_path, lambda line: None, lambda config: Silent())
    assert again.write(prompts(3)) == ["template 0", "template 1", "template 2"]
    assert again.report.calls == (1 if temperature == 0 else 9)  # a failure is kept, too
    assert again.report.templates == 3
    third = Author(config, tmp_path, lambda line: None, lambda config: Silent())
    third.write(prompts(2))
    assert third.report.calls == (0 if temperature == 0 else 6) and third.report.templates == 2
