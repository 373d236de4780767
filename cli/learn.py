"""`drift-edge learn`: from files of choices, or from questions asked, to a profile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import PreferencesError, UsageError

from . import options
from .scorer import ContextSize, SmallLM, SmallLMLayers, TextLength, Threads, Verbose, settings_by
from .which import MODEL, AsJson

if TYPE_CHECKING:
    from drift_edge.preferences import PairFile, PreferencePair
    from drift_edge.profile import Profile
    from drift_edge.rewards import PairScores
    from drift_edge.scoring import Scorer

    from .config import Settings
    from .render import Screen

_SHOWN = 3  # rows that gave no pair, of each file
_STRONGEST = 10  # weights of the report
#: The paper's setting (Table 6).
PAPER: dict[str, Any] = {
    "reduction": "sum",
    "estimator": "closed-form",
    "beta": 0.5,
    "active": 7,
    "sure": 0.0,
    "renormalise": False,
}
PAPER_TEXT_LENGTH = 500


class Preset(StrEnum):
    """Settings that go together."""

    paper = "paper"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one run; all as the flags of the same names.

    Attributes:
        files: of choices.
        form: of the files; None finds it.
        user: whose choices.
        limit: pairs at most, over all files.
        strict: whether a row or pair that cannot be used is an error.
        dry_run: change no profile.
        journal: None is what the profile does, or yes.
        text_length: tokens of a response that are scored; None is what the profile does.
        exact: score every attribute in every pair.
        estimation: changes of the profile's settings.
        as_json: print one JSON object.
    """

    files: Sequence[Path]
    form: str | None
    user: str | None
    limit: int | None
    strict: bool
    dry_run: bool
    journal: bool | None
    text_length: int | None
    exact: bool
    estimation: dict[str, Any]
    as_json: bool


