"""How people ask: the kinds of question, their phrasings, follow-ups, and the ways of typing them."""

from __future__ import annotations

import random

from .topics import Topic, capital

KINDS = ("how", "what", "why", "tip", "worth", "about", "problem", "start")
"""Kinds of question about a topic. "after" (the next step) exists as a follow-up only."""

FOLLOW_KINDS = ("why", "after", "worth", "tip", "problem", "about", "how", "what")

# The last two phrasings of each kind are held out of training.
_HELDOUT = 2
_PHRASINGS: dict[str, tuple[str, ...]] = {
    "how": (
        "How do I {verb}?",
        "How can I {verb}?",
        "How do you {verb}?",
        "What is the way to {verb}?",
        "Can you explain how to {verb}?",
        "Show me how to {verb}.",
        "I want to {verb}.",
        "What are the steps of {gerund}?",
        "How should I {verb}?",
        "I would like to {verb}. How does it work?",
        "Teach me how to {verb}.",
        "What do I need to do to {verb}?",
    ),
    "what": (
        "What {is} {noun}?",
        "Can you tell me what {noun} {is}?",
        "What do people mean by {noun}?",
        "Explain {noun} to me.",
        "Do you know what {noun} {is}?",
        "Describe {noun}.",
        "I do not know what {noun} {is}.",
        "What exactly {is} {noun}?",
        "How would you describe {noun}?",
    ),
    "why": (
        "Why should I {verb}?",
        "Why do people {verb}?",
        "What is the reason for {gerund}?",
        "Why would anyone {verb}?",
        "Give me a reason to {verb}.",
        "What is {gerund} good for?",
        "Why is {gerund} a good idea?",
        "What makes people {verb}?",
        "What speaks for {gerund}?",
    ),
    "tip": (
        "Do you have a tip for {gerund}?",
        "Any tips for {gerund}?",
        "Give me a tip about {noun}.",
        "What should I remember when {gerund}?",
        "What helps with {gerund}?",
        "How do I get better at {gerund}?",
        "Give me some advice on {gerund}.",
        "Do you have any advice for {gerund}?",
        "What is your best tip for {gerund}?",
    ),
    "worth": (
        "Is {gerund} worth it?",
        "Is it worth it to {verb}?",
        "Should I {verb}?",
        "What is good and bad about {gerund}?",
        "Is {gerund} a good idea?",
        "What do you think of {gerund}?",
        "What are the pros and cons of {gerund}?",
        "Is {gerund} worth the effort?",
        "Would you say that {gerund} is worth it?",
    ),
    "about": (
        "Tell me about {noun}.",
        "What can you tell me about {noun}?",
        "Tell me about {gerund}.",
        "What should I know about {noun}?",
        "I want to know more about {noun}.",
        "Say something about {noun}.",
        "What do you know about {noun}?",
        "Can you tell me something about {gerund}?",
        "I would like to learn about {noun}.",
    ),
    "problem": (
        "What can I do if {problem}?",
        "{Problem}. What can I do?",
        "What should I do when {problem}?",
        "Help, {problem}.",
        "I have a problem, {problem}.",
        "{Problem}. How do I fix that?",
        "{Problem}. Do you know what helps?",
        "What helps if {problem}?",
        "{Problem}. Any ideas?",
    ),
    "start": (
        "How do I start with {gerund}?",
        "What is the first step of {gerund}?",
        "How do I begin {gerund}?",
        "What comes first when I {verb}?",
        "I have never tried {gerund}. How do I start?",
        "What do I do first to {verb}?",
        "What is a good start for {gerund}?",
        "Where do I start if I want to {verb}?",
        "How does a beginner {verb}?",
    ),
}

