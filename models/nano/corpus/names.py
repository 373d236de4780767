"""Things to ask about that are no topic: common nouns, invented words, names of people and places.

They teach the models to copy what was asked about. One name in twenty is held out of training.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from .questions import KINDS, phrasings
from .splits import heldout_noun, heldout_topics
from .styles import styles
from .topics import topics


def split_words(text: str) -> tuple[str, ...]:
    """A list of words, written as text."""
    return tuple(text.split())


_COUNT = split_words("""
    anchor ankle apron arrow atlas attic badge badger bagpipe ballot bandage banner barge barrel basin beacon
    bead beaver bell bench bishop blizzard bonnet bookcase border bottle boulder bracelet branch bridge
    brooch broom brush bubble bucket buckle bulldozer bumper button cabin cabinet cable camel canal candidate
    canyon cape captain caravan carriage castle cathedral cave ceiling cello chain chair channel chariot
    chimney chisel circus cliff cloak cloud coach coast cobweb coin collar comet compass concert continent
    corridor cottage cousin crane crater crayon crow crown crystal cupboard curtain cushion cymbal dagger dam
    desert desk diamond diary dinosaur doll dolphin donkey doorbell dragon drawer drum eagle earring elbow
    elephant elevator emperor engine envelope escalator factory falcon farmer feather fence ferry festival
    flag flamingo flute forest fork fossil fountain fox frog funnel furnace galaxy gallery garage gate ghost
    giant giraffe glacier glove goat goblet gorilla grandmother gravestone guitarist gymnast hammer hammock
    harbour harp hatchet hawk hedge helicopter helmet hinge hippo horn horse hospital hotel iceberg igloo
    iguana insect island jacket jaguar jar jellyfish jewel judge jungle kangaroo kettledrum keyhole king
    kitten knight ladder lagoon lantern laptop lawyer leaf leopard letter lever lighthouse lion lizard llama
    lobster locket lorry magnet mammoth mansion marble market mask mast meadow medal melody merchant meteor
    microscope mill miner mirror monkey monster moose mosaic mosquito motor mountain museum mustache napkin
    necklace needle nephew nest nurse oar ocean octopus office onion orchard orchestra ostrich otter owl
    oyster paddle palace panda parachute parade parrot passenger path pebble pelican pencil penguin pharaoh
    pilot pipe pirate planet platform playground plumber poet pond portrait postcard potion priest prince
    princess printer prison puddle pulley pump puppet pyramid queen rabbit raccoon racket raft railway
    rainbow razor reef referee reindeer ribbon river rocket roof rope rose ruby ruler saddle sail sailor
    satellite saw scarecrow school scooter scorpion screw sculpture seal senator shadow shark shelf shell
    sheriff ship shovel sink skeleton skull skyscraper sledge snail soldier spear spider spoon squid squirrel
    stadium staircase statue storm stove street submarine suitcase swan sword table tailor tank tavern
    teacher telescope temple theatre thief throne thunderstorm tiger toad tower tractor train trumpet tunnel
    turbine turtle tyrant umbrella unicorn uniform university valley vampire vase vault violin volcano
    vulture waiter wagon wall walrus warehouse waterfall whale wheel whistle windmill wing witch wizard wolf
    zebra zipper
    accordion acorn acrobat airport alarm album alley ambulance apartment aquarium armchair auction aunt
    author avenue avocado axe backpack bakery balcony ballet banana banker bargain barn baseball bathroom battery
    bay beard bedroom beetle belt biscuit blade blossom bone bonfire boot bowl boxer brain bride brochure bucket
    bullet bunker burglar butcher butterfly calculator calendar canteen carpenter carrot cartoon cashier castle
    caterpillar cave cellar cemetery century champion chapel charger cherry chess chest church cinema citizen
    clarinet classroom clerk clinic clown cockpit coconut college column comb comedy commander compartment computer
    cook cork costume cottage council counter cowboy crab cradle cricket crossroad cruise cube customer cyclist
    dancer deadline debate deer dentist detective diagram dictionary ditch diver document dolphin dome drawing
    driver duchess dungeon dwarf earthquake editor egg electrician elk embassy entrance eraser essay evening
    exhibition explorer eyebrow fairy fair farm fang finger firefighter flashlight fleet flood florist folder
    footprint fortress freight fridge fringe gadget gardener gem germ glacier goal gown grape grasshopper guard
    guest gutter hairdresser hallway handle hawk headline heart heel hero highway hill hobby hole holiday honeycomb
    hook hostel hurricane hut icicle idea inventor invitation invoice jeweller joke journalist journey jug juggler
    ketchup kettle kingdom kiosk label laboratory landlord lane lecture legend lemon library lifeguard lightbulb
    limousine lion lounge luggage magazine magician mailbox manager manuscript map marathon mayor maze meal mechanic
    microphone minister mission mole monk monument moth motorbike moustache movie mug mural muscle musician mystery
    nail nanny navigator neighbour neon newsreader noodle notebook novel number nut oak opera opinion outfit oven
    package painter pamphlet parcel parliament party passport pastry patient pavement peacock peanut pear pepper
    perfume photo photographer pigsty pillow pin pine pistachio plate player pocket podcast police polka porcupine
    porter possum pot pottery president priest prize professor project proposal pub pupil purse quarrel quarry quilt
    quiz radish ranch rash rat receipt recipe recorder refund region remedy restaurant rhino riddle rifle ring
    robin robot roundabout rug rumour safari salmon sandwich sausage saxophone scale scar scholar scientist scissor
    script season secretary servant shepherd shore shrimp signal singer sister skier skirt sleeve slogan smile soap
    sofa song spark spider spy stage stair stall stamp star station statue stomach stool strawberry stream student
    suburb subway suit sunset surgeon surprise swamp sweater symbol tadpole target taxi teaspoon tenant tent term
    terrace text thesis thimble thorn thread thumb ticket tile timetable tomb tongue torch tourist town toy trailer
    treasure tribe truck tulip turnip tutor twig twin tyre uncle vaccine van vegetable vehicle verse village villain
    violet visitor voice voyage wallet warrior washer watch web weekend weed whisker widow window workshop world
    worm wreck wrist writer yacht yard year yolk zoo
