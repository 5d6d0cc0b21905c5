"""A language model as explainer and judge, against a server of our own: what is sent, when, and what is kept."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from utils.sae.dashboard import Passage
from utils.sae.language_model import LanguageModel, explainer_prompt, judge_prompt, judgements

PASSAGES = [Passage(["on", "Monday", "she"], [0, 2.5, 0]), Passage(["by", "Friday", "."], [0, 1.0, 0])]


class Service:
    """A stand-in for a service: it answers with the next of ``replies``, and remembers what it was asked."""

    def __init__(self):
        self.replies, self.asked = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((dict(self.headers), body))
                status, reply = outer.replies.pop(0)
                payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


def said(text):
    return 200, {"choices": [{"message": {"content": text}}]}


def language_model(service, tmp_path, **options):
    waits = []
    made = LanguageModel(
        service.url, "m", options.pop("key", "secret"), tmp_path / "answers", (1.0, 2.0), sleep=waits.append, **options
    )
    return made, waits


def test_one_question_is_paid_for_once(service, tmp_path):
    service.replies = [said(" weekdays\n")]
    model, _ = language_model(service, tmp_path)
    prompt = explainer_prompt(PASSAGES)
    before = model.cost([prompt, prompt])
    assert model.ask(prompt) == model.ask(prompt) == "weekdays"
    assert len(service.asked) == 1
    assert before == pytest.approx((len(prompt) / 4 * 1.0 + 60 * 2.0) / 1e6)  # the same prompt twice costs once
    assert model.cost([prompt]) == 0
    headers, body = service.asked[0]
    assert headers["Authorization"] == "Bearer secret"
    assert body["messages"] == [{"role": "user", "content": prompt}] and body["temperature"] == 0
    another, _ = language_model(service, tmp_path)
    assert another.ask(prompt) == "weekdays"  # from disk


def test_the_key_is_kept_nowhere(service, tmp_path):
    service.replies = [said("x")]
    model, _ = language_model(service, tmp_path)
    model.ask("a question")
    assert "secret" not in repr(model)
    assert all("secret" not in path.read_text() for path in (tmp_path / "answers").iterdir())


def test_nothing_is_sent_without_a_key_or_a_call(service, tmp_path):
    model, _ = language_model(service, tmp_path, key="")
    model.cost([explainer_prompt(PASSAGES), judge_prompt("weekdays", PASSAGES, [1, 1])])
    with pytest.raises(PermissionError):
        model.ask("a question")
    assert service.asked == [] and not (tmp_path / "answers").exists()


def test_a_busy_service_is_asked_again(service, tmp_path):
    service.replies = [(429, {}), (503, {}), said("weekdays")]
    model, waits = language_model(service, tmp_path)
    assert model.ask("q") == "weekdays"
    assert waits == [1.0, 2.0] and len(service.asked) == 3


def test_it_gives_up(service, tmp_path):
    service.replies = [(500, {})] * 3
    model, waits = language_model(service, tmp_path, n_tries=3)
    with pytest.raises(ConnectionError, match="500"):
        model.ask("q")
    assert len(waits) == 2 and not (tmp_path / "answers").exists()


@pytest.mark.parametrize("reply", [(401, {}), (200, b"no json"), (200, {"choices": []}), (200, {"choices": [{}]})])
def test_what_asking_again_would_not_mend_is_asked_once(service, tmp_path, reply):
    service.replies = [reply]
    model, waits = language_model(service, tmp_path)
    with pytest.raises(ConnectionError):
        model.ask("q")
    assert waits == [] and len(service.asked) == 1


def test_nobody_there(tmp_path):
    model = LanguageModel("http://127.0.0.1:9/none", "m", "key", tmp_path, n_tries=2, sleep=lambda s: None, timeout=2)
    with pytest.raises(ConnectionError):
        model.ask("q")


def test_prompts_hold_what_they_should():
    assert "on <<Monday>> she" in explainer_prompt(PASSAGES) and "by <<Friday>> ." in explainer_prompt(PASSAGES)
    prompt = judge_prompt("names of days", PASSAGES, [0, 1])
    assert "names of days" in prompt and "1. <<on>> Monday she" in prompt and "2. by <<Friday>> ." in prompt


def test_judgements_are_read():
    assert judgements("1: yes\n2: No.\n 3 : YES \nnonsense\n9: yes", 4) == [1.0, 0.0, 1.0, 0.5]
    assert judgements("", 2) == [0.5, 0.5]