_FOLLOW_UPS: dict[str, tuple[str, ...]] = {
    "why": (
        "What would be the reason?",
        "What is the benefit?",
        "Why is it good?",
        "Is there a reason for it?",
        "What do people like about it?",
        "Tell me why.",
        "Why is it important?",
        "Why would that help?",
        "What does it bring me?",
        "Explain why.",
        "Why is that?",
        "Why do that?",
        "But what for?",
        "OK, why?",
        "Why does that matter?",
        "And why?",
        "What is the reason for that?",
        "Why would anyone do that?",
        "What is that good for?",
        "What do I gain from that?",
        "What makes it a good idea?",
        "Why should anyone bother?",
        "I do not see the point. Why?",
        "Give me a reason.",
        "What is the use of it?",
        "Why bother?",
        "Why?",
        "Why should I do that?",
        "But why?",
        "Why would I do that?",
        "And why is that good?",
        "What for?",
        "And why should I?",
        "What is the point of that?",
    ),
    "after": (
        "That is done, what now?",
        "What is next?",
        "And next?",
        "Go on with the steps.",
        "What should I do now?",
        "What must I do after this?",
        "Next step, please.",
        "I am ready for the next step.",
        "How does it continue?",
        "I have done it. What follows?",
        "Tell me the next step.",
        "What next?",
        "Then what?",
        "OK, and then?",
        "Done. What next?",
        "And now?",
        "What do I do next?",
        "What do I do then?",
        "What should I do after that?",
        "What follows?",
        "Which step is next?",
        "I did that. What comes now?",
        "What is the step after that?",
        "And what then?",
        "How does it go on?",
        "Please continue with the steps.",
        "What happens next?",
        "How do I continue?",
        "And what comes after that?",
        "What comes next?",
        "And then?",
        "What do I do after that?",
        "What is the next step?",
        "And after that?",
        "How do I go on?",
        "What then?",
    ),
    "worth": (
        "Is it really a good idea?",
        "Would it be worth it?",
        "Do the good sides win?",
        "Is there more for it than against it?",
        "Does it bring enough?",
        "Does that make sense?",
        "Should one do it?",
        "Is that time well spent?",
        "Will I be glad I did it?",
        "What is your view of it?",
        "Is that a good idea?",
        "Do you think it is worth it?",
        "Is it really worth it?",
        "Would you do it?",
        "Should I try it?",
        "Is that worth the trouble?",
        "What speaks for it and what against?",
        "What are the pros and cons?",
        "Is it a good use of my time?",
        "Is it worth my time?",
        "But is it worth it?",
        "Would you recommend it?",
        "Is it worth a try?",
        "Good idea or not?",
        "Does it make sense to do it?",
        "Is it worthwhile?",
        "Is it worth it?",
        "Is that worth it?",
        "Is it a good idea?",
        "Is it worth the effort?",
        "Should I do it?",
        "What is good and bad about it?",
        "Does it pay off?",
        "So, is it worth doing?",
    ),
    "tip": (
        "Do you have a trick for me?",
        "What is a good trick?",
        "Any good advice?",
        "What should I keep in mind?",
        "Is there something that helps?",
        "What would help me?",
        "How can I do it well?",
        "Something to keep in mind?",
        "What do the experts do?",
        "Have you got some advice?",
        "Give me a tip.",
        "Some advice, please.",
        "What would you advise?",
        "Any tricks?",
        "What helps with that?",
        "Do you know a good trick?",
        "What is your best tip?",
        "Is there something I should know?",
        "How do I do it better?",
        "What makes it easier?",
        "Anything I should watch out for?",
        "One more tip, please.",
        "Tips?",
        "What is the secret?",
        "Do you know any tricks?",
        "Can you share a tip?",
        "Any tips?",
        "Do you have a tip?",
        "Do you have any advice?",
        "Can you give me a tip?",
        "What should I remember?",
        "Any advice for me?",
        "Got any tips for me?",
        "Is there a trick to it?",
    ),
    "problem": (
        "What if I make a mistake?",
        "What if there are problems?",
        "I might have trouble. What then?",
        "What do I do about trouble?",
        "What is a common problem?",
        "What if I hit a snag?",
        "And if I get into trouble?",
        "How do I deal with problems?",
        "I have a problem with it.",
        "What is the usual trouble with it?",
        "What should I do if I have a problem?",
        "What if it goes wrong?",
        "And if it goes wrong?",
        "What if there is trouble?",
        "What do I do if there is a problem?",
        "And if something breaks?",
        "What if I fail?",
        "What can I do if it does not work?",
        "It does not work. What now?",
        "What problems can there be?",
        "What if that does not help?",
        "How do I fix it if it goes wrong?",
        "And if it does not work?",
        "What if I get it wrong?",
        "What should I do if something goes wrong?",
        "What might go wrong?",
        "And when things go wrong?",
        "What if something goes wrong?",
        "What can go wrong?",
        "What if it does not work?",
        "And if there is a problem?",
        "What do I do if it goes wrong?",
        "What if I have trouble with it?",
        "And if it fails?",
        "What if I run into problems?",
    ),
    "about": (
        "More about that, please.",
        "I want more.",
        "What more can you say?",
        "Is that all?",
        "Tell me a bit more.",
        "I would like to hear the rest.",
        "What else do you know?",
        "Do go on.",
        "Could you tell me more?",
        "Let me hear some more.",
        "Can I hear more?",
        "More, please.",
        "Go on.",
        "What else?",
        "And what else?",
        "Tell me something else.",
        "Is there more?",
        "Is there anything else?",
        "Can you say more?",
        "Say more about it.",
        "Continue.",
        "Give me more details.",
        "I would like to know more.",
        "Keep going.",
        "Do you know more about it?",
        "Tell me more about that.",
        "What more is there?",
        "I am listening, go on.",
        "And?",
        "Tell me more.",
        "Can you tell me more?",
        "What else can you tell me?",
        "Please go on.",
        "Tell me more about it.",
        "What else is there to know?",
        "Anything else?",
        "I want to hear more.",
    ),
    "how": (
        "How does one do it?",
        "How is that done?",
        "How do I start?",
        "And how is it made to work?",
        "In what way?",
        "What do I do?",
        "How would you go about it?",
        "Say how.",
        "How might I do that?",
        "What is the method?",
        "How does that go?",
        "How exactly?",
        "How?",
        "OK, how?",
        "How can I do that?",
        "How should I do it?",
        "And how does that work?",
        "Explain how to do it.",
        "Tell me how.",
        "How do I go about it?",
        "What do I have to do?",
        "How do people do it?",
        "How do you do that?",
        "What is the way to do it?",
        "Teach me how to do it.",
        "But how do I do it?",
        "Can you show me how?",
        "Walk me through it.",
        "How do I do that?",
        "How does it work?",
        "And how do I do it?",
        "Show me how.",
        "What are the steps?",
        "Can you explain how to do it?",
        "How would I do it?",
        "How is it done?",
    ),
    "what": (
        "What does that word mean?",
        "What sort of thing is it?",
        "What is that thing?",
        "And what is it?",
        "What are we talking about?",
        "Please describe it.",
        "What am I to picture?",
        "Say what it is.",
        "Could you explain what it is?",
        "What do people call that?",
        "What is it?",
        "What is that, then?",
        "Explain that.",
        "What exactly is it?",
        "What does it mean?",
        "Can you say what that is?",
        "Sorry, what is that?",
        "And what exactly is that?",
        "Please explain what it is.",
        "Can you tell me what it is?",
        "What would that be?",
        "I have never heard of it. What is it?",
        "Describe it.",
        "How would you describe it?",
        "Tell me what that is.",
        "But what is it?",
        "What is that?",
        "What does that mean?",
        "What is that exactly?",
        "Can you explain what that is?",
        "And what is that?",
        "I do not know what that is.",
        "What do you mean by that?",
        "What is it, exactly?",
    ),
}