def learn(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Files of preference pairs.")] = None,
    ask: Annotated[
        int | None, typer.Option(metavar="N", help="No files: ask N questions, two answers each, and learn from those.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="The profile that learns.  [default: default]")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="jsonl, hh, csv, pandalm, perspective, prism or openwebui.  [default: found out]"),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose choices, where a file holds several people's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs to learn from.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A row that cannot be used is an error.")] = False,
    reduction: Annotated[
        str | None, typer.Option(help="Log-probabilities of a response: sum, mean or sqrt.  [default: the profile's]")
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(
            help="closed-form, whitened, standardised, shrunken, ridge-bt or absolute.  [default: the profile's]"
        ),
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="paper: closed-form on sums, 500 tokens, beta 0.5, 7 attributes.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Score and report, but change no profile.")] = False,
    journal: Annotated[
        bool | None,
        typer.Option("--journal/--no-journal", help="Keep the choices beside the profile, or their numbers alone."),
    ] = None,
    text_length: TextLength = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every attribute in every pair; drop none that cannot become active.")
    ] = False,
    llm: Annotated[str | None, typer.Option(metavar=MODEL, help="The LLM; only --ask uses it.")] = None,
    guard: options.Guard = None,
    guard_form: options.GuardForm = None,
    guard_tries: options.GuardTries = None,
    slm: SmallLM = None,
    attributes: Annotated[Path | None, typer.Option(help="TOML file of a pool of your own.")] = None,
    ctx_size: ContextSize = None,
    threads: Threads = None,
    slm_gpu_layers: SmallLMLayers = None,
    seed: Annotated[int | None, typer.Option(help="With --ask: makes the answers reproducible.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Learn a person's taste from choices between two answers.

    Every pair is scored once by the small LM and then counted in the profile. Stopped by Ctrl-C, it keeps what it has,
    and the same command goes on from there. A choice that the profile knows already counts once.
    """
    from .render import show_log

    if bool(files) == (ask is not None):
        raise UsageError("give files of choices, or --ask N for questions: drift-edge learn FILE... | --ask 20")
    for_files = {
        "--format": format,
        "--user": user,
        "--limit": limit,
        "--strict": strict or None,
        "--reduction": reduction,
        "--estimator": estimator,
        "--preset": preset,
        "--dry-run": dry_run or None,
        "--journal" if journal else "--no-journal": journal,
        "--text-length": text_length,
        "--exact": exact or None,
    }
    if ask is not None and (given := [flag for flag, value in for_files.items() if value is not None]):
        raise UsageError(
            f"{', '.join(given)}: for files alone, not for --ask; `drift-edge profile set` changes a profile"
        )
    flags: dict[str, object] = {
        "llm": llm,
        "slm": slm,
        "guard": guard,
        "guard-form": guard_form and guard_form.value,
        "guard-tries": guard_tries,
        "attributes": attributes,
        "ctx-size": ctx_size,
        "threads": threads,
        "slm-gpu-layers": slm_gpu_layers,
        "profile": profile,
        "seed": seed,
    }
    settings = settings_by(flags)
    show_log(verbose)
    if ask is not None:
        from .ask import ask as ask_questions

        ask_questions(ask, settings, as_json=as_json)
        return
    said = {"reduction": reduction, "estimator": estimator}
    estimation = (PAPER if preset else {}) | {name: value for name, value in said.items() if value is not None}
    wanted = Wanted(
        files or (),
        format,
        user,
        limit,
        strict,
        dry_run,
        journal,
        text_length or (PAPER_TEXT_LENGTH if preset else None),
        exact,
        estimation,
        as_json,
    )
    run(settings, wanted)


def run(settings: Settings, wanted: Wanted) -> None:
    """Learn from files.

    Raises:
        DriftError: a file, model or profile cannot be used, or there is nothing to learn.
        typer.Exit: 130, after Ctrl-C.
    """
    from drift_edge.approximation import check_estimator
    from drift_edge.profile import SLM, Profile
    from drift_edge.rewards import check_reduction

    from .config import DEFAULT_PROFILE
    from .render import Screen
    from .scorer import loaded_slm, own_pool, scorer_on

    check_reduction(wanted.estimation.get("reduction", "sum"))
    check_estimator(wanted.estimation.get("estimator", "closed-form"))
    screen = Screen(settings.color, quiet=wanted.as_json)
    read = read_files(
        wanted.files, screen, form=wanted.form, user=wanted.user, limit=wanted.limit, strict=wanted.strict
    )
    pairs = list({pair.id: pair for file in read for pair in file.pairs}.values())
    if not pairs:
        raise PreferencesError(f"{', '.join(map(str, wanted.files))}: no pair to learn from")
    with loaded_slm(settings, screen) as model:
        profile = Profile.open(
            settings.profile or DEFAULT_PROFILE,
            slm=SLM(model.name, model.fingerprint),
            attributes=own_pool(settings),
            text_length=wanted.text_length,
            journal=wanted.journal,
        )
        with scorer_on(model, profile.attributes, settings, profile.text_length, screen) as scorer:
            if not profile.settings.journal:
                screen.note("this profile keeps no choices, so a file that it learns from twice counts twice")
            if wanted.estimation and not wanted.dry_run:
                profile.configure(**wanted.estimation)
            scores, counts = _work(scorer, profile, pairs, wanted, screen)
    counts["skipped"] = sum(len(file.skipped) for file in read)
    _show(profile, scores, counts, wanted, screen)


def read_files(
    files: Sequence[Path],
    screen: Screen,
    *,
    form: str | None = None,
    user: str | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> list[PairFile]:
    """The files' pairs; says of each what is in it, and which rows gave none.

    Raises:
        PreferencesError: a file cannot be used.
    """
    from drift_edge.preferences import read_pairs

    from .charts import counted

    read: list[PairFile] = []
    left = limit
    for path in files:
        if left == 0:
            break
        file = read_pairs(path, format=form, user=user, strict=strict, limit=left)
        read.append(file)
        left = None if left is None else left - len(file.pairs)
        whose = f" of {user}" if user else ""
        screen.say(f"{path}: {counted(len(file.pairs), 'pair')}{whose} ({file.format})", "dim")
        for skipped in file.skipped[:_SHOWN]:
            screen.note(f"{path.name}: {skipped.where} skipped: {skipped.why}")
        if len(file.skipped) > _SHOWN:
            screen.note(f"{path.name}: {counted(len(file.skipped), 'row')} skipped in all; --strict stops at the first")
    return read


def _work(
    scorer: Scorer, profile: Profile, pairs: Sequence[PreferencePair], wanted: Wanted, screen: Screen
) -> tuple[list[PairScores], dict[str, int]]:
    """Score the pairs, and learn unless it is a dry run; returns the scores and what became of the pairs."""
    from drift_edge.events import CancelToken
    from drift_edge.learning import learn, score_pairs
    from drift_edge.racing import DEFAULT_CONFIDENCE

    from .errors import INTERRUPTED
    from .interrupt import cancel_on_interrupt
    from .progress import Progress

    cancel = CancelToken()
    scores: list[PairScores] = []
    counts = {"pairs": len(pairs), "new": -_known(profile), "ties": 0, "unscored": 0, "computed": 0}
    counts |= {"dropped": 0, "left_out": 0}
    done, why = 0, ""
    if wanted.dry_run:
        work = score_pairs(scorer, pairs, cancel)
    else:
        work = learn(scorer, profile, pairs, cancel, confidence=None if wanted.exact else DEFAULT_CONFIDENCE)
    with cancel_on_interrupt(cancel), closing(work), Progress(len(pairs), screen) as progress:
        for scored in work:
            done += 1
            counts["ties"] += scored.pair.tie
            counts["computed"] += scored.computed
            counts["dropped"] = max(counts["dropped"], len(scored.dropped))
            counts["left_out"] += len(scored.dropped)
            if scored.scores:
                scores.append(scored.scores)
            elif scored.why:
                counts["unscored"] += 1
                why = f"{scored.pair.source or f'pair {scored.pair.id}'}: cannot be scored: {scored.why}"
                if wanted.strict:
                    raise PreferencesError(why)
                if counts["unscored"] <= _SHOWN:
                    progress.note(why)
            progress.step(worked=scored.computed)
    if done < len(pairs):
        became = "learned" if profile.settings.journal and not wanted.dry_run else "scored"
        screen.say(f"stopped: {done:,} of {len(pairs):,} pairs are {became}; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    if counts["unscored"] == len(pairs):
        raise PreferencesError(f"none of the {len(pairs):,} pairs can be scored; the last: {why}")
    counts["new"] += _known(profile)
    return scores, counts


def _known(profile: Profile) -> int:
    return profile.n + profile.ties


def _show(profile: Profile, scores: list[PairScores], counts: dict[str, int], wanted: Wanted, screen: Screen) -> None:
    """The report: of the whole profile, or in a dry run of the pairs given."""
    from .charts import counted, stdout_color
    from .report import accuracy, accuracy_lines, strongest_lines, weights_of

    estimation = {name: getattr(profile.settings, name) for name in PAPER} | wanted.estimation
    if wanted.dry_run:
        weights = weights_of(scores, profile, estimation) if scores else {}
    else:
        weights = {name: weight.to_dict() for name, weight in profile.table().items()}
        if profile.settings.journal:
            scores = [choice.scores for choice in profile.choices() if choice.scores]
    found = accuracy(scores, estimation["reduction"]) if scores else None
    if wanted.as_json:
        screen.json(
            {
                "profile": str(profile.path),
                "dry_run": wanted.dry_run,
                "reduction": estimation["reduction"],
                "estimator": estimation["estimator"],
                **counts,
                "weights": weights,
                "leave_one_out": found,
            }
        )
        return
    if wanted.dry_run:
        typer.echo(f"{counted(counts['pairs'], 'pair')} scored; no profile is changed")
    else:
        known = counts["pairs"] - counts["new"] - counts["unscored"]
        more = f", {known:,} known before" if known else ""
        typer.echo(f"learned from {counted(counts['new'], 'pair')}{more}; {profile.path}")
    if counts["dropped"]:
        left_out = counts["left_out"] / (counts["pairs"] * len(profile.attributes))
        typer.echo(
            f"{counted(counts['dropped'], 'attribute')} that could no longer become active dropped on the way, "
            f"{left_out:.0%} of the scores left out; --exact scores all"
        )
    if counts["ties"]:
        typer.echo(f"{counted(counts['ties'], 'tie')}: counted, but nothing can be learned from them")
    if not found:
        typer.echo("no weights: there is no choice that prefers one answer")
        return
    typer.echo(f"\nStrongest weights ({estimation['estimator']}, {estimation['reduction']} over tokens):")
    for line in strongest_lines(weights, _STRONGEST, color=stdout_color()):
        typer.echo(line)
    typer.echo(f"\nLeave-one-out accuracy: of {counted(found['pairs'], 'choice')}, each predicted by the others")
    for line in accuracy_lines(found, estimation["estimator"]):
        typer.echo(line)
