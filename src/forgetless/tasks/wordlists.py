"""The word lists that scorers look things up in: gazetteers, function words, number words, abbreviations.

A gazetteer is text, one or more members separated by commas; the names of one member are separated by `|`, the first
is the canonical one. Names in lower case match in any case; a name written with a capital matches exactly so ("US" is a
country, "us" is a pronoun). A name that starts with `-` is not a member, but is read over as a whole ("new mexico"
does not name Mexico).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

COUNTRIES = """
afghanistan, albania, algeria, andorra, angola, antigua and barbuda|antigua, argentina, armenia, australia, austria,
azerbaijan, bahamas, bahrain, bangladesh, barbados, belarus, belgium, belize, benin, bhutan, bolivia, bosnia and
herzegovina|bosnia-herzegovina|bosnia, botswana, brazil|brasil, brunei, bulgaria, burkina faso, burundi, cabo
verde|cape verde, cambodia, cameroon, canada, central african republic, chad, chile, china, colombia, comoros,
democratic republic of the congo|democratic republic of congo|dr congo|DRC, republic of the
congo|congo|congo-brazzaville, costa rica, côte d'ivoire|cote d'ivoire|ivory coast, croatia, cuba, cyprus,
czechia|czech republic, denmark, djibouti, dominica, dominican republic, ecuador, egypt, el salvador, equatorial
guinea, eritrea, estonia, eswatini|swaziland, ethiopia, fiji, finland, france, gabon, gambia, georgia, germany, ghana,
greece, grenada, guatemala, guinea, guinea-bissau, guyana, haiti, honduras, hungary, iceland, india, indonesia, iran,
iraq, ireland|republic of ireland, israel, italy, jamaica, japan, jordan, kazakhstan, kenya, kiribati, kosovo, kuwait,
kyrgyzstan, laos, latvia, lebanon, lesotho, liberia, libya, liechtenstein, lithuania, luxembourg, madagascar, malawi,
malaysia, maldives, mali, malta, marshall islands, mauritania, mauritius, mexico|méxico, micronesia, moldova, monaco,
mongolia, montenegro, morocco, mozambique, myanmar|burma, namibia, nauru, nepal, netherlands|holland, new zealand,
nicaragua, niger, nigeria, north korea, north macedonia|macedonia, norway, oman, pakistan, palau, palestine, panama,
papua new guinea, paraguay, peru, philippines, poland, portugal, qatar, romania, russia|russian federation, rwanda,
saint kitts and nevis|st. kitts and nevis, saint lucia|st. lucia, saint vincent and the grenadines, samoa, san marino,
são tomé and príncipe|sao tome and principe, saudi arabia, senegal, serbia, seychelles, sierra leone, singapore,
slovakia, slovenia, solomon islands, somalia, south africa, south korea|korea, south sudan, spain, sri lanka, sudan,
suriname, sweden, switzerland, syria, taiwan, tajikistan, tanzania, thailand, timor-leste|east timor, togo, tonga,
trinidad and tobago|trinidad, tunisia, turkey|türkiye|turkiye, turkmenistan, tuvalu, uganda, ukraine, united arab
emirates|UAE, united kingdom|great britain|britain|UK|U.K., england, scotland, wales, northern ireland, united states
of america|united states|america|USA|U.S.A.|US|U.S., uruguay, uzbekistan, vanuatu, vatican city|holy see|vatican,
venezuela, vietnam|viet nam, yemen, zambia, zimbabwe, -new mexico, -new england, -new south wales, -north america,
-south america, -central america, -latin america, -guinea pig, -guinea pigs
"""

COLOURS = """
red, orange, yellow, green, blue, purple, violet, indigo, pink, brown, black, white, grey|gray, beige, cyan, magenta,
turquoise, teal, maroon, navy|navy blue, gold|golden, silver, bronze, crimson, scarlet, lavender, lilac, mauve,
burgundy, olive, lime, mint, peach, coral, salmon, tan, cream, ivory, khaki, aqua, azure, amber, emerald, ruby,
sapphire, charcoal, fuchsia|fuschia, plum, rose, mustard, copper, aquamarine, chartreuse, sky blue, ochre, rust
"""

ANIMALS = """
dog|puppy|puppies, cat|kitten, horse|pony|ponies, cow|bull|cattle, pig, sheep|lamb, goat, donkey, mule,
chicken|hen|rooster, duck, goose|geese, turkey, rabbit|bunny|bunnies, hare, mouse|mice, rat, hamster, guinea pig,
squirrel, chipmunk, beaver, hedgehog, porcupine, otter, badger, skunk, raccoon, weasel, ferret, mole, fox|foxes,
wolf|wolves, coyote, jackal, hyena, bear, polar bear, panda|giant panda, red panda, lion, tiger, leopard, snow
leopard, cheetah, jaguar, panther, lynx|lynxes, puma|cougar|mountain lion, bobcat, elephant, giraffe, zebra,
hippopotamus|hippo|hippopotamuses, rhinoceros|rhino|rhinoceroses, camel, llama, alpaca, deer, moose, elk,
reindeer|caribou, antelope, gazelle, bison, buffalo|buffaloes, yak, monkey, gorilla, chimpanzee|chimp, orangutan,
baboon, lemur, sloth, anteater, armadillo, kangaroo, koala|koala bear, wallaby|wallabies, wombat, platypus|platypuses,
opossum|possum, bat, whale, blue whale, orca|killer whale, dolphin, porpoise, seal, sea lion, walrus|walruses,
manatee, shark|great white shark, fish|goldfish, salmon, tuna, trout, cod, eel, octopus|octopuses|octopi, squid,
jellyfish, starfish, seahorse, crab, lobster, shrimp, snail, slug, clam, oyster, turtle|sea turtle, tortoise,
crocodile, alligator, lizard, gecko|geckos, iguana, chameleon, snake, python, cobra, rattlesnake, viper, frog|tree
frog, toad, newt, salamander, bird, eagle|bald eagle|golden eagle, hawk, falcon, owl, parrot, penguin, pigeon, dove,
crow, raven, sparrow, robin, seagull|gull, swan, flamingo|flamingos|flamingoes, peacock, ostrich|ostriches, emu,
hummingbird, woodpecker, pelican, stork, crane, heron, vulture, toucan, ant, bee|honeybee|bumblebee, wasp,
butterfly|butterflies, moth, fly|flies, mosquito|mosquitoes|mosquitos, dragonfly|dragonflies, ladybird|ladybug,
beetle, grasshopper, cricket, spider, tarantula, scorpion, worm|earthworm, -hot dog, -hot dogs
"""

FRUITS = """
apple, banana, orange, pear, peach|peaches, plum, cherry|cherries, grape, strawberry|strawberries,
raspberry|raspberries, blueberry|blueberries, blackberry|blackberries, cranberry|cranberries, lemon, lime, grapefruit,
tangerine, mandarin, clementine, satsuma, mango|mangoes|mangos, pineapple, papaya, kiwi|kiwifruit, melon, watermelon,
cantaloupe, honeydew, apricot, nectarine, fig, date, pomegranate, passion fruit|passionfruit, dragon
fruit|dragonfruit, coconut, guava, lychee|litchi, persimmon, quince, avocado|avocados, currant,
gooseberry|gooseberries, mulberry|mulberries, olive, tomato|tomatoes, jackfruit, durian, star fruit, rhubarb
"""

VEGETABLES = """
carrot, potato|potatoes, sweet potato|sweet potatoes, onion|spring onion, garlic, leek, shallot, cabbage, red cabbage,
cauliflower, broccoli, brussels sprout, kale, spinach, lettuce, rocket|arugula, chard, celery, cucumber,
courgette|zucchini, aubergine|eggplant, pepper|bell pepper|green pepper|red pepper, chilli|chili, tomato|tomatoes,
pea, bean|green bean, lentil, sweetcorn|corn|maize, beetroot|beet, radish|radishes, turnip, parsnip, swede|rutabaga,
pumpkin, squash|butternut squash, asparagus, artichoke, fennel, okra, mushroom, yam, bok choy|pak choi
"""

MONTHS = "january, february, March|MARCH, april, May|MAY, june, july, august, september, october, november, december"
WEEKDAYS = "monday, tuesday, wednesday, thursday, friday, saturday, sunday"
SEASONS = "spring, summer, autumn|fall, winter"
PLANETS = "mercury, venus, earth, mars, jupiter, saturn, uranus, neptune"
CONTINENTS = "africa, antarctica, asia, europe, north america, south america, australia|oceania"
OCEANS = "pacific, atlantic, indian|indian ocean, arctic, southern|antarctic"
METALS = """
iron, steel, copper, gold, silver, aluminium|aluminum, tin, lead, zinc, nickel, platinum, titanium, mercury, brass,
bronze, chromium|chrome, cobalt, tungsten, magnesium, sodium, potassium, calcium, lithium, uranium, palladium
"""
SHAPES = """
circle, square, triangle, rectangle, oval|ellipse, pentagon, hexagon, heptagon, octagon, diamond|rhombus,
trapezium|trapezoid, parallelogram, star, heart, cube, sphere, cylinder, cone, pyramid, polygon, quadrilateral,
crescent
"""
SPORTS = """
football|american football, soccer, basketball, baseball, tennis, golf, cricket, rugby, hockey|ice hockey|field
hockey, volleyball, swimming, running, cycling, boxing, wrestling, skiing, snowboarding, skating|ice skating|figure
skating, gymnastics, athletics|track and field, badminton, table tennis|ping pong, rowing, sailing, surfing, judo,
karate, fencing, archery, handball, softball, lacrosse, squash, horse riding|equestrian, bowling, climbing, diving,
water polo, polo, curling, triathlon, martial arts, weightlifting
"""
INSTRUMENTS = """
piano, guitar, violin, cello, viola, double bass|bass|bass guitar, flute, clarinet, oboe, bassoon, saxophone, trumpet,
trombone, tuba, french horn|horn, drum|drum set|drum kit, harp, organ, accordion, harmonica, banjo, ukulele, mandolin,
xylophone, tambourine, recorder, bagpipe, keyboard|synthesizer, lute, sitar, triangle, cymbal, piccolo, marimba, bongo
"""
LANGUAGES = """
english, spanish, french, german, italian, portuguese, dutch, russian, polish, ukrainian, czech, greek, turkish,
arabic, hebrew, persian|farsi, hindi, urdu, bengali, punjabi, tamil, telugu, marathi, gujarati,
chinese|mandarin|cantonese, japanese, korean, vietnamese, thai, indonesian, malay, tagalog|filipino, swahili, zulu,
amharic, hausa, yoruba, swedish, norwegian, danish, finnish, icelandic, hungarian, romanian, bulgarian, serbian,
croatian, slovak, slovenian, latin, irish, welsh, catalan, basque, esperanto
"""
US_STATES = """
alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware, florida, georgia, hawaii, idaho,
illinois, indiana, iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts, michigan, minnesota,
mississippi, missouri, montana, nebraska, nevada, new hampshire, new jersey, new mexico, new york, north carolina,
north dakota, ohio, oklahoma, oregon, pennsylvania, rhode island, south carolina, south dakota, tennessee, texas,
utah, vermont, virginia, washington, west virginia, wisconsin, wyoming
"""

_SOURCES = {
    "animals": ANIMALS,
    "colours": COLOURS,
    "continents": CONTINENTS,
    "countries": COUNTRIES,
    "fruits": FRUITS,
    "instruments": INSTRUMENTS,
    "languages": LANGUAGES,
    "metals": METALS,
    "months": MONTHS,
    "oceans": OCEANS,
    "planets": PLANETS,
    "seasons": SEASONS,
    "shapes": SHAPES,
    "sports": SPORTS,
    "us_states": US_STATES,
    "vegetables": VEGETABLES,
    "weekdays": WEEKDAYS,
}
GAZETTEERS = tuple(_SOURCES)

# Members of these are common nouns, so "three apples" names a fruit.
_HAVE_PLURALS = frozenset({"animals", "fruits", "instruments", "shapes", "vegetables", "weekdays"})


@cache
def gazetteer(name: str) -> Mapping[str, str]:
    """Reads a gazetteer.

    Args:
        name: One of `GAZETTEERS`.

    Returns:
        Every name in it with the canonical name of its member ("" = not a member, read over).
    """
    return _read_names(" ".join(_SOURCES[name].split()).split(","), has_plurals=name in _HAVE_PLURALS)


def _read_names(entries: Sequence[str], *, has_plurals: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for entry in entries:
        aliases = entry.strip().split("|")
        for alias in aliases:
            if alias.startswith("-"):
                names[alias[1:]] = ""
                continue
            names[alias] = aliases[0]
            if has_plurals and not alias.endswith("s"):
                names.setdefault(f"{alias}s", aliases[0])
    return names


# Words that carry grammar, and greetings, for telling six languages apart. A word of several languages counts less.
FUNCTION_WORDS = {
    "en": """
        the of and to in is are was were be been it its he she they we you i my your his her their our this that
        these those with for on at from by an a as not but or if so do does did have has had will would can
        could should there what which who when where how very more some any all no yes hello thank thanks please
        good morning night
    """,
    "es": """
        el la los las un una unos unas de del al y o pero que qué es son está están era eran ser hay yo tú él
        ella nosotros ellos ellas mi mis tu tus su sus este esta estos estas ese esa con para por en sin sobre
        como cómo cuando donde dónde muy más menos también no sí se lo le les me te nos hola gracias buenos
        buenas días noches tiene tengo gusta me
    """,
    "fr": """
        le la les l un une des de du d et ou mais que qu qui quoi est sont était étaient être il elle ils elles
        je j tu nous vous on mon ma mes ton ta tes son sa ses notre votre leur ce cet cette ces c avec pour par
        dans en sur sans sous comme quand où très plus moins aussi ne n pas non oui se s y au aux bonjour merci
        bonsoir salut suis ai a ont fait
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder aber dass ist sind war waren sein es
        er sie wir ihr ich du mein meine dein deine unser mit für von zu zum zur in im an am auf aus bei nach
        über unter nicht kein keine ja nein sehr auch noch nur wie wann wo was wer hat habe haben hallo danke
        bitte guten tag morgen nacht wird
    """,
    "it": """
        il lo la i gli le l un uno una di del della dello dei degli delle da dal dalla a al alla ai e ed o ma
        che è sono era erano essere c'è ci io tu lui lei noi voi loro mio mia tuo tua suo sua questo questa
        questi con per in nel nella su sul sulla come quando dove molto più meno anche non sì si mi ti ciao
        grazie buongiorno buona notte ho ha hanno
    """,
    "pt": """
        o a os as um uma uns umas de do da dos das no na nos nas ao à aos e ou mas que é são está estão era eram
        ser há eu tu ele ela nós eles elas você meu minha teu tua seu sua este esta esse essa isso com para por
        pelo pela em sem sobre como quando onde muito mais menos também não sim se lhe me te olá obrigado
        obrigada bom boa dia noite tem tenho
    """,
}
# Letters that settle a language, or nearly so, among the six.
TYPICAL_LETTERS = {"en": "", "es": "ñ¿¡áíóú", "fr": "çèêëîïôûœ", "de": "äöüß", "it": "àèìòù", "pt": "ãõçâêôáíóú"}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ZERO_TO_TWENTY = _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
""")
_TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
NUMBER_WORDS = {word: value for value, word in enumerate(_ZERO_TO_TWENTY)} | _TENS
NUMBER_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

