"""`drift-edge eval`: `run` tells how well a person's choices predict one another, by every way to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import DriftError, PreferencesError, UsageError

from .build import build
from .scorer import ContextSize, SmallLM, SmallLMLayers, TextLength, Threads, Verbose, settings_by
from .which import AsJson, ProfileFlag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from drift_edge.evaluation import Evaluation, Share
    from drift_edge.preferences import PreferencePair
    from drift_edge.rewards import PairScores

    from .config import Settings
    from .render import Screen

app = typer.Typer(no_args_is_help=True, help="How well what was learned predicts choices.")
app.command("build")(build)


@app.command()
def run(
    pairs: Annotated[
        list[Path] | None, typer.Argument(metavar="PAIRS...", help="Files of pairs.  [default: the profile's journal]")
    ] = None,
    profile: ProfileFlag = None,
    format: Annotated[str | None, typer.Option(help="Of the files, as for `learn`.  [default: found out]")] = None,
    user: Annotated[str | None, typer.Option(help="Whose choices, where a file holds several people's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs.")] = None,
    k: Annotated[str | None, typer.Option(metavar="K,K...", help="Choices to learn from.  [default: 5 to 500]")] = None,
    estimator: Annotated[str | None, typer.Option(help="Of the curve.  [default: the profile's]")] = None,
    reduction: Annotated[str | None, typer.Option(help="Of the curve.  [default: the profile's]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choices drawn for the curve.")] = 0,
    png: Annotated[Path | None, typer.Option(help="Draw it: a file name.png.")] = None,
    html: Annotated[Path | None, typer.Option(help="Draw it: a file name.html.")] = None,
    slm: SmallLM = None,
    attributes: Annotated[Path | None, typer.Option(help="TOML file of a pool of your own.")] = None,
    text_length: TextLength = None,
    ctx_size: ContextSize = None,
    threads: Threads = None,
    slm_gpu_layers: SmallLMLayers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say how well choices are predicted by the others, and by which estimator and reduction best.

    Every choice is predicted by weights made from all others; the curve learns from k of them, drawn 20 times. No
    profile changes. Drawing needs matplotlib: pip install 'drift-edge[plot]'.
    """
    from drift_edge.evaluation import DEFAULT_KS, evaluate

    from .charts import counted
    from .render import Screen, show_log
    from .which import existing, fresh

    ks = DEFAULT_KS if k is None else _numbers(k)
    given = {"slm": slm, "attributes": attributes, "ctx-size": ctx_size, "threads": threads}
    settings = settings_by({**given, "slm-gpu-layers": slm_gpu_layers})
    show_log(verbose)
    screen = Screen(settings.color, quiet=as_json)
    if pairs:
        from .learn import read_files

        person = fresh(profile)
        read = read_files(pairs, screen, form=format, user=user, limit=limit)
        found = list({pair.id: pair for file in read for pair in file.pairs}.values())
        scores = _scored(found, settings, text_length or person.text_length, screen)
    else:
        person = existing(profile)
        scores = [choice.scores for choice in person.choices() if choice.scores][:limit]
    if len(scores) < 2:
        raise PreferencesError(
            f"{', '.join(map(str, pairs)) if pairs else person.path}: {counted(len(scores), 'choice')} with a "
            "preference, and it takes 2 for one to be predicted by the other"
        )
    by, how = estimator or person.settings.estimator, reduction or person.settings.reduction
    evaluation = evaluate(scores, estimator=by, reduction=how, ks=ks, seed=seed)
    for path, kind in ((png, ".png"), (html, ".html")):
        if path:
            from .plot import picture

            drawn = picture(lambda: _figure(evaluation), kind, "drift-edge: evaluation")
            try:
                path.write_bytes(drawn)
            except OSError as error:
                raise DriftError(f"{path}: cannot be written: {error.strerror}") from error
    if as_json:
        screen.json({**evaluation.to_dict(), "seed": seed})
        return
    for line in lines(evaluation):
        typer.echo(line)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--k: expected whole numbers, as in 5,10,50, got {text!r}") from None