""")

_MASS = split_words("""
    amber asphalt bamboo bronze cement chalk clay coal concrete copper cotton dust electricity fog gold
    granite gravel gravity history ice iron ivory jazz justice lava leather lightning limestone linen logic
    magic mercury mist money moonlight mud music nylon oil oxygen paper petrol philosophy physics plastic
    poetry rain rubber sand satin silk silver smoke snow steam steel sulphur sunlight thunder time trade
    velvet water wax weather wind wood wool zinc
""")

ADJECTIVES = split_words("""
    ancient bent big bitter black blue borrowed bright brittle broken brown burnt cheap clean clever cold cracked
    creaking crooked curious dark dented dirty dry dusty empty expensive faded famous fast flat floating folding
    forgotten fragile fresh frozen giant glowing golden greasy green grey heavy hidden hollow huge humming iron
    leaking little locked lonely long loose lost loud lucky melting muddy narrow new noisy old orange painted
    pink plain polished portable purple quiet rattling red rented rotten round rusty salty scratched secret
    shaking sharp shiny short silent silver singing sleeping slippery slow small smoking soft sour spare
    spinning spotted square squeaking steep sticky strange striped stubborn swollen tall tangled thick thin
    tiny torn twisted uneven unfinished warm wet white wide wild wobbly wooden worn wrinkled yellow young
""")

_FIRST = split_words("""
    Ada Aisha Alan Amir Anna Arjun Astrid Ben Bianca Carlos Chen Clara Dana Daniel Diego Elena Emil Emma
    Farid Fatima Felix Finn Freya George Grace Hana Hassan Helen Hugo Ida Igor Ines Ivan Jack Jana Jonas
    Julia Kai Karim Kenji Lars Laura Leila Leo Lina Louis Lucia Luis Maja Marco Maria Mark Maya Mei Mila Mina
    Mira Nadia Nils Nina Noah Nora Olga Oscar Otto Paul Pedro Petra Priya Rafael Rania Ravi Rosa Ruth Sam
    Sara Sofia Stefan Tara Theo Tom Uma Vera Victor Wanda Yara Yuki Zara Zoe
""")

_PLACES = split_words("""
    Accra Ankara Athens Baku Basel Beirut Bergen Berlin Bogota Boston Brazil Cairo Canada Chicago Chile China
    Cuba Dakar Delhi Denmark Denver Dublin Egypt Fiji Finland France Geneva Ghana Greece Hanoi Havana Iceland
    India Ireland Italy Jakarta Japan Kenya Kyoto Lagos Lima Lisbon London Madrid Mali Malta Manila Mars
    Mexico Milan Nairobi Nepal Norway Osaka Oslo Paris Peru Poland Porto Prague Quito Rome Samoa Santiago
    Seoul Seville Sofia Spain Sweden Sydney Tehran Texas Tokyo Tunis Turin Uganda Vienna Warsaw Yemen Zagreb
    Zambia Zurich