_JOINTS = ("And ", "But ", "OK, ", "So, ", "Well, ", "Thanks. ", "I see. ", "Right, ", "Good, ", "Sorry, ")

_POLITE = (
    "Please tell me, ",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Excuse me, ",
    "Sorry, ",
    "Quick question, ",
    "I was wondering, ",
    "Good morning, ",
    "Dear assistant, ",
)


def phrasings(kind: str, heldout: bool = False) -> tuple[str, ...]:
    """Question templates of a kind: those of training, or the two held out."""
    texts = _PHRASINGS[kind]
    return texts[-_HELDOUT:] if heldout else texts[:-_HELDOUT]


def follow_ups(kind: str, heldout: bool = False) -> tuple[str, ...]:
    """Follow-up questions of a kind (complete sentences): those of training, or the two held out."""
    texts = _FOLLOW_UPS[kind]
    return texts[-_HELDOUT:] if heldout else texts[:-_HELDOUT]


def ask(topic: Topic, phrasing: str) -> str:
    """Fill the slots of a question template with the topic's forms."""
    return fill(phrasing, topic)


def fill(template: str, topic: Topic) -> str:
    """Fill the topic slots of a template; clause slots such as `{step}` are left alone."""
    if "{" not in template:
        return template
    for slot, text in topic.slots.items():
        if slot in template:
            template = template.replace(slot, text)
    return template


def joined(question: str, rng: random.Random) -> str:
    """A follow-up, now and then with a word that joins it to what was said."""
    if rng.random() < 0.75 or question.startswith(_JOINTS):
        return question
    return rng.choice(_JOINTS) + _lower_first(question)


def typed(question: str, rng: random.Random, names: bool = False) -> str:
    """The question as somebody might type it: polite, without its capital, or without its end mark.

    `names` keeps the capitals inside, where they belong to a name that the answer has to copy.
    """
    draw = rng.random()
    if draw < 0.62:
        return question
    if draw < 0.72:
        question = rng.choice(_POLITE) + _lower_first(question)
        draw = rng.random()
    if draw < 0.80:
        return _lower_first(question)
    if draw < 0.90 and not names:
        return question.lower().rstrip("?.")
    return question.rstrip("?.") if draw < 0.96 or names else capital(question.lower())


def _lower_first(text: str) -> str:
    head = text.split(" ", 1)[0]
    return text if head == "I" or not head[1:].islower() else text[:1].lower() + text[1:]
