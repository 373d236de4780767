"""What drafting costs and gives: prices, acceptance and choices worked out by hand, and the file they are kept in."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from drift_edge.costs import (
    KINDS,
    Acceptance,
    Costs,
    Plan,
    Prices,
    check_draft,
    check_speculate,
    expected_tokens,
    shape_names,
)


def priced(prices: dict[int, float]) -> Prices:
    made = Prices()
    for rows, seconds in prices.items():
        for _ in range(5):
            made.add(rows, seconds)
    return made


# Milliseconds on two cores: an 8B shape, and a 1B shape with k = 7.
LLM = {1: 329.0, 2: 600.0, 3: 839.0, 4: 483.0, 5: 640.0, 6: 720.0, 7: 780.0, 8: 799.0}
SLM = {1: 27.0, 8: 129.0, 14: 190.0, 21: 270.0, 28: 360.0, 35: 450.0, 42: 530.0, 49: 620.0, 56: 700.0}


def eight_b(acceptance: float = 0.8) -> Costs:
    costs = Costs(priced(LLM), priced(SLM), priced({0: 329.0, 7: 329.0 + 129.0}))
    for known in costs.acceptance.values():
        known.hits, known.trials = acceptance * 1e9, 1e9
    return costs


def test_expected_tokens() -> None:
    assert expected_tokens(0.8, 0) == 1
    assert expected_tokens(0.5, 3) == 1 + 0.5 + 0.25 + 0.125
    assert expected_tokens(0.8, 3) == pytest.approx((1 - 0.8**4) / (1 - 0.8))
    assert expected_tokens(1.0, 7) == 8
    assert expected_tokens(0.0, 7) == 1


def test_acceptance_begins_with_a_belief_and_forgets() -> None:
    known = Acceptance()
    assert known.rate() == 0.8
    known.add(0, 1)
    assert known.rate() == pytest.approx(3.2 / 5)
    for _ in range(500):
        known.add(3, 4)
    assert known.rate() == pytest.approx(0.75, abs=0.01)
    for _ in range(200):
        known.add(0, 1)
    assert known.rate() < 0.2
    low = known.rate()
    known.fade()
    assert low < known.rate() < 0.8


def test_acceptance_of_a_draft_not_tried_is_that_of_the_others() -> None:
    costs = Costs()
    steered, plain = Plan(costs, 7, KINDS, None), Plan(costs, 0, KINDS, None)
    assert steered.rate("steered") == plain.rate("base") == 0.8
    costs.acceptance["base"] = Acceptance(6.0, 16.0)  # with the belief, (6 + 0.8 x 4) / (16 + 4) = 0.46
    for rate in (steered.rate("steered"), steered.rate("base"), plain.rate("base")):
        assert rate == pytest.approx(0.46)
    costs.acceptance["steered"] = Acceptance(3.0, 4.0)
    assert steered.rate("steered") == pytest.approx((3 + 0.46 * 4) / (4 + 4))


def test_a_price_is_the_lower_quarter_of_the_last_five() -> None:
    prices = Prices()
    assert not prices.add(4, 9.0)  # the first pays for memory
    assert not prices.known(4)
    assert prices.add(4, 5.0)
    assert prices.of(4) == 5
    for seconds in (6.0, 4.0, 100.0):
        assert not prices.firm(4)
        assert not prices.add(4, seconds)
    assert prices.firm(4)
    assert prices.of(4) == 5  # of 9 5 6 4 100
    prices.add(4, 4.0)
    prices.add(4, 7.0)
    assert prices.of(4) == 4  # of 6 4 100 4 7


def test_a_price_of_few_samples_may_turn_out_lower() -> None:
    prices = Prices()
    for share in (1 - 1.2 / 2, 1 - 1.2 / 4, 1 - 1.2 / 8, 1 - 1.2 / 16, 1.0):
        prices.add(4, 10.0)
        assert prices.of(4) == 10
        assert prices.least(4) == pytest.approx(10 * share)


def test_a_shape_not_seen_costs_somewhat_less_than_its_neighbours_suggest() -> None:
    assert Prices().of(3) == 0
    prices = priced({4: 10.0, 8: 30.0})
    assert prices.of(6) == pytest.approx(0.97 * 20)
    assert prices.of(2) == pytest.approx(0.97 * 5)
    assert priced({4: 10.0, 8: 10.1}).of(6) == 10  # no less than fewer rows
    assert prices.of(12) == 30 + 0.5 * 5 * 4  # half the slope
    assert priced({4: 9.0, 8: 9.0}).of(64) == 9  # more rows may cost nothing
    assert priced({1: 2.0}).of(8) == pytest.approx(2 * (1 + 0.15 * 7))


def test_rows_in_fours_may_cost_less_than_three() -> None:
    assert priced({1: 2.0, 3: 9.0}).of(4) == pytest.approx(2 * (1 + 0.15 * 3))
    assert priced({1: 2.0, 3: 9.0, 8: 9.0}).of(4) == pytest.approx(0.97 * 5)
    assert priced({1: 2.0, 4: 5.0, 7: 12.0}).of(8) == 5 + 0.5 * 1 * 4
    assert priced({1: 2.0, 4: 5.0, 5: 8.0}).of(6) == 8 + 0.5 * 1.5


def test_seconds_a_token_of_each_draft() -> None:
    plan = Plan(eight_b(), 7, KINDS, None)
    assert plan.seconds("steered", 0, 0) == 329 + 129
    e = 1 + 0.8 + 0.64 + 0.512
    assert plan.seconds("steered", 3, 9) == pytest.approx((4 * 129 + 483) / e)
    assert plan.seconds("base", 3, 9) == pytest.approx((4 * 27 + 360 + 483) / e)
    # Two tokens left to draft: two steps fewer, the decodes as large as ever.
    assert plan.seconds("steered", 3, 1) == pytest.approx((2 * 129 + 483) / 1.8)
    assert plan.seconds("base", 3, 1) == pytest.approx((2 * 27 + 360 + 483) / 1.8)
    plain = Plan(eight_b(), 0, KINDS, None)
    assert plain.kinds == ("base",)
    assert plain.seconds("base", 0, 0) == 329
    assert plain.seconds("base", 3, 9) == pytest.approx((3 * 27 + 483) / e)


def test_auto_takes_the_soonest() -> None:
    assert Plan(eight_b(), 7, KINDS, None).choose(99, 999, 100) == ("base", 3)
    assert Plan(eight_b(), 7, ("steered",), None).choose(99, 999, 100) == ("steered", 3)
    assert Plan(eight_b(0.2), 7, KINDS, None).choose(99, 999, 100)[1] == 0
    assert Plan(eight_b(), 0, KINDS, None).choose(99, 999, 100) == ("base", 3)
    # Rows that cost in proportion never pay: the built-in pair's case.
    linear = Costs(priced({r: 0.4 * r for r in range(1, 9)}), priced({r: 0.05 * r for r in range(1, 57)}))
    linear.steps = priced({0: 0.4, 7: 0.8})
    assert Plan(linear, 7, KINDS, None).choose(99, 999, 100)[1] == 0
    assert Plan(linear, 0, KINDS, None).choose(99, 999, 100)[1] == 0


def test_a_step_without_a_draft_has_a_price_of_its_own() -> None:
    """Where both models decode at once, it costs less than both decodes."""
    costs = Costs(priced({r: 3.0 + r for r in range(1, 9)}), priced({r: 1.0 + r / 2 for r in range(1, 57)}))
    costs.acceptance["base"].hits = costs.acceptance["base"].trials = 1e9
    plan = Plan(costs, 7, ("base",), None)
    assert plan.seconds("base", 0, 99) == 4 + 5
    costs.steps = priced({7: 5.0})
    assert plan.seconds("base", 0, 99) == 5
    # Seven drafted: eight decodes of one row, one of 7 x 8, and one of eight on the LLM, for eight tokens.
    assert plan.seconds("base", 7, 99) == pytest.approx((8 * 1.5 + 29 + 11) / 8)
    assert plan.choose(99, 999, 100)[1] == 0
    costs.steps = priced({7: 9.0})
    assert plan.choose(99, 999, 100) == ("base", 7)


def test_auto_measures_a_step_without_a_draft_first() -> None:
    plan = Plan(Costs(), 7, KINDS, None)
    for _ in range(2):
        assert not plan.decoded()
        plan.costs.add(plan.costs.llm, 1, 1.0)
        plan.costs.add(plan.costs.slm, 8, 1.0)
        assert plan.choose(99, 999, 100)[1] == 0
    assert plan.decoded()
    for _ in range(2):
        plan.costs.add(plan.costs.steps, 0, 1.0)  # of other attributes than these
    assert plan.choose(99, 999, 100)[1] == 0
    assert plan.seconds("base", 0, 99) == 2
    for _ in range(5):
        assert not plan.measured()
        assert plan.choose(99, 999, 100)[1] == 0
        plan.costs.add(plan.costs.steps, 7, 2.0)
    assert plan.choose(99, 999, 100)[1] == 3  # what has not been tried may pay
    assert plan.choose(6, 999, 100)[1] == 0  # but not at an answer's end


def test_two_disturbed_steps_do_not_let_drafts_go_on_that_do_not_pay() -> None:
    costs = Costs(priced({1: 0.54, 2: 0.93, 4: 1.71}), priced({1: 0.24}))
    costs.acceptance["plain"].add(88, 100)
    plan = Plan(costs, 0, KINDS, None)
    for seconds in (2.5, 2.6, 0.54, 0.55, 0.54):  # another program had the core
        costs.add(costs.steps, 0, seconds)
        # One drafted token takes 0.24 + 0.93, for 1.88: 0.62 each, more than the 0.54 of most steps.
        assert plan.choose(99, 999, 100)[1] == 0


# Milliseconds by rows, one thread of a Zen 3 core: a shape of 135 million parameters and one of 3 billion.
ZEN = {1: 15.0, 2: 29.0, 3: 46.0, 4: 37.0, 5: 53.0, 6: 50.0, 7: 67.0, 8: 60.0}
FEW = {1: 14.0, 8: 59.0, 14: 95.0, 21: 139.0, 28: 169.0, 35: 230.0, 42: 270.0, 49: 320.0, 56: 331.0}
FLAT = {rows: 30.0 + rows for rows in range(1, 9)}
STEEP = {rows: 10.0 * rows for rows in range(1, 57)}


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("slm", [FEW, STEEP], ids=["few", "steep"])
@pytest.mark.parametrize("scale", [1, 20])
@pytest.mark.parametrize("llm", [LLM, ZEN, FLAT], ids=["8b", "zen", "flat"])
def test_auto_ends_near_the_best_choice_having_tried_few(
    llm: dict[int, float], scale: float, slm: dict[int, float], acceptance: float
) -> None:
    def believing(llm: Prices, slm: Prices) -> Plan:
        costs = Costs(llm, slm)
        for known in costs.acceptance.values():
            known.hits, known.trials = acceptance * 1e9, 1e9
        return Plan(costs, 7, KINDS, None)

    llm = {rows: scale * ms for rows, ms in llm.items()}
    true, plan = believing(priced(llm), priced(slm)), believing(Prices(), Prices())
    true.costs.steps = priced({7: llm[1] + slm[8]})
    tried = set()
    for _ in range(80):
        kind, g = plan.choose(99, 999, 100)
        tried.add((kind, g))
        plan.costs.llm.add(g + 1, llm[g + 1])
        for rows in (8,) if kind == "steered" or not g else (1, 7 * (g + 1)):
            plan.costs.slm.add(rows, slm[rows])
        if not g:
            plan.costs.steps.add(7, llm[1] + slm[8])
    best = min(true.seconds(kind, g, 99) for kind in KINDS for g in range(8))
    assert best / true.seconds(kind, g, 99) >= 0.97
    assert len(tried) <= 12


def test_where_tokens_take_little_time_auto_thinks_less() -> None:
    assert not Plan(eight_b(), 7, KINDS, None).quick()
    quick = Costs(priced({1: 0.01}), priced({8: 0.009}))
    assert not Plan(quick, 7, KINDS, None).quick()  # not known yet
    quick.steps = priced({7: 0.019})
    assert Plan(quick, 7, KINDS, None).quick()


def test_limits() -> None:
    for fixed in (None, 5):
        plan = Plan(eight_b(), 7, KINDS, fixed)
        assert plan.choose(0, 999, 100)[1] == 0
        assert plan.choose(99, 1, 100)[1] == 0
    assert Plan(eight_b(), 7, KINDS, 5).choose(1, 6, 100)[1] == 5  # a shape that fits is kept, however few are drafted
    assert Plan(eight_b(), 7, KINDS, 5).choose(1, 5, 100)[1] == 0
    assert Plan(eight_b(), 7, KINDS, None).choose(99, 4, 100)[1] == 3
    assert Plan(eight_b(), 7, KINDS, None).choose(99, 3, 100)[1] in (0, 1, 2)


def test_a_fixed_number_takes_the_cheaper_draft() -> None:
    assert Plan(eight_b(), 7, KINDS, 3).choose(99, 999, 100) == ("base", 3)
    dear = eight_b()
    dear.slm = priced({**SLM, 28: 900.0})
    assert Plan(dear, 7, KINDS, 3).choose(99, 999, 100) == ("steered", 3)
    assert Plan(eight_b(0.0), 7, KINDS, 3).choose(99, 999, 100)[1] == 3


def test_what_depends_on_the_number_of_rows_is_left_out() -> None:
    costs = eight_b()
    llm, attributes = shape_names("base", 7, 3, 100)
    costs.same |= {llm: True, attributes: False}
    plan = Plan(costs, 7, KINDS, None, seeded=True)
    assert [plan.same(kind, 3, 100) for kind in KINDS] == [True, False]
    assert plan.same("base", 3, 300) is None
    assert plan.choose(99, 999, 100) != ("base", 3)
    assert plan.choose(99, 999, 252) == plan.choose(99, 999, 100)
    assert plan.choose(99, 999, 253) == ("base", 3)  # another way of computing, of which nothing is known yet
    assert Plan(costs, 7, KINDS, None).choose(99, 999, 100) == ("base", 3)


# -- the file


def test_what_is_remembered(tmp_path: Path) -> None:
    costs = Costs.open(tmp_path / "cache", "pair", 1)
    for rows, seconds in LLM.items():
        costs.add(costs.llm, rows, seconds)
    assert not costs.changed  # one sample is no price yet
    costs.save()
    assert not (tmp_path / "cache").exists()
    for rows, seconds in LLM.items():
        costs.add(costs.llm, rows, seconds)
    costs.same["a"] = True
    costs.acceptance["base"].add(3, 4)
    costs.save()
    again = Costs.open(tmp_path / "cache", "pair", 1)
    assert again.llm.to_dict() == {str(rows): seconds for rows, seconds in LLM.items()}
    assert (again.same, again.acceptance["base"]) == ({"a": True}, Acceptance(3.0, 4.0))
    assert not again.changed
    assert Costs.open(tmp_path / "cache", "pair", 2).llm.to_dict() == {}
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [again.file and again.file.name]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 1}',
        '{"llm": 3}',
        '{"llm": {"1": -1}}',
        '{"llm": {"x": 1}}',
        '{"llm": {"1": NaN}}',
        "\x00" * 9,
    ],
)
def test_a_damaged_file_is_measured_anew(damage: str, tmp_path: Path) -> None:
    costs = Costs.open(tmp_path, 1)
    assert costs.file is not None
    whole = {
        "schema": 2,
        "llm": {"1": 1.0},
        "slm": {},
        "steps": {},
        "acceptance": {n: [1, 2] for n in costs.acceptance},
        "same": {},
    }
    costs.file.write_text(json.dumps(whole))
    assert Costs.open(tmp_path, 1).llm.of(1) == 1
    try:
        costs.file.write_text(json.dumps({**whole, **json.loads(damage)}))
    except (ValueError, TypeError):
        costs.file.write_text(damage)
    assert Costs.open(tmp_path, 1).llm.to_dict() == {}


def test_remembered_prices_are_scaled_by_what_one_row_takes_now(tmp_path: Path) -> None:
    costs = Costs.open(tmp_path, 1)
    costs.llm, costs.slm, costs.steps = priced({1: 10.0, 4: 16.0}), priced({8: 6.0}), priced({7: 15.0})
    costs.changed = True
    costs.save()
    again = Costs.open(tmp_path, 1)
    plan = Plan(again, 7, KINDS, None)
    for seconds in (9.0, 5.0):
        assert again.remembered
        assert plan.choose(99, 999, 100)[1] == 0  # one row first
        again.add(again.slm, 8, 99.0)  # does not count before that
        again.add(again.llm, 1, seconds)
    assert not again.remembered
    assert (again.llm.to_dict(), again.slm.to_dict(), again.steps.to_dict()) == ({"1": 5, "4": 8}, {"8": 3}, {"7": 7.5})
    again.save()
    assert Costs.open(tmp_path, 1).llm.of(4) == 8


def test_old_prices_are_not_believed(tmp_path: Path) -> None:
    costs = Costs.open(tmp_path, 1)
    costs.llm, costs.changed = priced(LLM), True
    costs.save()
    assert costs.file is not None
    assert Costs.open(tmp_path, 1).llm.known(1)
    then = time.time() - 8 * 86_400
    os.utime(costs.file, (then, then))
    assert not Costs.open(tmp_path, 1).llm.known(1)


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    costs = Costs.open(tmp_path / "file", 1)
    costs.llm, costs.changed = priced(LLM), True
    costs.save()
    assert Costs.open(tmp_path / "file", 1).llm.to_dict() == {}


def test_wishes() -> None:
    assert [check_speculate(value) for value in ("auto", "off", 1, 7)] == [None, 0, 1, 7]
    assert [check_draft(value) for value in ("auto", "steered", "base")] == [KINDS, ("steered",), ("base",)]