""")

_ONSETS = split_words("""
    b bl br c ch cl cr d dr f fl fr g gl gr h j k kr l m n p pl pr qu r s sh sk sl sm sn sp st str t th tr v
    w y z
""")
_VOWELS = split_words("""
    a a a e e e i i i o o o u ee oo ai
""")
_CODAS = (
    split_words("""
    b ck d ff g l ll m mp n nd ng nk nt p r rd rk rn s sh sk st t th x zz
""")
    + ("",) * 6
)
_ENDINGS = split_words("""
    a al an ar ax el en er et ex ia ic il in ing is it le o ock oid on op or ot ox um us y
""")

# Syllables meet by chance; these meetings are not wanted.
_RUDE = re.compile("shit|fuc|fuk|cunt|dick|cock|tit|ass|nig|fag|slut|twat|piss|cum|sex|rape|hor|jew|nazi|poo|pee|anus")

_SOUNDS_LIKE_YOU = ("uni", "use", "eu", "one", "u-")


@dataclass(frozen=True, slots=True)
class Thing:
    """Something to ask about.

    Attributes:
        noun: with its article if it needs one ("a lantern", "lanterns", "Oslo").
        bare: without it ("lantern").
        sort: "thing", "stuff", "person" or "place".
        plural: whether a sentence about it takes "are".
    """

    noun: str
    bare: str
    sort: str
    plural: bool = False


def article(word: str) -> str:
    """The word with "a" or "an"."""
    vowel = word[0].lower() in "aeiou" and not word.lower().startswith(_SOUNDS_LIKE_YOU)
    return f"{'an' if vowel or word.startswith(('hour', 'honest', 'heir')) else 'a'} {word}"


def plural_of(word: str) -> str:
    """The regular plural of a noun."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


_SHORT = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")