def _scored(pairs: Sequence[PreferencePair], settings: Settings, text_length: int, screen: Screen) -> list[PairScores]:
    """The pairs' scores; Ctrl-C ends the command, and what was scored is known to the next."""
    from drift_edge.attributes import Attributes
    from drift_edge.events import CancelToken
    from drift_edge.learning import score_pairs

    from .errors import INTERRUPTED
    from .interrupt import cancel_on_interrupt
    from .progress import Progress
    from .scorer import loaded_slm, own_pool, scorer_on

    cancel, scores, done = CancelToken(), [], 0
    pool = own_pool(settings) or Attributes.builtin()
    with loaded_slm(settings, screen) as model, scorer_on(model, pool, settings, text_length, screen) as scorer:
        work = score_pairs(scorer, pairs, cancel)
        with cancel_on_interrupt(cancel), closing(work), Progress(len(pairs), screen) as progress:
            for scored in work:
                done += 1
                if scored.scores:
                    scores.append(scored.scores)
                elif scored.why:
                    progress.note(f"{scored.pair.source or f'pair {scored.pair.id}'}: cannot be scored: {scored.why}")
                progress.step(worked=scored.computed)
    if done < len(pairs):
        screen.say(f"stopped: {done:,} of {len(pairs):,} pairs are scored; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)
    return scores


def lines(found: Evaluation) -> list[str]:
    """The report."""

    def told(share: Share) -> str:
        return f"{share.right:6.1%}  ({share.low:.1%} to {share.high:.1%})"

    best = found.table[found.best]
    same = found.best == (found.estimator, found.reduction)
    out = [
        f"{found.pairs:,} choices, each predicted by the others; 95 % intervals",
        f"  {f'{found.estimator}, {found.reduction} over tokens':<32} {told(found.accuracy)}",
        f"  {'length alone':<32} {told(found.length)}  the preferred answer is the longer one in {found.longer:.0%}",
        f"  {'majority':<32} {0.5:6.1%}  a choice has no side that most could fall on",
        "",
        f"{'leave-one-out':<14}{'sum':>9}{'mean':>9}{'sqrt':>9}",
    ]
    for estimator in dict.fromkeys(by for by, _ in found.table):
        shares = [found.table[estimator, how].right for how in ("sum", "mean", "sqrt")]
        out.append(f"  {estimator:<12}" + "".join(f"{share:9.1%}" for share in shares))
    out += [
        "The one in use is the best."
        if same
        else f"Best: {', '.join(found.best)}; the best of {len(found.table)} on the same choices, so a little too good."
    ]
    if not same and best.low < found.accuracy.right:
        out.append("Its interval holds the one in use: they are too few choices to tell the two apart.")
    if found.curve:
        out += [
            "",
            f"learned from k ({found.estimator}, {found.reduction}), the others predicted; mean of 20 drawings:",
        ]
        out += [f"  {point.k:>6,}  {point.right:6.1%} ±{point.spread:.1%}" for point in found.curve]
    return out


def _figure(found: Evaluation) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curve, table = figure.subplots(1, 2)
    curve.errorbar(
        [point.k for point in found.curve],
        [point.right for point in found.curve],
        [point.spread for point in found.curve],
        marker="o",
        ms=4,
        capsize=3,
        color="#0072b2",
        label=f"{found.estimator}, {found.reduction}",
    )
    curve.axhline(found.length.right, color="#d55e00", ls="--", lw=1, label="length alone")
    curve.axhline(0.5, color="#333333", ls=":", lw=1, label="chance")
    curve.set(xlabel="choices learned from, k", ylabel="other choices predicted right", title="Learning curve")
    curve.set_ylim(top=1.02)
    if found.curve:
        curve.set_xscale("log")
        curve.set_xticks([point.k for point in found.curve], [str(point.k) for point in found.curve])
        curve.minorticks_off()
    curve.legend(frameon=False)
    ways = sorted(found.table, key=lambda way: found.table[way].right)
    shares = [found.table[way] for way in ways]
    reach = [[max(0.0, s.right - s.low) for s in shares], [max(0.0, s.high - s.right) for s in shares]]
    table.errorbar([s.right for s in shares], range(len(ways)), xerr=reach, fmt="o", ms=4, color="#0072b2")
    table.set_yticks(range(len(ways)), [", ".join(way) for way in ways], fontsize=7)
    table.axvline(found.length.right, color="#d55e00", ls="--", lw=1)
    table.axvline(0.5, color="#333333", ls=":", lw=1)
    table.set(xlabel="leave-one-out accuracy", title=f"Ways to learn, {found.pairs:,} choices")
    return figure