# A full stop after these never ends a sentence ...
TITLES = frozenset(
    _words("""
    dr mr mrs ms mx prof mt sgt capt lt col gen rev hon gov sen rep vs eg ie e.g i.e cf viz mme mlle sra dra herr hr fr
    dott prof.ssa
""")
)
# ... and after these only when what follows starts like a sentence: in "No. 5" it doesn't, in "etc. The rest" it does.
ABBREVIATIONS = frozenset(
    _words("""
    etc inc ltd co corp jr sr st fig approx dept est no vol p pp jan feb mar apr jun jul aug sep sept oct nov dec
    ph.d m.sc b.sc bzw usw ca nr bspw evtl ggf p.ex pág ud uds tel
""")
)
SENTENCE_STARTERS = frozenset(
    _words("""
    the a an it he she they we you i this that these those there in on at his her its their our my your and but so then
    when while after before if as for what who why how where is are was do does let
""")
)
# "am 3. Oktober": a full stop behind a number that makes it an ordinal.
MONTHS_AFTER_ORDINALS = frozenset(
    _words("januar februar märz april mai juni juli august september oktober november dezember jahrhundert")
)
MINOR_TITLE_WORDS = frozenset(_words("a an the and but or nor of in on at to by for from with as is"))

# Frequent words of English that no domain owns, however often they stand in its answers.
EVERYDAY_WORDS = frozenset(
    _words("""
    able about above act acts add after again age ago all allow allows almost along already also always among amount
    another answer any area around asked available away back bad based become becomes before begin begins being
    below best better between big both bring brings build call called came carry case cause causes certain change
    changes check checked choose clear close cold color come comes common complete contain contains control could
    create current day days different difficult does done down due during each early easy effect either else end
    enough entire even ever every example fact fall far fast feel feels few find first five follow following form
    found four free full fully gave general get gets give given gives goes going good great group grow half hand
    hands happen happens hard has have having help helps here high higher hold holds hot hour hours however human
    idea important include includes increase inside its itself just keep keeps kind know known large largest last
    later least leave left less let level levels life like likely line little live lives long look looks lose loss
    lot low lower made main make makes making many matter may mean means might mixed month months more most move
    moves much must name natural near necessary need needed needs never new next night normal note number occur
    occurs off often old once one only open order original other others our out outside over own part parts pass
    past people per person place places play point poor possible prevent prevents problem problems put quick quickly
    quite rather reach real reason regular regularly related release rest result right rise risk run same say says
    second see seem seen send sense serious set several short should show shows side similar simple since single
    size slow slows small some something sometimes soon special specific speed start starts state stay stays step
    still stop stops strong such sure system take taken takes tell than that them themselves then there these they
    thing things think third though three through time times today together too took top toward towards try turn two
    type types under until upon use used useful user uses using usual usually value various very via want water way
    ways week weeks well went were what when where whether which while who whole whose why wide with within without
    word words work works world would year years yes yet you young your
""")
)
