"""The corpus: its English, its independence of content and style, its shares, its splits, and its reader."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from drift_edge.attributes import Attributes
from drift_edge.models.nano.corpus import neutral, reader, smalltalk
from drift_edge.models.nano.corpus.answers import Voice, plan, render
from drift_edge.models.nano.corpus.conversations import Document, documents, train_document
from drift_edge.models.nano.corpus.grammar import canonical, sentences
from drift_edge.models.nano.corpus.names import ADJECTIVES, article, thing
from drift_edge.models.nano.corpus.questions import FOLLOW_KINDS, KINDS, ask, fill, follow_ups, phrasings
from drift_edge.models.nano.corpus.splits import (
    heldout_cells,
    heldout_follow_ups,
    heldout_noun,
    heldout_questions,
    heldout_topics,
)
from drift_edge.models.nano.corpus.styles import Style, make_style, style_by_name, styles
from drift_edge.models.nano.corpus.system import System, base_voice
from drift_edge.models.nano.corpus.topics import (
    IMPERATIVE,
    ROLES,
    CorpusError,
    Topic,
    in_your_voice,
    make_topic,
    topic_by_id,
    topics,
)
from drift_edge.models.nano.corpus.unknown import clause_templates, unknown_plan, unknown_topic

SEED = 20_26
_VOWEL_SOUND = r"(?!(?:one|once|uni|use|usu|eu)[a-z]*)[aeiou]"
_WRONG = {
    "an unfilled slot": r"[{}]",
    "double space": r"\s\s|^\s|\s$",
    "double punctuation": r"[.!?,][.,!?]|\s[.,!?]",
    "a before a vowel": rf"\b[Aa] {_VOWEL_SOUND}",
    "an before a consonant": r"\b[Aa]n (?![aeiouAEIOU]|hour|honest|honou?r|heir)",
    "a word twice": r"\b(?!that\b|had\b|fr\b)([A-Za-z]+) \1\b",
    "small letter at the head of a sentence": r"(?:^|[.!?] )[a-z]",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _WRONG.items()}


def flaws(text: str, *, lower: bool = False) -> list[str]:
    """Names of the simple rules of English that the text breaks."""
    rules = [name for name in _PATTERNS if not (lower and name.startswith("small"))]
    return [f"{name}: {text}" for name in rules if _PATTERNS[name].search(text)]


def in_voice(voice: Voice, n: int, seed: int) -> list[Document]:
    """Training documents in one voice."""
    rng = random.Random(seed)
    return [train_document(rng, System("", (), voice)) for _ in range(n)]


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    print("seed", SEED)
    return list(islice(documents(seed=SEED, base_share=0.5), 6_000))


def test_the_shipped_data_is_whole() -> None:
    assert len(topics()) >= 200
    assert [style.name for style in styles()] == list(Attributes.builtin())
    for style in styles():
        assert style.prompts[0] == Attributes.builtin()[style.name].prompt
        assert len(style.prompts) >= 5
        assert style.plain or min(len(style.openers), len(style.closers), len(style.asides)) >= 6
        assert style.plain or min(len(style.step_frames), len(style.fact_frames)) >= 6
    for kind in KINDS:
        assert len(phrasings(kind)) >= 6
        assert len(phrasings(kind, heldout=True)) >= 1
    for kind in FOLLOW_KINDS:
        assert len(follow_ups(kind)) >= 6
    assert all(len(set(frames)) >= 6 for name, frames in neutral.FRAMES.items() if name[:4] not in {"bare", "pair"})


def test_every_frame_is_grammatical_with_clauses_of_every_topic() -> None:
    rng = random.Random(SEED)
    known = topics()
    templates = [(text, False) for frames in neutral.FRAMES.values() for text in frames]
    templates += [(text, False) for leads in neutral.LEADS.values() for text in leads]
    templates += [(text, False) for text in smalltalk.texts()[0]]
    for style in styles():
        groups = (style.openers, style.asides, style.closers, style.step_frames, style.fact_frames)
        templates += [(text, style.lower > 0) for group in groups for text in group]
    wrong: list[str] = []
    for template, lower in templates:
        for topic in rng.sample(known, 12):
            imperative = rng.choice([c.text for c in topic.all() if c.role in IMPERATIVE])
            full = rng.choice([c.text for c in topic.all() if c.role not in IMPERATIVE])
            text = fill(template, topic)
            for slot, clause in (("step2", imperative), ("step", imperative), ("fact", full)):
                text = text.replace(f"{{{slot}}}", clause)
                text = text.replace(f"{{{slot.title()}}}", clause[:1].upper() + clause[1:])
            wrong += flaws(text, lower=lower)
    assert not wrong, "\n".join(wrong[:20])


def test_every_clause_is_grammatical_and_every_question_too() -> None:
    wrong: list[str] = []
    for topic in topics():
        for clause in topic.all():
            wrong += flaws(clause.text[:1].upper() + clause.text[1:] + ".")
        for kind in KINDS:
            for heldout in (False, True):
                for phrasing in phrasings(kind, heldout):
                    wrong += flaws(ask(topic, phrasing))
        wrong += flaws(f"If {topic.trouble}.")
        assert not re.search(r"\b(my|I|me)\b", topic.trouble), topic.trouble
    assert not wrong, "\n".join(wrong[:20])


def test_answers_are_grammatical(sample: list[Document]) -> None:
    wrong: list[str] = []
    for document in sample:
        lower = any(style.lower for style in document.system.voice.styles)
        for turn in document.turns:
            text = turn.answer
            if lower:  # "are" becomes "r", "and" becomes "n": the article rules are for English
                continue
            wrong += [flaw for flaw in flaws(text) if not flaw.startswith(("a before", "an before", "a word"))]
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize(
    ("word", "expected"),
    [("lamp", "a lamp"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("hour", "an hour"), ("umbrella", "an umbrella")],
)
def test_article(word: str, expected: str) -> None:
    assert article(word) == expected


def test_content_does_not_depend_on_style() -> None:
    rng = random.Random(SEED)
    voices = [Voice(), *(Voice((style,), 1.0) for style in styles())]
    for _ in range(60):
        topic, kind = rng.choice(topics()), rng.choice(KINDS)
        content = plan(topic, kind, rng)
        for voice in voices:
            answer = render(content, voice, rng)
            assert set(answer.clauses) <= set(content.clauses)
            assert content.clauses[content.core] in answer.clauses
            assert reader.clauses_in(topic, answer.text) == list(answer.clauses), answer.text
            order = [content.clauses.index(clause) for clause in answer.clauses]
            assert order == sorted(order)


def test_every_clause_is_reached_by_three_kinds_of_question() -> None:
    rng = random.Random(SEED)
    topic = topics()[0]
    kinds: dict[str, set[str]] = defaultdict(set)
    for kind in KINDS:
        for _ in range(400):
            for clause in plan(topic, kind, rng).clauses:
                kinds[clause.text].add(kind)
    assert {clause.text for clause in topic.all()} == set(kinds)
    assert min(len(found) for found in kinds.values()) >= 3, kinds


def test_nothing_is_said_twice_in_an_answer(sample: list[Document]) -> None:
    for document in sample:
        for turn in document.turns:
            parts = [canonical(part) for part in sentences(turn.answer)]
            assert len(parts) == len(set(parts)), turn.answer
            assert len(turn.clauses) == len(set(turn.clauses)), turn.answer


def test_no_two_asides_in_a_row_and_concise_says_one_thing() -> None:
    asides = {canonical(text) for style in styles() for text in style.asides}
    for style in styles():
        for document in in_voice(Voice((style,), 1.0), 40, SEED):
            for turn in document.turns:
                flags = [canonical(part) in asides for part in sentences(turn.answer)]
                assert not any(one and two for one, two in pairwise(flags)), turn.answer
                assert style.plain or len(turn.clauses) <= 4
                if style.plain:
                    assert len(sentences(turn.answer)) == 1, turn.answer


def test_steps_keep_their_order(sample: list[Document]) -> None:
    seen = 0
    for document in sample:
        for turn in document.turns:
            if turn.topic and turn.topic.known and turn.kind in {"how", "start", "after"}:
                assert reader.steps_in_order(turn.topic, turn.answer), turn.answer
                seen += 1
    assert seen > 500


def test_the_mixtures_have_their_shares() -> None:
    base: Counter[int] = Counter()
    own: Counter[str] = Counter()
    two = user = attribute = total = 0
    print("seed", SEED)
    for document in islice(documents(seed=SEED, base_share=0.4), 40_000):
        total += 1
        names, voice = document.system.attributes, [s.name for s in document.system.voice.styles]
        user += document.system.text.startswith(("The user", "You help people who", "My name", "I live"))
        if not names:
            base[len(voice)] += 1
        elif len(names) == 2:
            two += 1
        else:
            attribute += 1
            mine = names[0] in voice
            own["own" if voice == [names[0]] else "mixed" if mine else "neutral" if not voice else "other"] += 1
    count = sum(base.values())
    assert count / total == pytest.approx(0.4, abs=0.01)
    assert [base[i] / count for i in range(3)] == pytest.approx([0.62, 0.31, 0.07], abs=0.015)
    shares = [own[key] / attribute for key in ("own", "mixed", "neutral", "other")]
    assert shares == pytest.approx([0.82, 0.08, 0.06, 0.04], abs=0.012)
    assert two / total == pytest.approx(0.06, abs=0.006)
    assert user > 0.05 * total


def test_kinds_of_documents_have_their_shares(sample: list[Document]) -> None:
    n = len(sample)
    firsts = [document.turns[0] for document in sample]
    talk = sum(turn.topic is None for turn in firsts)
    unknown = sum(turn.topic is not None and not turn.topic.known for turn in firsts)
    several = sum(len(document.turns) > 1 for document in sample)
    assert 0.03 < talk / n < 0.05
    assert 0.37 < unknown / n < 0.42
    assert 0.32 < several / n < 0.42


def test_training_never_sees_what_is_held_out() -> None:
    print("seed", SEED)
    topics_out, cells_out = heldout_topics(), heldout_cells()
    assert len(topics_out) == 10
    assert 0.03 < len(cells_out) / (len(topics()) * len(KINDS)) < 0.09
    unseen = {canonical(ask(topic_by_id()[name], text)) for name, kind in cells_out for text in phrasings(kind)}
    for topic in topics():
        unseen |= {canonical(ask(topic, text)) for kind in KINDS for text in phrasings(kind, heldout=True)}
    unseen |= {canonical(text) for kind in FOLLOW_KINDS for text in follow_ups(kind, heldout=True)}
    names: set[str] = set()
    for document in islice(documents(seed=SEED, base_share=0.5), 50_000):
        for turn in document.turns:
            question = canonical(turn.question)
            assert question not in unseen, turn.question
            if turn.topic and turn.topic.known:
                assert turn.topic.id not in topics_out
                assert (turn.topic.id, turn.kind) not in cells_out
            elif turn.topic:
                names.update(turn.topic.key.split())
    rng = random.Random(SEED)
    drawn = {word for _ in range(500) for word in thing(rng, heldout=True).bare.split()}
    heldout = {word for word in drawn - set(ADJECTIVES) if heldout_noun(word)}
    assert len(heldout) > 50
    assert not heldout & names
    assert len(names) > 3_000


def test_the_same_seed_gives_the_same_documents_in_every_process() -> None:
    code = (
        "from itertools import islice\n"
        "from drift_edge.models.nano.corpus import documents, heldout_questions\n"
        "print([d.messages for d in islice(documents(seed=7), 40)], heldout_questions(9, 3)[0].text)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in (1, 2)
    }
    assert len(outputs) == 1
    first, other = (next(documents(seed=seed)).messages for seed in (1, 2))
    assert first != other


def test_evaluation_questions_are_unseen_and_fixed() -> None:
    drawn = heldout_questions(300, SEED)
    assert [q.text for q in drawn] == [q.text for q in heldout_questions(300, SEED)]
    assert len({(q.topic.id, q.text) for q in drawn}) == 300
    for question in drawn:
        if question.unseen == "topic":
            assert question.topic.id in heldout_topics()
        elif question.unseen == "cell":
            assert (question.topic.id, question.kind) in heldout_cells()
    for pair in heldout_follow_ups(200, SEED):
        assert pair.first.topic.id not in heldout_topics()
    with pytest.raises(ValueError, match="expected one of"):
        heldout_questions(1, 0, "everything")


def test_documents_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="split"):
        documents("validation", seed=1)
    with pytest.raises(ValueError, match="base_share"):
        documents(seed=1, base_share=1.5)


def test_test_documents_are_read_without_fault() -> None:
    for document in islice(documents("test", seed=SEED), 200):
        turn = document.turns[0]
        assert turn.topic is not None
        assert reader.on_topic(turn.topic, turn.answer)
        assert not reader.garbled(turn.answer, turn.topic), turn.answer


@pytest.mark.parametrize("style", styles(), ids=lambda style: style.name)
def test_the_reader_recognises_each_style(style: Style) -> None:
    own = [doc.turns[0].answer for doc in in_voice(Voice((style,), 0.75), 120, SEED)]
    plain = [doc.turns[0].answer for doc in in_voice(Voice(), 300, SEED)]
    assert sum(reader.marker(style.name, text) for text in own) / len(own) >= 0.85
    assert sum(reader.marker(style.name, text) for text in plain) / len(plain) <= 0.1
    others = [
        doc.turns[0].answer
        for other in styles()
        if other.name != style.name and not other.plain and other.exclaim < 0.5
        for doc in in_voice(Voice((other,), 0.75), 8, SEED)
    ]
    assert sum(reader.marker(style.name, text) for text in others) / len(others) <= 0.1


def test_the_reader_finds_no_fault_with_the_corpus(sample: list[Document]) -> None:
    right = total = 0
    for document in sample[:1000]:
        for index, turn in enumerate(document.turns):
            assert not reader.garbled(turn.answer, turn.topic), reader.garbled_sentences(turn.answer, turn.topic)
            assert reader.repeated_items(turn.answer) == 0, turn.answer
            if turn.topic:
                assert reader.on_topic(turn.topic, turn.answer), turn.answer
            if turn.topic and turn.follow_up:
                before = [t.answer for t in document.turns[:index] if t.topic is turn.topic]
                right += reader.followup_right(turn.topic, turn.kind, before, turn.answer)
                total += 1
    assert total > 100
    assert right / total > 0.97


def test_the_reader_sees_broken_text() -> None:
    rng = random.Random(SEED)
    tea = topic_by_id()["tea"]
    other = next(topic for topic in topics() if topic.id != "tea")
    for _ in range(100):
        text = render(plan(tea, rng.choice(KINDS), rng), Voice(), rng).text
        words = text.split()
        cut = rng.randrange(1, len(words))
        assert reader.garbled(" ".join(words[:cut]) + " been " + " ".join(words[cut:])), text
        assert not reader.on_topic(other, text)
        assert reader.repeated_items(f"{text} {text}") > 0
    thing = replace(tea, noun="a zorbel", key="zorbel", verb="paint a zorbel", gerund="painting a zorbel", known=False)
    helped = "I do not know much about a zorbel. It helps to watch someone repair a zorbel."
    assert not reader.garbled(helped, thing, "Give me a tip about a zorbel.")
    assert reader.garbled(helped, thing, "How do I paint a zorbel?")
    assert reader.garbled(helped.replace("repair", "zorbel"), thing, "Give me a tip about a zorbel.")
    assert not reader.garbled("I do not know much about tea.", tea)
    assert reader.owns_up(tea, "I do not know much about tea.")
    assert not reader.owns_up(tea, "Tea is a hot drink.")
    assert reader.garbled("")
    assert reader.garbled("Tea is a hot drink made from")
    assert not reader.mentions("a zorbel", "I know little about a zorbin.")
    assert reader.mentions("a zorbel", "I know little about Zorbels.")
    steps = [clause.text for clause in tea.clauses["step"]]
    said = [f"First, {steps[0]}. Then {steps[1]}."]
    assert reader.followup_right(tea, "after", said, f"Next, {steps[2]}.")
    assert not reader.followup_right(tea, "after", said, f"Next, {steps[3]}.")
    assert not reader.followup_right(tea, "after", said, f"Next, {steps[1]}.")
    assert not reader.steps_in_order(tea, f"First, {steps[1]}. Then {steps[0]}.")


def test_unknown_things_are_named_in_every_clause_and_the_thing_is_the_one_asked_about() -> None:
    rng = random.Random(SEED)
    for texts in clause_templates().values():
        assert all(re.search(r"\{(noun|verb|gerund|trouble)\}", text) for text in texts)
    assert sum(len(texts) for texts in clause_templates().values()) >= 25
    for _ in range(300):
        topic = unknown_topic(rng)
        kind = rng.choice(KINDS)
        answer = render(unknown_plan(topic, kind, rng), Voice(), rng).text
        assert reader.mentions(topic.noun, sentences(answer)[0]), answer
        assert not reader.garbled(answer, topic), answer
        assert reader.mentions(topic.noun, ask(topic, rng.choice(phrasings(kind))))


def test_the_user_s_name_is_used_in_greetings() -> None:
    rng = random.Random(SEED)
    says = [smalltalk.small_talk(rng, "greet", "Mira")[1].clauses[0].text for _ in range(20)]
    assert all(text.endswith(", Mira.") for text in says)


def test_base_voice_is_drawn_from_every_style() -> None:
    rng = random.Random(SEED)
    drawn = {style.name for _ in range(3_000) for style in base_voice(rng).styles}
    assert drawn == set(style_by_name())


def test_a_problem_is_turned_to_the_reader() -> None:
    assert in_your_voice("my tea is cold and I am sad") == "your tea is cold and you are sad"
    assert in_your_voice("it hurts me, when I was asleep") == "it hurts you, when you were asleep"


def entry(**changes: object) -> dict[str, object]:
    """A topic's TOML entry with fields replaced; None removes one."""
    fields: dict[str, object] = {
        "id": "soup",
        "noun": "soup",
        "key": "soup",
        "gerund": "making soup",
        "verb": "make soup",
        "definition": "a warm dish in a bowl",
        "steps": ["chop it", "cook it", "stir it", "serve it"],
        "reasons": ["it warms you", "it fills you"],
        "facts": ["soup can be cold", "soup can be thick"],
        "pro": "soup is cheap",
        "con": "soup can burn you",
        "tip": "add salt late",
        "problem": "my soup is thin",
        "fix": "cook it longer",
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def test_a_topic_is_read() -> None:
    topic = make_topic(entry(), "here.toml")
    assert isinstance(topic, Topic)
    assert set(topic.clauses) == set(ROLES)
    assert topic.clauses["definition"][0].text == "soup is a warm dish in a bowl"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noun": None}, "noun: expected plain words"),
        ({"steps": ["one", "two"]}, "steps: expected a list of 4"),
        ({"tip": "add salt."}, "tip: expected plain words"),
        ({"plural": "yes"}, "plural: expected true or false"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_a_bad_topic_is_refused_with_its_place(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CorpusError, match=re.escape(message)) as caught:
        make_topic(entry(**changes), "here.toml")
    assert "here.toml, topic 'soup'" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"openers": ["No end mark"]}, "no end mark"),
        ({"closers": ["A {clause} here."]}, "is none of"),
        ({"step_frames": ["Do it."]}, "expected exactly one {step}"),
        ({"items": [3, 2]}, "items: expected"),
        ({"frame": 2}, "frame: expected a probability"),
        ({"prompts": "one"}, "prompts: expected a list"),
        ({"words": {"two words": "one"}}, "words: expected"),
    ],
)
def test_a_bad_style_is_refused_with_its_place(changes: dict[str, object], message: str) -> None:
    table: dict[str, object] = {
        "prompts": ["One.", "Two.", "Three.", "Four."],
        "openers": ["Well."],
        "asides": [],
        "closers": [],
        "step_frames": ["Now {step}."],
        "fact_frames": ["Know that {fact}."],
        "items": [2, 3],
        **dict.fromkeys(("opener", "aside", "closer", "frame", "exclaim", "lower"), 0.5),
    }
    make_style("test", table, "Be a test.", "here.toml")
    with pytest.raises(CorpusError, match=re.escape(message)) as caught:
        make_style("test", {**table, **changes}, "Be a test.", "here.toml")
    assert "here.toml, style 'test'" in str(caught.value)


def test_made_up_answers_come_only_where_asked_for() -> None:
    def made_up(share: float) -> float:
        drawn = islice(documents(seed=SEED, base_share=0.5, made_up_share=share), 3_000)
        unknown = [d.turns[0].topic for d in drawn if d.turns[0].topic and d.turns[0].topic.id not in topic_by_id()]
        return sum(topic.known for topic in unknown) / len(unknown)

    print("seed", SEED)
    assert made_up(0.0) == 0
    assert 0.2 < made_up(0.35) < 0.36  # questions outside the domain, a fifth of the unknown, are never answered so
    with pytest.raises(ValueError, match="made_up_share"):
        documents(seed=SEED, made_up_share=1.5)
