"""Onboarding, end to end: questions answered by a rule, then fresh processes asked what they have become.

`python -m experiments.onboarding` answers `drift-edge learn --ask` by a rule that likes exclamation marks, few words;
it then asks unseen questions with the profile and with `--no-profile`. Everything lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from drift_edge.models.nano.corpus.splits import heldout_questions

AIMS = {"tokens": 0.7, "exclamations": 3.0}
_COMMAND = (sys.executable, "-c", "from drift_edge.cli import main; main()")


def taste(text: str) -> float:
    """How much the rule likes an answer: the share of sentences that exclaim, less a thirtieth for every word."""
    ends = [text[i] for i in range(len(text)) if text[i] in ".!?" and text[i + 1 : i + 2] in ("", " ", "\n")]
    return ends.count("!") / max(1, len(ends)) - len(text.split()) / 30


def answer_questions(n: int, seed: int, environment: dict[str, str]) -> dict[str, Any]:
    """Answer `learn --ask n`, and return its last line."""
    args = [*_COMMAND, "learn", "--ask", str(n), "--json", "--seed", str(seed)]
    with subprocess.Popen(
        args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as run:
        if run.stdin is None or run.stdout is None:
            raise RuntimeError("the command has no pipes")
        for line in run.stdout:
            told: dict[str, Any] = json.loads(line)
            if "question" not in told:
                return told
            run.stdin.write("a\n" if taste(told["a"]) >= taste(told["b"]) else "b\n")
            run.stdin.flush()
    raise RuntimeError(f"learn --ask ended with {run.returncode} and no last line")


def ask(question: str, seed: int, environment: dict[str, str], *more: str) -> dict[str, Any]:
    """One answer of a fresh process, as its JSON."""
    args = [*_COMMAND, "chat", "-p", question, "--json", "--no-save", "--seed", str(seed), *more]
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, env=environment, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(n: int, unseen: int, seed: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Onboard once and compare; ratios are of the profile's answers to plain ones.

    Args:
        n, unseen: questions answered, and asked afterwards.
        seed: of everything.
        settings: arguments of `drift-edge profile set` in between.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "DRIFT_EDGE_HOME": home}
        learned = answer_questions(n, seed, environment)
        if settings:
            told = subprocess.run(
                [*_COMMAND, "profile", "set", *settings, "--json"], capture_output=True, env=environment, check=True
            )
            change = json.loads(told.stdout)
            learned["weights"] = {name: change["after"][name] for name in change["active"]}
        questions = [question.text for question in heldout_questions(unseen, seed)]
        mine = [ask(question, seed, environment) for question in questions]
        plain = [ask(question, seed, environment, "--no-profile") for question in questions]
    tokens = [statistics.median(len(answer["tokens"]) for answer in answers) for answers in (mine, plain)]
    marks = [sum(answer["text"].count("!") for answer in answers) for answers in (mine, plain)]
    return {
        "seed": seed,
        "weights": learned["weights"],
        "tokens": tokens[0] / max(1, tokens[1]),
        "exclamations": marks[0] / max(1, marks[1]),
    }


def main(args: Sequence[str] | None = None) -> None:
    """Print a line for each seed, and JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.onboarding", description=__doc__)
    parser.add_argument("--ask", type=int, default=50, help="questions answered")
    parser.add_argument("--unseen", type=int, default=30, help="questions asked afterwards")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", default="", help="as in --set='--sure 0 --no-renormalise': change the profile first")
    parser.add_argument("--json", action="store_true", help="one JSON object a seed instead")
    given = parser.parse_args(args)
    for seed in given.seeds:
        found = measure(given.ask, given.unseen, seed, given.set.split())
        if given.json:
            print(json.dumps(found), flush=True)
            continue
        weights = ", ".join(f"{name} {weight:+.2f}" for name, weight in found["weights"].items())
        print(f"seed {seed}: tokens x {found['tokens']:.2f} (aim {AIMS['tokens']} at most), ", end="")
        print(f"exclamation marks x {found['exclamations']:.1f} (aim {AIMS['exclamations']:g} or more); {weights}")


if __name__ == "__main__":
    main()
