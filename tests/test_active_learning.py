"""Active learning: gains by hand and by force, duels by their exact chances, and persons learned sooner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drift_edge.active_learning import COUNTS, LEAD, SLOPE, Duels, Probe, gains, on_top, probes
from drift_edge.approximation import estimate_from_rewards
from drift_edge.errors import UsageError
from drift_edge.rewards import FloatArray
from drift_edge.statistics import Statistics

FOUR = ("formal", "concise", "vivid", "modest")


def of(D: Any) -> Statistics:
    return Statistics.of(FOUR, np.asarray(D, float), np.zeros(np.shape(D)))


def posterior(D: FloatArray) -> FloatArray:
    K = D.shape[1]
    return np.asarray(np.linalg.inv(K * np.eye(K) + D.T @ D / (D**2).mean()))


def test_first_questions_by_hand() -> None:
    # P = I / 4. LEAD^2 P_ii^2 / (1 + LEAD^2 P_ii) = 4/16 / 2 = 1/8 of a trace of 1; then 1/8 of the 7/8 that are left.
    assert LEAD == 2
    found = probes(Statistics(FOUR), 4)
    assert [probe.attribute for probe in found] == list(FOUR)
    assert [probe.gain for probe in found] == pytest.approx([1 / 8, 1 / 7, 1 / 6, 1 / 5])
    assert found[1].weights == {"concise": 1.0}


def test_gain_is_what_a_choice_takes_off_the_variance() -> None:
    D = np.random.default_rng(1).normal(size=(5, 4)) @ np.diag([3.0, 1.0, 2.0, 0.5])
    before = posterior(D)
    (best,) = probes(of(D))
    reduced = []
    for i in range(4):
        x = np.zeros(4)
        x[i] = LEAD
        reduced.append(1 - np.trace(np.linalg.inv(np.linalg.inv(before) + np.outer(x, x))) / np.trace(before))
    assert best == Probe(FOUR[int(np.argmax(reduced))], pytest.approx(max(reduced), rel=1e-10))


def test_what_many_choices_have_shown_is_not_asked() -> None:
    D = np.random.default_rng(2).normal(size=(50, 4)) * [5.0, 5.0, 0.1, 5.0]
    assert probes(of(D))[0].attribute == "vivid"


def test_two_that_always_went_together_are_told_apart() -> None:
    x = np.random.default_rng(3).normal(size=(200, 3))
    D = np.column_stack([x[:, 0], x[:, 1], x[:, 0], x[:, 2]])
    assert probes(of(D))[0].attribute in ("formal", "vivid")


def test_a_tie_is_not_asked_again() -> None:
    statistics, asked = Statistics(FOUR), dict[str, int]()
    order = []
    for _ in range(8):
        (probe,) = probes(statistics, asked=asked)
        statistics.add_tie()
        asked[probe.attribute] = asked.get(probe.attribute, 0) + 1
        order.append(probe.attribute)
    assert order == [*FOUR, *FOUR]


def test_what_is_blocked_is_never_shown() -> None:
    found = probes(Statistics(FOUR), 9, blocked=("formal", "vivid"))
    assert [probe.attribute for probe in found] == ["concise", "modest"]


def test_laws() -> None:
    D = np.random.default_rng(4).normal(size=(6, 4)) * [4.0, 1.0, 2.0, 3.0]
    found = probes(of(D), 4)
    for scaled in (-D, 1e-6 * D, 1e6 * D, D[::-1]):
        again = probes(of(scaled), 4)
        assert [probe.attribute for probe in again] == [probe.attribute for probe in found]
        assert [probe.gain for probe in again] == pytest.approx([probe.gain for probe in found])
    order = [2, 0, 3, 1]
    permuted = Statistics.of([FOUR[i] for i in order], D[:, order], np.zeros((6, 4)))
    assert [probe.attribute for probe in probes(permuted, 4)] == [probe.attribute for probe in found]


def test_persons_are_learned_sooner_than_by_chance() -> None:
    """Each question shows an answer by one attribute against one without; the reward is noisy, the choice too."""
    K, questions, persons = 12, 12, 40
    names = [f"a{i}" for i in range(K)]

    def learned(active: bool, seed: int) -> float:
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=K)
        D = np.zeros((0, K))
        for _ in range(questions):
            chance = int(rng.integers(K))
            shown = names.index(probes(Statistics.of(names, D, np.zeros(D.shape)))[0].attribute) if active else chance
            d = 0.2 * rng.normal(size=K)
            d[shown] += LEAD
            D = np.vstack([D, d if theta @ d + 0.3 * rng.logistic() > 0 else -d])
        p = estimate_from_rewards(names, D, np.zeros(D.shape), "whitened").weights
        return float(p @ theta / np.linalg.norm(theta))

    print("seeds 0 to", persons - 1)
    by_gain, by_chance = (np.array([learned(active, seed) for seed in range(persons)]) for active in (True, False))
    error = (by_gain - by_chance).std(ddof=1) / persons**0.5
    print(by_gain.mean(), by_chance.mean(), error)
    assert (by_gain - by_chance).mean() > 3 * error


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (0, {}, "expected 1 or more of 1 or more attributes, got 0 of 4"),
        (1, {"blocked": FOUR}, "got 1 of 0"),
        (1, {"asked": {"witty": 1}}, "'witty' is none of the attributes"),
    ],
)
def test_what_cannot_be_asked(count: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        probes(Statistics(FOUR), count, **settings)


# -- duels


def left_out(duels: Duels, times: int) -> dict[str, float]:
    """How often each of three attributes is the one that is not shown."""
    names, counts = set(FOUR[:3]), dict.fromkeys(FOUR[:3], 0)
    for _ in range(times):
        (missing,) = names - set(duels.draw())
        counts[missing] += 1
    return {name: count / times for name, count in counts.items()}


def test_chances_by_hand() -> None:
    """Of a ~ Beta(3, 1), b ~ Beta(1, 3) and c ~ Beta(1, 1) the lowest stays away: b in 3 ∫ (1-x)^3 (1-x^3) = .729."""
    assert COUNTS == 2
    duels = Duels(FOUR[:3], 1)
    duels.note("formal", "concise")
    # a: 3 ∫ x^2 (1-x)^4 = 3 · 2! 4! / 7! = .029; c: ∫ (1-x^3) (1-x)^3 = 1/4 - 3! 3! / 7! = .243; b: what is left.
    found = left_out(duels, 4_000)
    assert found == pytest.approx({"formal": 0.029, "concise": 0.729, "vivid": 0.243}, abs=0.025)


def test_a_tie_is_half_a_duel_won_and_half_lost() -> None:
    """20 ties leave formal and vivid at Beta(21, 21): concise, Beta(1, 1), is lowest as often as their mean minimum."""
    duels = Duels(FOUR[:3], 2)
    for _ in range(10):
        duels.note("vivid", "formal", tie=True)
        duels.note("formal", "vivid", tie=True)
    found = left_out(duels, 4_000)
    assert found["formal"] == pytest.approx(found["vivid"], abs=0.03)  # whichever was named first
    # Of two normals with the same sd, .076, that is sd / sqrt(pi) below 1/2: .457.
    assert found["concise"] == pytest.approx(0.457, abs=0.03)


def test_the_unseen_come_first_and_the_blocked_never() -> None:
    names = [f"a{i}" for i in range(39)]
    duels, shown = Duels(names, 3), list[str]()
    for _ in range(19):
        first, second = duels.draw(blocked=("a7",), unseen=True)
        duels.note(first, second)
        shown += [first, second]
    assert sorted(shown) == sorted(set(names) - {"a7"})
    assert "a7" not in {name for _ in range(200) for name in duels.draw(blocked=("a7",))}
    assert Duels(names, 3).draw(blocked=names[1:]) == ("a0",)


def test_the_same_seed_draws_the_same_duels() -> None:
    one, other = Duels(FOUR, 4), Duels(FOUR, 4)
    for _ in range(10):
        pair = one.draw()
        assert pair == other.draw()
        one.note(*pair)
        other.note(*pair)
    assert [Duels(FOUR, 5).draw() for _ in range(3)] != [Duels(FOUR, seed).draw() for seed in (6, 7, 8)]


def test_duels_go_to_what_a_person_likes_and_teach_it() -> None:
    """Two attributes of 30 are liked; an answer shows its attribute, and half of all duels between others are ties."""
    K, questions, persons, names = 30, 40, 30, [f"a{i}" for i in range(30)]

    def learned(by_duels: bool, seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        liked = rng.choice(K, 2, replace=False)
        theta = np.zeros(K)
        theta[liked] = 1.0
        duels, D, asked = Duels(names, seed), np.zeros((0, K)), 0
        for _ in range(questions):
            pair = duels.draw() if by_duels else rng.choice(names, 2, replace=False).tolist()
            shown = [names.index(name) for name in pair]
            x = rng.normal(size=(2, K))
            x[(0, 1), shown] += LEAD
            asked += len(set(shown) & set(liked.tolist()))
            lead = theta[shown[0]] - theta[shown[1]]
            tie = lead == 0 and rng.random() < 0.5
            first_wins = lead > 0 or (lead == 0 and rng.random() < 0.5)
            duels.note(*(pair if first_wins else pair[::-1]), tie=tie)
            if not tie:
                D = np.vstack([D, x[0] - x[1] if first_wins else x[1] - x[0]])
        p = estimate_from_rewards(names, D, np.zeros(D.shape), "whitened").weights
        return float(p @ theta / np.linalg.norm(theta)), asked / questions

    print("seeds 0 to", persons - 1)
    duels, chance = (np.array([learned(by, seed) for seed in range(persons)]) for by in (True, False))
    gain = duels - chance
    error = gain.std(axis=0, ddof=1) / persons**0.5
    print(duels.mean(axis=0), chance.mean(axis=0), error)
    assert (gain.mean(axis=0) > 3 * error).all()
    assert duels[:, 1].mean() > 2 * chance[:, 1].mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Duels([], 1), "expected 1 or more different attributes"),
        (lambda: Duels(["formal", "formal"], 1), "expected 1 or more different attributes"),
        (lambda: Duels(FOUR, 1).draw(blocked=FOUR), "got all 4"),
        (lambda: Duels(FOUR, 1).note("formal", "witty"), "'witty' is none of the attributes"),
        (lambda: Duels(FOUR, 1).note("formal", "formal"), "got 'formal' twice"),
    ],
)
def test_duels_that_cannot_be(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wrong()


def test_an_answer_of_a_duel_stands_on_what_is_learned() -> None:
    assert on_top({}, "formal") == {"formal": 1.0}
    assert on_top({"formal": 0.6, "vivid": -0.8}, "vivid") == pytest.approx({"formal": 0.6, "vivid": 0.2})


def test_which_pair_teaches_most_by_hand() -> None:
    # Nothing known: P = I / 4, and the unit is that of the leads. Of trace(P Q) = (1 + 4) / 3 / 4 in units of the unit
    # squared, 5 / 12, the second takes 4 / 16 * 4/3 / (1 + 4 / 4), all in these units too.
    leads = np.array([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 0]])
    u = 5 / 12  # unit squared
    expected = [a / u * (a / 3) / 16 / (1 + a / u / 4) / (5 / 3 / 4) for a in (1, 4, 0)]
    assert gains(Statistics(FOUR), leads) == pytest.approx(expected)
    assert not gains(Statistics(FOUR), np.zeros((2, 4))).any()


def test_the_gain_of_a_pair_is_what_it_takes_off_if_it_is_open() -> None:
    rng = np.random.default_rng(5)
    D, leads = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)) * [1.0, 3.0, 1.0, 0.2]
    P, X = posterior(D), leads / np.sqrt((D**2).mean())
    v = P @ D.sum(axis=0) / np.sqrt((D**2).mean())

    def unsure(P: FloatArray) -> float:
        return float(np.mean([x @ P @ x for x in X]))

    taken = [1 - unsure(np.linalg.inv(np.linalg.inv(P) + np.outer(x, x))) / unsure(P) for x in X]
    c = 1 / (1 + np.exp(-SLOPE * X @ v))
    assert gains(of(D), leads) == pytest.approx(4 * c * (1 - c) * taken)
    assert gains(of(D), -leads) == pytest.approx(4 * c * (1 - c) * taken)  # nobody knows yet which is preferred


def test_what_was_a_tie_is_not_asked_again() -> None:
    D = np.random.default_rng(6).normal(size=(6, 4))
    leads = np.eye(4)[:2]
    before, after = gains(of(D), leads), gains(of(D), leads, tied=leads[:1])
    assert after[0] < before[0]
    assert after[1] / before[1] > after[0] / before[0]


@pytest.mark.parametrize("wrong", [{"leads": [[1.0, 2.0]]}, {"leads": [[1.0] * 4], "tied": [[1.0]]}])
def test_leads_of_other_attributes(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="4 attributes"):
        gains(Statistics(FOUR), **wrong)
