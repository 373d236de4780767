"""`drift-edge profile list|show|explain|choices|history|path`: looking at a profile; no model is loaded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drift_edge.errors import DriftError

from .which import AsJson, Name, ProfileFlag, existing, profile_name

if TYPE_CHECKING:
    from drift_edge.profile import Profile

    from .charts import WeightRow

_STRONGEST = 15
_ALL = Annotated[bool, typer.Option("--all", help="All attributes, not only the strongest.")]


def list_all(as_json: AsJson = False) -> None:
    """List the profiles, with what each has learned."""
    from drift_edge.profile import Profile
    from drift_edge.storage import folders

    from .charts import counted
    from .render import Screen, weights_text

    rows = [_row(name) for name in Profile.names()]
    if as_json:
        Screen().json({"profiles": rows})
        return
    if not rows:
        typer.echo(f"no profile in {folders().profiles} yet; `drift-edge learn` or /ab in `drift-edge chat` begins one")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        rounded = {name: round(weight, 2) for name, weight in (row["weights"] or {}).items()}
        facts = row["error"] or f"{counted(row['pairs'], 'choice')}, {_minute(row['updated'])}  {weights_text(rounded)}"
        typer.echo(f"{row['name']:<{width}}  {facts}".rstrip())


def show(name: Name = None, profile: ProfileFlag = None, everything: _ALL = False, as_json: AsJson = False) -> None:
    """Show the weights as bars: how far, which way, and how sure (the shaded part is one standard error each way)."""
    from .charts import stdout_color, weight_lines
    from .render import Screen

    found = existing(name, profile, default_may_lack=True)
    if as_json:
        facts = {name: value for name, value in found.to_dict().items() if name not in ("statistics", "history")}
        Screen().json({"path": str(found.path), "pairs": found.n, "ties": found.ties, **facts})
        return
    typer.echo(summary(found))
    rows = weight_rows(found)
    shown = [row for i, row in enumerate(rows) if everything or row.note or (row.weight and i < _STRONGEST)]
    if not any(row.weight for row in rows):
        typer.echo(f"all weights are 0: {found.estimate().why_zero}")
        return
    typer.echo("")
    for line in weight_lines(shown, color=stdout_color()):
        typer.echo(line)
    if len(shown) < len(rows):
        typer.echo(f"... and {len(rows) - len(shown)} weaker ones; --all shows them")


def explain(
    attributes: Annotated[
        list[str] | None, typer.Argument(metavar="ATTRIBUTE...", help="These alone.  [default: the active ones]")
    ] = None,
    profile: ProfileFlag = None,
    pairs: Annotated[int, typer.Option(min=0, help="How many choices to show for each.")] = 2,
    everything: _ALL = False,
    as_json: AsJson = False,
) -> None:
    """Show what moved the weights: mean rewards W and L, and the choices that moved each weight most.

    W is how much more likely the chosen answers are under the attribute's prompt than under the base prompt, in nats,
    L the same of the rejected ones; W-L is the paper's unit implicit preference (Figure 6).
    """
    from .charts import shorten, signed, width
    from .render import Screen, visible

    found = existing(profile)
    for attribute in attributes or ():
        found.attributes.require(attribute)
    facts = explained(found, pairs)
    table = found.table()
    named = list(dict.fromkeys(attributes or [n for n in facts if table[n].active]))
    if as_json:
        Screen().json({"pairs": found.n, "reduction": found.settings.reduction, "attributes": facts})
        return
    typer.echo(summary(found))
    if not found.n:
        return
    listed = list(facts) if everything else list(dict.fromkeys([*list(facts)[:_STRONGEST], *named]))
    listed = named if attributes else listed
    columns = max(map(len, listed))
    typer.echo("\nmean over the choices, in nats:")
    typer.echo(f"{'':<{columns}}  {'W':>9}  {'L':>9}  {'W-L':>9}  {'weight':>7}")
    for name in listed:
        fact = facts[name]
        numbers = "  ".join(f"{signed(fact[key]):>9}" for key in ("W", "L", "preference"))
        typer.echo(f"{name:<{columns}}  {numbers}  {signed(fact['weight']):>7}")
    for name in named:
        if facts[name]["moved_by"]:
            typer.echo(f"\n{name}: moved most by")
        for moved in facts[name]["moved_by"]:
            prompt = shorten(visible(moved["prompt"]), width() - 29)
            typer.echo(f"  {signed(moved['d'], 2):>7}  {moved['id']}  {prompt}")
            for key in ("chosen", "rejected"):
                typer.echo(f"           {key:<8}  {shorten(visible(moved[key]), width() - 21)}")


def choices(
    name: Name = None,
    profile: ProfileFlag = None,
    last: Annotated[int, typer.Option(min=1, help="How many, the last ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the choices that the profile keeps, with the ids that `forget` takes."""
    from itertools import islice

    from .charts import shorten, width
    from .render import Screen, visible

    found = existing(name, profile)
    kept = list(found.choices())
    shown = list(islice(kept, max(0, len(kept) - last), None))
    if as_json:
        told = [{"id": c.id, "scored": c.scores is not None, **c.pair.to_dict(), "time": c.time} for c in shown]
        Screen().json({"choices": told, "of": len(kept)})
        return
    if not kept:
        typer.echo("no choice is kept" if found.settings.journal else "this profile keeps numbers alone (--no-journal)")
    for c in shown:
        typer.echo(f"{c.id}  {_minute(c.time)}  {shorten(visible(c.pair.messages[-1]['content']), width() - 36)}")
        marks = ("equal", "equal") if c.pair.tie else ("chosen", "rejected")
        for mark, text in zip(marks, (c.pair.chosen, c.pair.rejected), strict=True):
            typer.echo(f"  {mark:<8}  {shorten(visible(text), width() - 12)}")
    if len(kept) > len(shown):
        typer.echo(f"... and {len(kept) - len(shown):,} before; --last shows more")


