"""A language model as explainer and as judge, over the network: asked only when you say so, and with a key of yours.

Any service with OpenAI's "chat completions" format will do. Nothing is sent when an object of this class is made, when
prompts are written or costs are estimated; only ``ask`` sends, and only with a key. Its answers are kept on disk, so
that the same prompt is never paid for twice.
"""

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.sae.dashboard import Passage

EXPLAIN = """\
Below are passages from a text. In each, words that switch on a certain detector are marked like <<this>>.
What do the marked words have in common? It may be the words themselves, what stands before them, or where they stand.
Answer with one short phrase that would let somebody else find further such words, and nothing else.

"""
DETECT = """\
A detector is said to switch on at: {explanation}
Below are numbered passages, in each of which one word is marked like <<this>>.
For each, say whether the detector switches on at the marked word. Answer with one line for each passage: its number, a
colon, and yes or no. Nothing else.

"""


@dataclass
class LanguageModel:
    """A language model behind an address.

    Attributes:
        url: Where chat completions are asked for, such as ``https://…/v1/chat/completions``.
        model: Its name there.
        key: The service's key; without one nothing is sent. It is never written to disk.
        cache: Folder for answers.
        dollars_per_million: Price of a million tokens, (read, written).
        n_tries: How often a question is asked if the service is busy or fails.
        wait: Seconds before the second try; doubled before each further one.
        timeout: Seconds until a try is given up.
    """

    url: str
    model: str
    key: str
    cache: Path
    dollars_per_million: tuple[float, float] = (0.0, 0.0)
    n_tries: int = 4
    wait: float = 1.0
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def __repr__(self) -> str:
        return f"LanguageModel({self.model!r} at {self.url!r}, {'with' if self.key else 'without'} a key)"

    def cost(self, prompts: Sequence[str], n_written: int = 60) -> float:
        """About what these prompts will cost, in dollars, at four characters a token: to be looked at before asking.

        Prompts whose answers are on disk cost nothing.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if not self._kept(prompt).exists()]
        read, written = self.dollars_per_million
        return sum(len(prompt) / 4 * read + n_written * written for prompt in new) / 1e6

    def ask(self, prompt: str) -> str:
        """The model's answer, from disk if this prompt has been asked before.

        Raises:
            PermissionError: If there is no key.
            ConnectionError: If no try succeeded, or the answer has another form than expected.
        """
        kept = self._kept(prompt)
        if kept.exists():
            return json.loads(kept.read_text(encoding="utf-8"))["answer"]
        if not self.key:
            raise PermissionError("a language model is asked only with a key of yours: LanguageModel(..., key=...)")
        answer = self._sent(prompt)
        self.cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".part")
        partial.write_text(json.dumps({"model": self.model, "prompt": prompt, "answer": answer}), encoding="utf-8")
        partial.replace(kept)  # a run that is stopped leaves no half answer
        return answer

    def _kept(self, prompt: str) -> Path:
        name = hashlib.sha256(json.dumps([self.url, self.model, prompt]).encode()).hexdigest()
        return self.cache / f"{name}.json"

    def _sent(self, prompt: str) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        for attempt in range(self.n_tries):
            if attempt:
                self.sleep(self.wait * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)["choices"][0]["message"]["content"].strip()
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code != 429 and error.code < 500:  # our fault: asking again would not help
                    break
            except (urllib.error.URLError, TimeoutError) as error:
                problem = str(error)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                problem = f"an answer of another form ({type(error).__name__})"
                break
        raise ConnectionError(f"{self.model} at {self.url} gave no answer: {problem}")


def marked(passage: Passage, place: int | None = None) -> str:
    """A passage with ``<<`` and ``>>`` around one word, or around all with at least half of its largest activation."""
    enough = max(0.5 * max(passage.activations, default=0.0), 1e-9)
    return " ".join(
        f"<<{word}>>" if (a >= enough if place is None else i == place) else word
        for i, (word, a) in enumerate(zip(passage.words, passage.activations, strict=True))
    )


def explainer_prompt(passages: Sequence[Passage]) -> str:
    """What the explainer is asked, in full."""
    return EXPLAIN + "\n".join(f"- {marked(passage)}" for passage in passages)


def judge_prompt(explanation: str, passages: Sequence[Passage], places: Sequence[int]) -> str:
    """What the judge is asked, in full: whether the latent is on at the marked word of each passage."""
    shown = (marked(passage, place) for passage, place in zip(passages, places, strict=True))
    return DETECT.format(explanation=explanation) + "\n".join(f"{i}. {text}" for i, text in enumerate(shown, 1))


def judgements(answer: str, n: int) -> list[float]:
    """The judge's answer as guesses: 1 for yes, 0 for no, 0.5 where it did not say."""
    said = {}
    for line in answer.lower().splitlines():
        number, _, word = line.partition(":")
        if number.strip(" .-").isdigit():
            said[int(number.strip(" .-"))] = {"yes": 1.0, "no": 0.0}.get(word.strip(" ."), 0.5)
    return [said.get(i, 0.5) for i in range(1, n + 1)]