def gerund_of(verb: str) -> str:
    """The -ing form by rule: "mend", "mending"; "plan", "planning"; "dine", "dining"; "tie", "tying"."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _SHORT.fullmatch(verb) else "") + "ing"


_IRREGULAR = {
    "leaf": "leaves",
    "shelf": "shelves",
    "thief": "thieves",
    "wolf": "wolves",
    "hippo": "hippos",
    "reindeer": "reindeer",
    "squid": "squid",
    "moose": "moose",
}


@cache
def _topic_words() -> frozenset[str]:
    return frozenset(word for topic in topics() for word in f"{topic.key} {topic.noun}".lower().split())


@cache
def _pool(name: str, heldout: bool) -> tuple[str, ...]:
    words = {"count": _COUNT, "mass": _MASS, "first": _FIRST, "place": _PLACES}[name]
    taken = _topic_words()
    return tuple(
        word for word in words if heldout_noun(word) == heldout and word not in taken and plural_of(word) not in taken
    )


@cache
def _words_of_training(at_least: int = 1) -> tuple[str, ...]:
    """Every word of two letters or more that training's questions and answers use so often, less what is held out.

    A piece of a word that was never copied cannot be: the way from reading it to saying it is learned piece by piece.
    Nearly half of the vocabulary is in no name at all ("part", "begin"), so names are made of the other words too.
    """
    texts = [word for name in ("count", "mass") for word in _pool(name, False)]
    texts += [template for kind in KINDS for template in phrasings(kind)]
    for topic in topics():
        if topic.id not in heldout_topics():
            texts += [topic.noun, topic.verb, topic.problem, *(clause.text for clause in topic.all())]
    for style in styles():
        texts += (*style.openers, *style.asides, *style.closers)
    found = Counter(re.findall(r"[a-z]{2,}", re.sub(r"\{\w+\}", " ", " ".join(texts)).lower()))
    return tuple(sorted(word for word, n in found.items() if n >= at_least and not heldout_noun(word)))


@cache
def _parts() -> tuple[str, ...]:
    """The longer of those words: to cut up and to join anew."""
    return tuple(word for word in _words_of_training() if len(word) >= 4)


def any_word(rng: random.Random) -> str:
    """A word of training's, whatever its part of speech; one in four has the tail of another ("party", "begling").

    Common words, each of which is a piece by itself to a tokenizer, come more often.
    """
    while True:
        word = rng.choice(_words_of_training(4 if rng.random() < 0.6 else 1))
        if rng.random() < 0.25:
            tail = rng.choice(_parts())
            word += tail[-rng.randint(1, 3) :]
        if len(word) <= 12 and not _RUDE.search(word) and not heldout_noun(word):
            return word


def _spliced(rng: random.Random) -> str:
    """The head of one real word and the tail of another: "lanphone", "octoach"."""
    head, tail = rng.choice(_parts()), rng.choice(_parts())
    return head[: rng.randint(2, len(head) - 1)] + tail[-rng.randint(2, len(tail) - 1) :]


def invented(rng: random.Random, heldout: bool = False) -> str:
    """A made-up word: of two or three syllables that sound like one ("zorbel", "plinta"), or of two halves of others.

    Copying is learned for the pieces that a tokenizer cuts such words into, so these have to be of every kind.
    """
    while True:
        if rng.random() < 0.6:
            word = _spliced(rng)
            if 4 <= len(word) <= 12 and not _RUDE.search(word) and heldout_noun(word) == heldout and word not in _all():
                return word
            continue
        word = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        if rng.random() < 0.3:
            word += rng.choice("bdfgklmnprstvz") + rng.choice("aeiou")
        if word[-1] in "aeiou":
            word += rng.choice("bdfgklmnprstvz")
        word += rng.choice(_ENDINGS)
        if 4 <= len(word) <= 11 and not _RUDE.search(word) and heldout_noun(word) == heldout:
            return word


@cache
def _all() -> frozenset[str]:
    return _topic_words() | frozenset((*_COUNT, *_MASS, *_FIRST, *_PLACES, *ADJECTIVES))


def person(rng: random.Random, heldout: bool = False) -> str:
    """A first name, often with an invented family name."""
    first = rng.choice(_pool("first", heldout))
    return first if rng.random() < 0.4 else f"{first} {invented(rng, heldout).capitalize()}"


def first_name(rng: random.Random, heldout: bool = False) -> str:
    """A first name alone, invented now and then."""
    return rng.choice(_pool("first", heldout)) if rng.random() < 0.75 else invented(rng, heldout).capitalize()


def place(rng: random.Random, heldout: bool = False) -> str:
    """A city or country, real or invented."""
    return rng.choice(_pool("place", heldout)) if rng.random() < 0.6 else invented(rng, heldout).capitalize()


def substance(rng: random.Random, heldout: bool = False) -> str:
    """Something that is not counted, real or invented."""
    if not heldout and rng.random() < _ANY_WORD:
        return any_word(rng)
    return rng.choice(_pool("mass", heldout)) if rng.random() < 0.6 else invented(rng, heldout)


def thing(rng: random.Random, heldout: bool = False) -> Thing:
    """Draw something to ask about; `heldout` draws from the names that training never uses."""
    draw = rng.random()
    if draw < 0.08:
        name = person(rng, heldout)
        return Thing(name, name, "person")
    if draw < 0.18:
        name = place(rng, heldout)
        return Thing(name, name, "place")
    if draw < 0.32:
        stuff = substance(rng, heldout)
        return Thing(stuff, stuff, "stuff")
    return _countable(rng, heldout)


_ANY_WORD = 0.5
"""Share of training's things, counted or not, that are named by words of any kind."""


def _countable(rng: random.Random, heldout: bool) -> Thing:
    if not heldout and rng.random() < _ANY_WORD:
        chosen = [any_word(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
        bare, plural = " ".join(chosen), chosen[-1].endswith("s")
        return Thing(bare, bare, "thing", plural) if plural else Thing(article(bare), bare, "thing")
    draw = rng.random()
    real = rng.choice(_pool("count", heldout))
    if draw < 0.34:
        bare, many = real, _IRREGULAR.get(real) or plural_of(real)
    elif draw < 0.56:
        bare = invented(rng, heldout)
        many = plural_of(bare)
    elif draw < 0.76:
        head = real if rng.random() < 0.7 else invented(rng, heldout)
        adjective = rng.choice(ADJECTIVES)
        bare, many = f"{adjective} {head}", f"{adjective} {_IRREGULAR.get(head) or plural_of(head)}"
    else:
        draw = rng.random()  # a word that training knows well has to be copied too, when it meets one it never met
        first = real if draw < 0.3 else rng.choice(_parts()) if draw < 0.75 else invented(rng, heldout)
        last = rng.choice(_pool("count", heldout) if heldout or rng.random() < 0.6 else _parts())
        bare, many = f"{first} {last}", f"{first} {_IRREGULAR.get(last) or plural_of(last)}"
    if rng.random() < 0.35:
        return Thing(many, many, "thing", plural=True)
    return Thing(article(bare), bare, "thing")
