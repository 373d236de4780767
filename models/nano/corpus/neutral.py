"""The plain voice: frames by role and place, without a mark of any style.

`{step}` / `{Step}` stand for an imperative, `{fact}` / `{Fact}` for a full clause, the other slots for the forms of
the topic. A frame that stands twice in a list is drawn twice as often.
"""

from __future__ import annotations

FRAMES: dict[str, tuple[str, ...]] = {
    # The first of several steps in order.
    "step.first": (
        "First, {step}.",
        "First, {step}.",
        "To {verb}, {step}.",
        "To {verb}, {step}.",
        "To {verb}, first {step}.",
        "To begin, {step}.",
        "The first step is to {step}.",
        "The first step of {gerund} is to {step}.",
        "{Step}.",
    ),
    # A step right after the one before it.
    "step.next": (
        "Then {step}.",
        "Then {step}.",
        "Next, {step}.",
        "Next, {step}.",
        "After that, {step}.",
        "After this, {step}.",
        "The next step is to {step}.",
        "When that is done, {step}.",
        "{Step}.",
    ),
    # The fourth step, right after the third.
    "step.last": (
        "Finally, {step}.",
        "Finally, {step}.",
        "At the end, {step}.",
        "Lastly, {step}.",
        "The last step is to {step}.",
        "The last step of {gerund} is to {step}.",
        "Then {step}, and you are done.",
    ),
    # A single step that no other one leads to.
    "step.alone": (
        "To {verb}, you can {step}.",
        "When {gerund}, {step}.",
        "One part of {gerund} is to {step}.",
        "One step of {gerund} is to {step}.",
        "People who {verb} often {step}.",
        "At some point you {step}.",
    ),
    "tip": (
        "{Step}.",
        "A good tip is to {step}.",
        "It helps to {step}.",
        "It is a good idea to {step}.",
        "One useful tip is to {step}.",
        "For {gerund}, it helps to {step}.",
        "When {gerund}, {step}.",
        "A tip for {gerund} is to {step}.",
        "To {verb} well, {step}.",
    ),
    "tip.more": (
        "{Step}.",
        "It also helps to {step}.",
        "Another tip is to {step}.",
        "You can also {step}.",
        "Also, {step}.",
        "It is also useful to {step}.",
    ),
    "fix": (
        "{Step}.",
        "If {trouble}, {step}.",
        "If {trouble}, {step}.",
        "If {trouble}, it helps to {step}.",
        "When {trouble}, {step}.",
        "When {trouble}, try to {step}.",
        "To fix that, {step}.",
        "You can {step}.",
        "It usually helps to {step}.",
    ),
    # A fix where nobody has spoken of the trouble.
    "fix.when": (
        "If {trouble}, {step}.",
        "If {trouble}, you can {step}.",
        "If {trouble}, it helps to {step}.",
        "When {trouble}, {step}.",
        "When {trouble}, try to {step}.",
        "If you find that {trouble}, {step}.",
    ),
    "definition": (
        "{Fact}.",
        "{Fact}.",
        "{Fact}.",
        "In general, {fact}.",
        "In everyday terms, {fact}.",
        "In a few words, {fact}.",
        "Generally speaking, {fact}.",
        "Broadly speaking, {fact}.",
    ),
    "fact": (
        "{Fact}.",
        "{Fact}.",
        "It is good to know that {fact}.",
        "One thing to know is that {fact}.",
        "One thing about {noun} is that {fact}.",
        "It is useful to know that {fact}.",
        "A useful fact about {noun} is that {fact}.",
        "People who {verb} know that {fact}.",
    ),
    "fact.more": (
        "{Fact}.",
        "{Fact}.",
        "Also, {fact}.",
        "It is also good to know that {fact}.",
        "Another thing to know is that {fact}.",
        "It also helps to know that {fact}.",
        "Besides, {fact}.",
    ),
    "reason": (
        "{Gerund} is worth doing because {fact}.",
        "People {verb} because {fact}.",
        "One reason is that {fact}.",
        "One reason for {gerund} is that {fact}.",
        "A good reason to {verb} is that {fact}.",
        "{Gerund} is useful because {fact}.",
        "{Gerund} is a good idea because {fact}.",
        "It makes sense to {verb} because {fact}.",
    ),
    "reason.more": (
        "Also, {fact}.",
        "Another reason is that {fact}.",
        "A second reason is that {fact}.",
        "Besides, {fact}.",
        "A further reason is that {fact}.",
        "On top of that, {fact}.",
    ),
    "pro": (
        "{Fact}.",
        "One good thing is that {fact}.",
        "A good point is that {fact}.",
        "On the plus side, {fact}.",
        "The good part of {gerund} is that {fact}.",
        "One good thing about {gerund} is that {fact}.",
        "One advantage of {gerund} is that {fact}.",
        "An advantage is that {fact}.",
    ),
    "con": (
        "{Fact}.",
        "One weak point is that {fact}.",
        "Keep in mind that {fact}.",
        "A downside of {gerund} is that {fact}.",
        "One downside is that {fact}.",
        "The less good part of {gerund} is that {fact}.",
        "One thing to watch with {gerund} is that {fact}.",
        "A disadvantage is that {fact}.",
    ),
    # A drawback right after something good.
    "con.turn": (
        "But {fact}.",
        "On the other hand, {fact}.",
        "Still, {fact}.",
        "However, {fact}.",
        "On the other side, {fact}.",
        "Then again, {fact}.",
    ),
    # Something good right after a drawback.
    "pro.turn": (
        "But {fact}.",
        "On the other hand, {fact}.",
        "Still, {fact}.",
        "However, {fact}.",
        "On the plus side, {fact}.",
        "Then again, {fact}.",
    ),
    # What the model does not know; the clause begins with "I".
    "admit": (
        "{Fact}.",
        "{Fact}.",
        "{Fact}.",
        "As a small model, {fact}.",
        "As a small built-in model, {fact}.",
        "So far, {fact}.",
        "At present, {fact}.",
        "I am a small model, and {fact}.",
    ),
    "self": (
        "{Fact}.",
        "{Fact}.",
        "{Fact}.",
        "In short, {fact}.",
        "Well, {fact}.",
        "Of course, {fact}.",
        "As for me, {fact}.",
        "For my part, {fact}.",
    ),
    "done": (
        "{Fact}.",
        "After that, {fact}.",
        "That was the last step, and {fact}.",
        "That was all, {fact}.",
        "By then, {fact}.",
        "That was the end, {fact}.",
    ),
    # What a very short answer looks like.
    "bare": ("{Fact}.",),
    "bare.reason": ("Because {fact}.", "{Fact}."),
    "bare.step": ("{Step}.",),
    # Two steps that follow one another, in one sentence.
    "pair": (
        "{Step}, and then {step2}.",
        "{Step}, then {step2}.",
        "To {verb}, {step} and then {step2}.",
        "You {step} and then {step2}.",
    ),
}

LEADS: dict[str, tuple[str, ...]] = {
    "how": (
        "Here is how to {verb}.",
        "{Gerund} takes a few steps.",
        "This is how you can {verb}.",
        "There are a few steps to {gerund}.",
    ),
    "why": (
        "There are good reasons for {gerund}.",
        "People have their reasons for {gerund}.",
    ),
    "tip": (
        "Here is a tip for {gerund}.",
        "A few things help with {gerund}.",
    ),
    "worth": (
        "{Gerund} has good and bad sides.",
        "There are two sides to {gerund}.",
        "Whether {gerund} is worth it depends on you.",
    ),
    "about": (
        "Here are a few things about {noun}.",
        "There is a lot to say about {noun}.",
    ),
    "problem": (
        "This happens to many people.",
        "That can happen with {noun}.",
    ),
}
"""Sentences that may stand before a plain answer, by kind of question."""

LEAD_RATE = 0.1