def history(name: Name = None, profile: ProfileFlag = None, everything: _ALL = False, as_json: AsJson = False) -> None:
    """Show how the weights came to be what they are: first, course and now."""
    from .charts import counted, curve, glyphs, signed, width
    from .render import Screen

    found = existing(name, profile)
    steps = found.history
    if as_json:
        Screen().json({"history": [{"time": s.time, "n": s.n, "weights": dict(s.weights)} for s in steps]})
        return
    typer.echo(summary(found))
    if not steps:
        return
    table = found.table()
    ranked = sorted(table, key=lambda n: -abs(table[n].weight))
    names = ranked if everything else [n for n in ranked if table[n].active] or ranked[:1]
    typer.echo(f"{counted(len(steps), 'step')}, {_minute(steps[0].time)} to {_minute(steps[-1].time)}\n")
    draw = glyphs()
    columns = max(map(len, names))
    values = {n: [s.weights.get(n, 0.0) for s in steps] for n in names}
    low, high = min(0.0, *(min(v) for v in values.values())), max(0.0, *(max(v) for v in values.values()))
    for n in names:
        drawn = curve(values[n], max(8, min(64, width() - columns - 20)), draw, low, high)
        typer.echo(f"{n:<{columns}}  {signed(values[n][0])}  {drawn}  {signed(values[n][-1])}")


def path(name: Name = None, profile: ProfileFlag = None, as_json: AsJson = False) -> None:
    """Print where the profile is, or would be."""
    from drift_edge.profile import profile_path

    from .render import Screen

    where = profile_path(profile_name(name, profile))
    if as_json:
        Screen().json({"path": str(where), "exists": where.exists()})
    else:
        typer.echo(where)


def summary(profile: Profile) -> str:
    """Whose profile it is, what it was learned from and how, in two lines at most."""
    from .charts import counted

    settings, more = profile.settings, []
    if profile.ties:
        more.append(counted(profile.ties, "tie"))
    if profile.pending:
        more.append(f"{profile.pending} not scored yet")
    facts = f" ({', '.join(more)})" if more else ""
    strong = f"beta {settings.beta:g}" if settings.strength is None else f"strength {settings.strength:g}"
    how = f"{settings.estimator}, {settings.reduction} over tokens, {strong}"
    by = f", scored by {profile.slm.name}" if profile.slm else ""
    return f"{profile.path}: {counted(profile.n, 'choice')}{facts}\n{how}{by}"


def weight_rows(profile: Profile) -> list[WeightRow]:
    """Every attribute, the strongest first, with what is special about it."""
    from .charts import WeightRow, signed

    settings, rows = profile.settings, []
    table = profile.table()
    most = max((weight.n for weight in table.values()), default=0.0)
    for name, weight in table.items():
        notes = ["active"] if weight.active else []
        notes += [word for word, names in (("pinned", settings.pinned), ("blocked", settings.blocked)) if name in names]
        if weight.learned is not None:
            notes.append(f"set by hand, learned {signed(weight.learned)}")
        error = math.nan if weight.se is None else weight.se
        scored = f"scored in {weight.n:g} of {most:g}" if weight.n < most else ""
        rows.append(WeightRow(name, weight.weight, error, ", ".join(notes), not weight.active, scored))
    return sorted(rows, key=lambda row: -abs(row.weight))


def explained(profile: Profile, pairs: int) -> dict[str, dict[str, Any]]:
    """By attribute, the largest |W - L| first: mean W, L and W - L, the weight, and what moved it most.

    Args:
        profile: with one choice or more, or all numbers are 0.
        pairs: how many choices of each attribute.
    """
    import numpy as np

    statistics, table = profile.statistics, profile.table()
    W, L, mean = (statistics.mean(total) for total in (statistics.sum_w, statistics.sum_l, statistics.sum_d))
    kept, rewards_w, rewards_l = profile.rewards()
    D = rewards_w - rewards_l
    names = list(profile.attributes)
    facts: dict[str, dict[str, Any]] = {}
    for i in np.argsort(-np.abs(mean), kind="stable").tolist():
        most = np.argsort(-np.abs(D[:, i]), kind="stable")[:pairs].tolist()
        moved = [
            {
                "id": kept[j].id,
                "d": float(D[j, i]),
                "prompt": kept[j].pair.messages[-1]["content"],
                "chosen": kept[j].pair.chosen,
                "rejected": kept[j].pair.rejected,
            }
            for j in most
        ]
        facts[names[i]] = {
            "W": float(W[i]),
            "L": float(L[i]),
            "preference": float(mean[i]),
            "weight": table[names[i]].weight,
            "active": table[names[i]].active,
            "moved_by": moved,
        }
    return facts


def _row(name: str) -> dict[str, Any]:
    from drift_edge.profile import Profile, profile_path

    row: dict[str, Any] = {"name": name, "path": str(profile_path(name)), "pairs": None, "ties": None, "pending": None}
    try:
        profile = Profile.open(name)
    except DriftError as error:
        return {**row, "updated": None, "slm": None, "weights": None, "error": str(error)}
    return {
        **row,
        "pairs": profile.n,
        "ties": profile.ties,
        "pending": profile.pending,
        "updated": profile.to_dict()["updated"],
        "slm": profile.slm.name if profile.slm else None,
        "weights": profile.weights(),
        "error": None,
    }


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
