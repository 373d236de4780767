"""Everyday questions for getting to know a person: short to read, and answered in many ways."""

from __future__ import annotations

_ANY = """
How do I make a good cup of tea?
How can I fall asleep faster?
What should I cook tonight with rice, eggs and spinach?
How do I say no to an invitation without hurting anyone?
Why is the sky blue?
What is a good way to start running?
How do I apologise to a friend whom I let down?
Should I buy or rent a home?
How do I keep a houseplant alive?
What makes a good book club?
How do I prepare for a job interview?
Why do people keep a diary?
How do I get a wine stain out of a tablecloth?
What should I pack for a weekend in the mountains?
How can I spend less time on my phone?
Is it worth learning to play the piano as an adult?
How does a bicycle stay upright?
What do I write on a birthday card for a colleague?
How do I ask for a raise?
What is inflation?
How do I teach a child to swim?
Which is better for a city trip, train or car?
How do I make friends in a new town?
What is a good present for someone who has everything?
How do I keep bread fresh?
Why should I vote?
How do I calm down before an exam?
What is the best way to learn a language?
How do I split the bill fairly among friends?
What happens in the body when we laugh?
How do I start a vegetable garden on a balcony?
Is breakfast really the most important meal?
How do I tell my neighbour that the music is too loud?
What is a black hole?
How can I make my morning less stressful?
How do I choose a pair of glasses?
What should I know before adopting a dog?
How do I bake a simple cake?
Why do cats purr?
How do I save money on groceries?
What is a good plan for a rainy Sunday?
How do I give a speech at a wedding?
Do I need to stretch before exercise?
How do computers store pictures?
What should I do when I feel lonely?
How do I sharpen a kitchen knife?
What is the point of small talk?
How do I get over a lost match?
How can a family waste less food?
How do I write a letter of complaint?
What makes a city pleasant to live in?
How do I unclog a sink?
Should children have a smartphone?
How do I take better photos?
What is a healthy snack for the office?
How do I begin to draw?
How does a vaccine work?
What do I say to someone who is grieving?
How do I keep my desk tidy?
How much sleep do I need?
"""


def questions(*, builtin: bool) -> list[str]:
    """Questions in the order in which they are asked, no two alike.

    Args:
        builtin: for the built-in pair: one about each topic that it was trained on, in a phrasing that it knows. Else
            for any model.
    """
    if not builtin:
        return _ANY.strip().splitlines()
    from .nano.corpus.questions import ask, phrasings
    from .nano.corpus.splits import draw_hash, train_cells

    one_each: dict[str, str] = {}
    for topic, kind in sorted(train_cells(), key=lambda cell: draw_hash(f"onboarding {cell[0].id} {cell[1]}")):
        if kind != "what":  # defined in a sentence, whoever asks
            one_each.setdefault(topic.id, ask(topic, phrasings(kind)[0]))
    return list(one_each.values())
