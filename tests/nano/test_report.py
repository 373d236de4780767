"""The built-in pair's report: its arithmetic, its scores against the engine's own, and the model card it writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.markers import NAIVE, USUAL, Row
from drift_edge import Drift
from drift_edge.errors import DriftError
from drift_edge.models.nano.corpus import styles
from drift_edge.models.nano.evaluate import known_questions, persona
from drift_edge.models.nano.likelihood import Scorer, auc, drafting
from drift_edge.models.nano.report import BEGIN, END, aligned, markdown, write_card
from drift_edge.models.nano.results import Figure
from drift_edge.models.nano.transcripts import talks

QUESTION = "How do you make tea?"


def test_auc_counts_pairs() -> None:
    # Pairs (3,1) (3,2) (2,1) are larger, (2,2) is a tie: (3 + 0.5) / 4.
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 3.5 / 4


def test_figure_keeps_its_bound_on_the_right_side() -> None:
    assert Figure("least", 0.97, 9, 0.97).ok is True
    assert Figure("least", 0.96, 9, 0.97).ok is False
    assert Figure("most", 0.03, 9, 0.02, at_most=True).ok is False
    assert Figure("most", 0.02, 9, 0.02, at_most=True).ok is True
    assert Figure("free", 0.5, 9).ok is None


def test_scores_equal_the_engines_own_distribution(tiny_files: tuple[Path, Path]) -> None:
    answers = ["good", "water is good", "in", "make tea with water", "to of in a"]
    prompts = ["You are terse.", "Hello world.", "You are an AI assistant.", "x", "Say it."]
    with Drift.load(*tiny_files) as drift:
        llm = drift.pair.llm
        end = llm.special_ids["eot"]
        groups: list[int] = []
        with Scorer(llm, drift.pair.llm_format, 2, groups.append) as scorer:
            jobs = [
                scorer.job([{"role": "user", "content": QUESTION}], prompt, answer)
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
            found = scorer.score(jobs)
        for prompt, (_, response), value in zip(prompts, jobs, found, strict=True):
            assert response[-1] == end
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": QUESTION}]
            rows = drift.next_logprobs(messages, response[:-1])
            assert value == pytest.approx(rows[np.arange(len(response)), response].sum(), abs=0.05)
    assert groups == [2, 2, 1]


@pytest.mark.parametrize("weights", [{}, {"concise": 1.0, "formal": -0.5}], ids=["plain", "steered"])
def test_a_model_drafts_perfectly_for_itself(tiny_files: tuple[Path, Path], weights: dict[str, float]) -> None:
    llm, slm = tiny_files
    with Drift.load(llm, llm) as same, Drift.load(llm, slm) as pair:
        own, others = (drafting(d, QUESTION, weights, 0.5, np.random.default_rng(1), 20) for d in (same, pair))
    assert own[0] == pytest.approx(1, abs=1e-3)
    assert 0 < others[0].mean() < 0.999
    assert (others[1] >= 0).all()
    assert others[1].max() <= np.log2(pair.pair.n_vocab)


def test_persona_is_a_vector_of_length_one() -> None:
    p = persona(np.random.default_rng(3))
    assert len(p) == 7
    assert sum(weight**2 for weight in p.values()) == pytest.approx(1)
    assert set(p) <= {style.name for style in styles()}


def test_known_questions_take_turns_and_are_unseen() -> None:
    assert [q.unseen for q in known_questions(5, 1)] == ["cell", "phrasing", "cell", "phrasing", "cell"]


def test_card_keeps_what_stands_around_the_markers(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_card("new", card)
    write_card("newer", card)
    assert card.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


def test_card_without_markers_is_left_alone(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("text\n")
    with pytest.raises(DriftError, match="end of figures"):
        write_card("new", card)
    assert card.read_text() == "text\n"


def test_tables() -> None:
    head, rows = ["name", "n"], [["a", "1,000"], ["longer", "2"]]
    assert aligned(head, rows) == "name        n\na       1,000\nlonger      2"
    assert markdown(head, rows) == "| name | n |\n| --- | ---: |\n| a | 1,000 |\n| longer | 2 |"


def test_markers_row_judges_rise_length_and_topic() -> None:
    on, tokens = (1.0, 0.95, 0.95), (40.0, 12.0, 50.0)
    assert Row("formal", (0.05, 0.4, 0.0), (0, 0, 0), on, tokens).ok
    assert not Row("formal", (0.05, 0.3, 0.0), (0, 0, 0), on, tokens).ok
    assert Row("formal", (0.5, 0.6, 0.04), (0, 0, 0), on, tokens).ok
    assert not Row("formal", (0.05, 0.9, 0.0), (0, 0, 0), (1.0, 0.89, 1.0), tokens).ok
    assert Row("concise", (0, 0, 0), (0, 0, 0), on, (40.0, 30.0, 50.0)).ok
    assert not Row("concise", (0, 0, 0), (0, 0, 0), on, (40.0, 31.0, 50.0)).ok


def test_every_attribute_but_concise_has_a_naive_marker() -> None:
    names = {style.name for style in styles()}
    assert set(NAIVE) == names - {"concise"}
    assert set(USUAL) <= set(NAIVE)
    assert re.search(NAIVE["internet-slang"], "u know lol", re.IGNORECASE)
    assert not re.search(NAIVE["internet-slang"], "U-turns and you", re.IGNORECASE)


def test_there_are_a_hundred_transcripts_and_all_attributes_among_them() -> None:
    planned = talks(1)
    assert len(planned) == 100
    assert {name for talk in planned for name in talk.weights} >= {style.name for style in styles()}
    assert planned == talks(1) != talks(2)
