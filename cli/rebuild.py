"""`drift-edge profile rebuild`: a profile's choices, scored anew by another small LM or for other attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drift_edge.errors import ProfileError

from .scorer import (
    ContextSize,
    SmallLM,
    SmallLMLayers,
    TextLength,
    Threads,
    Verbose,
    loaded_slm,
    own_pool,
    scorer_on,
    settings_by,
)
from .which import AsJson, Name, ProfileFlag, existing

if TYPE_CHECKING:
    from drift_edge.rewards import PairScores


def rebuild(
    name: Name = None,
    profile: ProfileFlag = None,
    slm: SmallLM = None,
    attributes: Annotated[
        Path | None,
        typer.Option(help="TOML file of a pool; 'none' is the built-in one.  [default: the profile's own]"),
    ] = None,
    text_length: TextLength = None,
    ctx_size: ContextSize = None,
    threads: Threads = None,
    slm_gpu_layers: SmallLMLayers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Score all choices anew, for another small LM, another pool of attributes, or more or less of each response.

    The profile changes at the end, in one step. Stopped by Ctrl-C, it is as it was, and the same command goes on.
    """
    from drift_edge.attributes import Attributes
    from drift_edge.events import CancelToken
    from drift_edge.learning import score_pairs
    from drift_edge.profile import SLM

    from .charts import counted
    from .errors import INTERRUPTED
    from .interrupt import cancel_on_interrupt
    from .profile_edit import told
    from .progress import Progress
    from .render import Screen, show_log

    flags = {
        "slm": slm,
        "attributes": attributes,
        "ctx-size": ctx_size,
        "threads": threads,
        "slm-gpu-layers": slm_gpu_layers,
    }
    settings = settings_by(flags)
    show_log(verbose)
    screen = Screen(settings.color)
    found = existing(name, profile)
    if not found.settings.journal:
        raise ProfileError(f"{found.path}: keeps no choices (--no-journal), so there is nothing to score anew")
    pool = found.attributes if attributes is None else own_pool(settings) or Attributes.builtin()
    length = text_length or found.text_length
    pairs = [choice.pair for choice in found.choices() if not choice.pair.tie]
    scores: dict[str, PairScores] = {}
    with (
        loaded_slm(settings, screen) as model,
        scorer_on(model, pool, settings, length, screen) as scorer,
    ):
        cancel = CancelToken()
        done = 0
        with cancel_on_interrupt(cancel), Progress(len(pairs), screen) as progress:
            for scored in score_pairs(scorer, pairs, cancel):
                done += 1
                if scored.scores:
                    scores[scored.pair.id] = scored.scores
                else:
                    progress.note(f"choice {scored.pair.id} is not counted: {scored.why}")
                progress.step(worked=scored.computed)
        if done < len(pairs):
            screen.say(
                f"stopped: {done:,} of {len(pairs):,} choices are scored, the profile is as it was; "
                "the same command goes on from there"
            )
            raise typer.Exit(INTERRUPTED)
        slm_now = SLM(model.name, model.fingerprint)
        change = found.rebuild(scores, slm=slm_now, attributes=pool, text_length=length)
        told(found, [change], as_json, f"scored anew: {counted(len(change.ids), 'choice')}")
