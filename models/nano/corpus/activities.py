"""Everyday things to do that are no topic: what a question about a topic looks like, without a known answer.

Each group joins its verbs with its objects. Without them the models would take any everyday question for one of the
topics, and answer with the clauses of another.
"""

from __future__ import annotations

from functools import cache

_GROUPS: tuple[tuple[str, str], ...] = (
    (
        "bake/baking cook/cooking prepare/preparing make/making serve/serving eat/eating order/ordering",
        "a muffin, a pretzel, a cheesecake, a pork chop, a meat loaf, a lobster roll, a fruit salad, a peach cobbler, "
        "a waffle cone, a croissant, a brioche, a paella, a casserole, a fondue, a burrito, a samosa, a strudel, "
        "a crepe, a kebab, a falafel, a bagel, a donut, a meringue, a souffle, nougat, marzipan, tofu, couscous, "
        "polenta, goulash, sushi, ramen, gnocchi, sauerkraut, kimchi, ratatouille, tiramisu, macaroons, nachos, "
        "pancetta, quinoa, oatcakes, fudge, caramel, ketchup, mustard, mayonnaise, pesto, guacamole, bouillon",
    ),
    (
        "grow/growing plant/planting water/watering prune/pruning harvest/harvesting buy/buying",
        "a lemon tree, a fern, a palm, a bonsai, a vine, a lily, a daisy, a lavender bush, a fig tree, a bramble, "
        "pumpkins, radishes, beetroot, lettuce, parsley, asparagus, celery, leeks, turnips, artichokes, blueberries, "
        "gooseberries, daffodils, violets, poppies, marigolds, geraniums, hydrangeas, ivy, moss, hops, barley",
    ),
    (
        "play/playing learn/learning practise/practising teach/teaching enjoy/enjoying try/trying",
        "the banjo, the trombone, the saxophone, the harmonica, the accordion, the ukulele, the clarinet, badminton, "
        "cricket, hockey, volleyball, table tennis, golf, rugby, baseball, basketball, handball, croquet, darts, "
        "billiards, dominoes, backgammon, poker, karate, judo, fencing, archery, surfing, skiing, rowing, sailing, "
        "calligraphy, origami, ballet, tap dancing, sign language, magic tricks, stage acting, algebra, astronomy",
    ),
    (
        "repair/repairing clean/cleaning buy/buying sell/selling choose/choosing use/using move/moving",
        "a toaster, a blender, a radiator, a dishwasher, a washing machine, a freezer, a microwave, a heater, a fan, "
        "a lawn chair, a garden hose, a wheelbarrow, a rake, a doormat, a coat hook, a shoe rack, a bathtub, a shower "
        "head, a bunk bed, a rocking chair, a bean bag, a blanket, a duvet, a tablecloth, a teapot, a wok, a grater, "
        "a whisk, a thermos, a lunch box, a wristwatch, an alarm clock, a radio, a keyboard, a monitor, a printer "
        "cable, a router, a headset, a tripod, a rucksack, a sleeping bag, a canoe, a snowboard, skates, binoculars, "
        "sandals, wellington boots, sunglasses, a raincoat, a necktie, a cardigan, jeans, a ball gown",
    ),
    (
        "keep/keeping feed/feeding train/training raise/raising photograph/photographing",
        "a hamster, a guinea pig, a ferret, a tortoise, a gecko, a canary, a hedgehog, a pony, a piglet, a lamb, "
        "ducks, geese, turkeys, pigeons, snails, stick insects, ants, silkworms, trout, sheep, cows, alpacas",
    ),
    (
        "plan/planning organise/organising visit/visiting attend/attending host/hosting book/booking",
        "a wedding, a picnic, a barbecue, a quiz night, a flea market, a school trip, a bus tour, a cruise, a ski "
        "holiday, a film festival, a zoo visit, a garden fete, a street fair, a board game evening, a reunion, "
        "a funeral, a christening, a charity run, a book club, a cooking class, a guided tour, a treasure hunt",
    ),
    (
        "write/writing read/reading finish/finishing correct/correcting print/printing publish/publishing",
        "a diary, a poem, a short story, a comic, a biography, a cover letter, a report, a speech, a newspaper, "
        "a cookbook, a travel guide, a love letter, a blog, a contract, a thank-you card, a recipe book, a play, "
        "a screenplay, song lyrics, minutes, a manual, an invoice",
    ),
    (
        "build/building paint/painting measure/measuring install/installing remove/removing design/designing",
        "a treehouse, a sandpit, a fence post, a garden shed, a birdhouse, a bench seat, a workbench, a staircase "
        "gate, a fireplace, a chimney pot, a wardrobe door, a ceiling fan, a smoke alarm, a doorbell chime, roof "
        "tiles, wallpaper, a parquet floor, a kitchen sink, a window blind, a letter box, a solar panel, "
        "a rain barrel, a model railway, a snowman, a sandcastle, a raft house, a dolls' house, a rabbit hutch",
    ),
    (
        "treat/treating prevent/preventing understand/understanding handle/handling avoid/avoiding discuss/discussing",
        "a headache, a sprained ankle, a nosebleed, a fever, a sore throat, a backache, sunburn, hay fever, a blister, "
        "a cramp, hiccups, jet lag, seasickness, homesickness, stage fright, boredom, gossip, an argument, noise, "
        "a traffic jam, a power cut, a flood, frost, damp, mould, moths, mice, wasps, a debt, a fine",
    ),
)


@cache
def activities() -> tuple[tuple[str, str, str], ...]:
    """Every (verb, its -ing form, object with its article), without regard to what is held out."""
    found = []
    for verbs, objects in _GROUPS:
        forms = [form.split("/") for form in verbs.split()]
        found += [(verb, gerund, noun) for noun in objects.split(", ") for verb, gerund in forms]
    return tuple(found)
