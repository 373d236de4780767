"""Guard: a second model judges final answers; what it rejects is drawn again, a few times, and then refused.

The paper's section on ethics asks for such a check behind personalised decoding. Any GGUF model will do: one made for
it (Llama Guard, ShieldGemma) or a chat model that answers yes or no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from drift_edge.errors import RefusedError, UsageError
from drift_edge.events import CancelToken, Event, Finish, Notice
from drift_edge.llama.model import Model
from drift_edge.messages import check_prompt
from drift_edge.verdict import Verdict

DEFAULT_TRIES = 3
DEFAULT_CONTEXT = 4_096


@dataclass(frozen=True, slots=True)
class GuardForm:
    """How a guard is asked, and what it answers with.

    Attributes:
        question: text with `{question}` and `{answer}` in it, which is asked as a user; None hands the two over as a
            conversation, for a model whose own template holds the policy.
        bad, good: the words whose likelihood is compared, where the guard's answer begins.
    """

    question: str | None
    bad: str
    good: str


FORMS: Mapping[str, GuardForm] = {
    "yes-no": GuardForm(
        "A person asked an assistant:\n\n{question}\n\nThe assistant answered:\n\n{answer}\n\n"
        "Is this answer harmful, hateful, dangerous or sexually explicit? Say Yes or No.",
        "Yes",
        "No",
    ),
    "shieldgemma": GuardForm(
        "You are a policy expert trying to help determine whether an AI assistant's response violates the policy "
        "below.\n\n<start_of_turn>\nHuman question: {question}\n\nChatbot response: {answer}\n<end_of_turn>\n\n"
        "The chatbot shall not produce content that is dangerous, hateful, harassing or sexually explicit.\n\n"
        "Does the chatbot response violate this policy? Your answer must start with 'Yes' or 'No'.",
        "Yes",
        "No",
    ),
    "llama-guard": GuardForm(None, "unsafe", "safe"),
}


class Judge(Protocol):
    """Whoever says how likely an answer must not be shown."""

    def risk(self, messages: Sequence[Mapping[str, str]], answer: str) -> float:
        """Probability, 0 to 1, that `answer` to `messages` is one to reject."""
        ...


class GuardModel:
    """A model as a judge: how likely it begins its verdict with the bad word rather than the good one.

    Args:
        path: GGUF file.
        form: of `FORMS`.
        gpu_layers: as `Drift.load`.
        n_ctx: tokens that question and answer may have together, as the guard reads them.

    Raises:
        ModelError: it cannot be loaded.
        UsageError: the form is unknown, or the model's tokenizer begins both words alike.
    """

    def __init__(
        self, path: str | Path, form: str = "yes-no", *, gpu_layers: int | None = None, n_ctx: int = DEFAULT_CONTEXT
    ) -> None:
        if form not in FORMS:
            raise UsageError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
        self._form = FORMS[form]
        self._model = Model(path, gpu_layers=gpu_layers)
        try:
            self._verdict = Verdict(self._model, (self._form.bad, self._form.good), n_ctx=n_ctx)
        except BaseException:
            self._model.close()
            raise

    def risk(self, messages: Sequence[Mapping[str, str]], answer: str) -> float:
        """As `Judge.risk`; the last message is the question.

        Raises:
            ContextOverflowError: question and answer do not fit the guard's context.
            ChatTemplateError, DecodeError, ClosedError: as their names say.
        """
        question = check_prompt(messages)[-1]["content"]
        if self._form.question is None:
            asked = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        else:
            # Not `format`: both texts may hold braces.
            before, _, rest = self._form.question.partition("{question}")
            between, _, behind = rest.partition("{answer}")
            asked = [{"role": "user", "content": "".join((before, question, between, answer, behind))}]
        return float(self._verdict.shares(asked)[0])

    def close(self) -> None:
        """Free the model."""
        self._verdict.close()
        self._model.close()

    def __enter__(self) -> GuardModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def guarded(
    draw: Callable[[int], Iterator[Event]],
    judge: Judge,
    messages: Sequence[Mapping[str, str]],
    *,
    tries: int = DEFAULT_TRIES,
    threshold: float = 0.5,
    hold: bool = True,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """An answer that the judge lets pass, as `Drift.chat` gives it.

    Args:
        draw: makes the events of another answer each time, from its number: 0, 1, 2 ..., to be added to `attempt`.
        judge: sees every whole answer before anybody else.
        messages: what is answered.
        tries: answers drawn at most.
        threshold: risk from which on an answer is rejected.
        hold: keep an answer back until it is judged. Without, it is shown as it comes, a notice `unjudged` before it;
            if the judge rejects it, a notice `rejected` follows, and nothing is drawn again.
        cancel: the call's; a stopped answer is judged too, and not drawn again.

    Yields:
        The events of the answer that passed, a notice `rejected` for each that did not.

    Raises:
        RefusedError: none passed.
        UsageError: `tries` or `threshold` is out of range.
    """
    if not isinstance(tries, int) or tries < 1:
        raise UsageError(f"tries: expected a whole number, 1 or more, got {tries!r}")
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold: expected a probability over 0, up to 1, got {threshold!r}")
    return _guarded(draw, judge, messages, tries, threshold, hold, cancel or CancelToken())


def _guarded(
    draw: Callable[[int], Iterator[Event]],
    judge: Judge,
    messages: Sequence[Mapping[str, str]],
    tries: int,
    threshold: float,
    hold: bool,
    cancel: CancelToken,
) -> Iterator[Event]:
    if not hold:
        yield Notice("unjudged", "this answer is shown before the guard has judged it")
    for number in range(tries):
        held: list[Event] = []
        passed = True
        for event in draw(number):
            if isinstance(event, Finish):
                risk = judge.risk(messages, event.answer.text)
                passed = risk < threshold  # NaN does not pass
            if not hold or isinstance(event, Notice):
                yield event
            else:
                held.append(event)
        if passed:
            yield from held
            return
        yield Notice("rejected", f"the guard rejected an answer (risk {risk:.2f}, allowed is under {threshold:g})")
        if not hold:
            return
        if cancel.cancelled:
            break
    raise RefusedError(
        f"no answer: the guard rejected {number + 1} of {number + 1}; ask in another way, or take another guard model"
    )
