"""The experiments measure what they say, on a world where the right answers are known. No model is loaded."""

from __future__ import annotations

import numpy as np
import pytest

from drift_edge.attributes import Attributes
from drift_edge.models.nano.corpus.reader import marker
from experiments import asking, personas, racing
from experiments.texts import ANSWERS, Persona, Texts, judged, write

K = len(Attributes.builtin())


def world(seed: int = 1, questions: int = 120, noise: float = 0.5) -> Texts:
    """Texts that show 0 to 2 attributes, with rewards of +2 for those shown, a common mode and noise."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    shape = (questions, ANSWERS, K)
    shows = rng.random(shape) < 1.2 / K
    rewards = 2.0 * shows + rng.normal(size=(*shape[:2], 1)) + noise * rng.normal(size=shape)
    return Texts(np.arange(questions) % 2 == 1, shows, rewards, rng.integers(5, 60, shape[:2]))


def test_texts_are_written_the_same_again_and_differ_from_one_another() -> None:
    questions, answers = write(12, 3)
    assert (questions, answers) == write(12, 3)
    assert answers != write(12, 4)[1]
    assert all(len(set(row)) == ANSWERS for row in answers)
    shown = [marker(name, text) for row in answers for text in row for name in Attributes.builtin()]
    assert 0.5 < sum(shown) / (12 * ANSWERS) < 2  # about one attribute shows in a text


def test_a_persona_decides_by_what_shows() -> None:
    texts, rng = world(), np.random.default_rng(0)
    persona = Persona.draw(rng)
    assert 3 <= np.count_nonzero(persona.taste) <= 5
    pairs = judged(texts, persona, rng, 200, test=False)
    assert 50 < len(pairs.W) <= 200
    likings = (texts.shows @ persona.taste).ravel()
    liking = {tuple(r): like for r, like in zip(texts.rewards.reshape(-1, K), likings, strict=True)}
    assert all(liking[tuple(W)] > liking[tuple(L)] for W, L in zip(pairs.W, pairs.L, strict=True))


def test_training_and_test_pairs_share_no_question() -> None:
    texts, rng = world(), np.random.default_rng(0)
    persona = Persona.draw(rng)
    train, test = (judged(texts, persona, rng, 10_000, test=test) for test in (False, True))
    seen = {tuple(r) for r in np.vstack([train.W, train.L])}
    assert seen
    assert seen.isdisjoint(tuple(r) for r in np.vstack([test.W, test.L]))


def test_what_is_learned_in_a_clear_world() -> None:
    people = personas.cases(world(noise=0.1), 4, 2, "clear")
    whitened, closed = (personas.judge(people, estimator, "sum", None) for estimator in ("whitened", "closed-form"))
    assert whitened.accuracy.shape == (4, len(personas.KS))
    assert whitened.accuracy.mean(axis=0)[-1] > 0.85
    assert whitened.accuracy.mean() > closed.accuracy.mean()  # the common mode is in its way
    assert whitened.active.mean(axis=0)[-1] > 0.85
    assert 0.8 < whitened.left_out.mean() <= 1
    assert 0.35 < personas.by_length(people).accuracy.mean() < 0.65  # lengths are drawn by chance


def test_reductions_divide_by_each_answers_tokens() -> None:
    pairs = judged(world(), Persona.draw(np.random.default_rng(0)), np.random.default_rng(0), 5, test=True)
    W, L = personas.reduced(pairs, "mean")
    np.testing.assert_allclose(W * pairs.n_chosen[:, None], pairs.W)
    np.testing.assert_allclose(L * pairs.n_rejected[:, None], pairs.L)
    np.testing.assert_allclose(personas.reduced(pairs, "sqrt")[0] ** 2, pairs.W**2 / pairs.n_chosen[:, None])


@pytest.mark.parametrize(
    ("accuracy", "active", "achieved"),
    [
        ([0.70, 0.75, 0.80, 0.82], 0.8, [True, True, True]),
        ([0.70, 0.695, 0.80, 0.82], 0.8, [True, True, True]),  # falls, but by less than its error
        ([0.70, 0.75, 0.77, 0.82], 0.7, [False, True, False]),
        ([0.70, 0.60, 0.80, 0.79], 0.8, [True, False, True]),
    ],
)
def test_verdicts(accuracy: list[float], active: float, achieved: list[bool]) -> None:
    spread = np.array([-0.02, 0.0, 0.02])[:, None]  # standard error 0.02 / sqrt(3) = 0.0115
    row = personas.Row("whitened", "sum", 1.0, spread + accuracy, np.full((3, 4), active), np.zeros(3), np.zeros(3))
    assert [bool(ok) for _, ok in personas.verdicts(row)] == achieved
    assert "0.800 ± 0.012" in personas.table([row]) or accuracy[2] != 0.8


def test_duels_teach_what_predicts_and_what_is_liked() -> None:
    texts = world(noise=0.1)
    people = [Persona.draw(np.random.default_rng(i)) for i in range(4)]
    results = [asking.ask(texts, persona, "duels", [i]) for i, persona in enumerate(people)]
    right, liked = (np.mean([result[part] for result in results], axis=0) for part in (0, 1))  # type: ignore[arg-type]
    print(right, liked)
    assert right[-1] > max(0.65, right[0])
    assert (liked > 0).all()


def test_steering_by_a_taste_is_liked_and_against_it_is_not() -> None:
    persona = Persona.draw(np.random.default_rng(1))
    unseen = asking.World.of(world(noise=0.1), persona, test=True)
    taste = dict(zip(Attributes.builtin(), persona.taste.tolist(), strict=True))
    against = {name: -p for name, p in taste.items()}
    assert unseen.liked(against) < unseen.liked({}) < unseen.liked(taste) <= unseen.liking.max()


def test_racing_trades_tokens_for_the_same_active_attributes() -> None:
    rows = {(row.way, row.setting): row for row in racing.compared(world(noise=0.3), 4, 30, seed=1)}
    whole, bold, default = rows["first pairs", 1.0], rows["race", 0.5], rows["race", racing.DEFAULT_CONFIDENCE]
    assert (whole.tokens, whole.same, whole.shared["whitened"]) == (1.0, {"closed-form": 1.0, "whitened": 1.0}, 7.0)
    assert rows["first pairs", 0.5].tokens == pytest.approx(0.5, abs=0.15)
    assert bold.tokens < default.tokens < 1
    assert bold.shared["closed-form"] < default.shared["closed-form"] <= 7
    text = racing.table(list(rows.values()))
    assert f"{default.tokens:.0%}" in text
    assert len(text.splitlines()) == len(rows) + 1
