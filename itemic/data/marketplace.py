"""The words of the simulated marketplace: departments, categories, brands, and the sentences that sell."""

from __future__ import annotations

from dataclasses import dataclass
from string import capwords
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Category:
    """A leaf of the category tree. Word lists are parted by ``|``.

    Attributes:
        path: from general to specific, two or three names.
        nouns: what an item of it is called.
        materials: what it is made of.
        sizes: how large it comes.
        uses: what it is for, each fitting after "for".
        then: names of the categories that people turn to next.
    """

    path: tuple[str, ...]
    nouns: str
    materials: str
    sizes: str
    uses: str
    then: tuple[str, str]

    @property
    def name(self) -> str:
        return self.path[-1]


def _leaf(path: str, nouns: str, materials: str, sizes: str, uses: str, then: str) -> Category:
    first, second = then.split("|")
    return Category(tuple(path.split(" > ")), nouns, materials, sizes, uses, (first, second))


CATEGORIES: Final = (
    _leaf("Kitchen > Cookware > Frying Pans",
          "frying pan|skillet|sauté pan|crêpe pan",
          "cast-iron|carbon-steel|ceramic-coated|tri-ply steel", "20 cm|24 cm|28 cm|32 cm",
          "searing steaks|Sunday omelettes|golden pancakes|crisp vegetables",
          "Spatulas|Pots"),
    _leaf("Outdoors > Camping > Tents",
          "tunnel tent|dome tent|trekking tent|family tent",
          "ripstop nylon|polyester|silicone-coated|cotton-blend", "1-person|2-person|3-person|5-person",
          "windy ridges|festival weekends|long-distance trails|lakeside holidays",
          "Sleeping Bags|Camping Stoves"),
    _leaf("Garden > Growing > Seeds",
          "seed packet|seed collection|seed tape|seed mat",
          "organic|heirloom|open-pollinated|bee-friendly", "5 g|20 g|50 seeds|200 seeds",
          "sunny balconies|cottage borders|raised beds|an early harvest",
          "Plant Pots|Watering Cans"),
    _leaf("Office > Writing > Fountain Pens",
          "fountain pen|calligraphy pen|pocket pen|demonstrator pen",
          "brushed-steel|resin|brass|walnut", "extra-fine nib|fine nib|medium nib|broad nib",
          "daily journals|thank-you letters|sketching in ink|signing with a flourish",
          "Inks|Notebooks"),
    _leaf("Music > Guitars > Acoustic Guitars",
          "acoustic guitar|classical guitar|parlour guitar|travel guitar",
          "spruce-top|mahogany|cedar-top|maple", "1/2 size|3/4 size|4/4 size|dreadnought",
          "campfire songs|fingerstyle practice|first lessons|small stages",
          "Guitar Strings|Capos & Picks"),
    _leaf("Workshop > Power Tools > Drills",
          "cordless drill|hammer drill|impact driver|angle drill",
          "brushless|keyless-chuck|compact metal|all-metal gear", "12 V|18 V|650 W|900 W",
          "shelves and curtain rails|drilling into brick|flat-pack evenings|deck building",
          "Drill Bits|Screws"),
    _leaf("Kitchen > Cookware > Pots",
          "saucepan|stockpot|casserole|milk pan",
          "stainless-steel|enamelled|copper-bottomed|hard-anodised", "1.5 l|3 l|5 l|8 l",
          "slow-cooked stews|a pot of soup|jam making|pasta for six",
          "Spatulas|Spices"),
    _leaf("Outdoors > Camping > Sleeping Bags",
          "sleeping bag|mummy bag|camping quilt|bag liner",
          "down-filled|synthetic-fill|fleece|merino",
          "summer 15 °C|3-season 5 °C|winter -5 °C|winter -15 °C",
          "frosty mornings|hut-to-hut tours|warm summer nights|sleepovers",
          "Camping Stoves|Headlamps"),
    _leaf("Garden > Growing > Plant Pots",
          "plant pot|hanging planter|window box|herb pot",
          "terracotta|glazed stoneware|recycled-plastic|zinc", "12 cm|18 cm|25 cm|40 cm",
          "kitchen herbs|trailing flowers|small olive trees|seedlings on the sill",
          "Potting Soil|Watering Cans"),
    _leaf("Office > Writing > Inks",
          "bottled ink|ink cartridges|shimmer ink|document ink",
          "iron-gall|dye-based|pigmented|iridescent", "12 ml|30 ml|50 ml|6 pieces",
          "deep blue-black lines|colourful headings|archival notes|smooth shading",
          "Notebooks|Fountain Pens"),
    _leaf("Music > Guitars > Guitar Strings",
          "guitar strings|string set|bass strings|ukulele strings",
          "phosphor-bronze|nylon|nickel-wound|coated steel",
          "light 11–52|medium 12–54|heavy 13–56|extra-light 10–47",
          "a bright attack|a warm, round tone|long-lasting tuning|soft fingertips",
          "Capos & Picks|Tuners"),
    _leaf("Workshop > Accessories > Drill Bits",
          "drill bit set|masonry bits|wood bits|step drill",
          "cobalt|titanium-coated|carbide-tipped|high-speed steel", "5 pieces|10 pieces|19 pieces|4–20 mm",
          "clean holes in oak|concrete ceilings|stainless sheet|countersinking",
          "Screws|Measuring Tools"),
    _leaf("Kitchen > Utensils > Spatulas",
          "spatula|fish slice|wooden turner|pastry scraper",
          "beechwood|silicone|olive-wood|slotted steel", "25 cm|28 cm|31 cm|set of 3",
          "flipping pancakes|scraping bowls clean|delicate fish|non-stick pans",
          "Frying Pans|Kitchen Knives"),
    _leaf("Outdoors > Camping > Camping Stoves",
          "gas stove|spirit stove|wood stove|cooking set",
          "titanium|folding aluminium|stainless-steel|piezo-lit", "80 g|250 g|2-burner|1-pot",
          "coffee at sunrise|melting snow|dinner for two|quick noodle stops",
          "Headlamps|Water Bottles"),
    _leaf("Garden > Growing > Potting Soil",
          "potting soil|seed compost|cactus mix|coconut substrate",
          "peat-free|worm-enriched|perlite-rich|biochar", "5 l|10 l|20 l|40 l",
          "tomatoes in tubs|rooting cuttings|thirsty balcony boxes|succulents",
          "Fertiliser|Seeds"),
    _leaf("Office > Paper > Notebooks",
          "notebook|journal|sketchbook|planner",
          "linen-bound|leather-look|recycled-paper|hardcover", "A6|A5|B5|A4",
          "meeting notes|travel diaries|bullet lists|morning pages",
          "Desk Organisers|Inks"),
    _leaf("Music > Guitars > Capos & Picks",
          "capo|pick set|thumb picks|slide",
          "spring-steel|tortoise-style|felt|glass", "0.46 mm|0.73 mm|1.0 mm|6 pieces",
          "quick key changes|bluegrass runs|soft strumming|slide blues",
          "Tuners|Guitar Strings"),
    _leaf("Workshop > Accessories > Screws",
          "wood screws|deck screws|wall plugs|machine screws",
          "zinc-plated|stainless A2|brass|hardened", "100 pieces|250 pieces|500 pieces|assorted",
          "terraces that last|plasterboard walls|hinges and handles|weatherproof joints",
          "Measuring Tools|Drills"),
    _leaf("Kitchen > Utensils > Kitchen Knives",
          "chef's knife|paring knife|bread knife|santoku",
          "Damascus-steel|high-carbon|ceramic|forged", "9 cm|15 cm|18 cm|21 cm",
          "fine dicing|crusty loaves|peeling apples|herbs and shallots",
          "Spices|Pots"),
    _leaf("Outdoors > Headlamps",
          "headlamp|camp lantern|clip light|running lamp",
          "rechargeable|waterproof|aluminium|featherweight", "120 lm|300 lm|600 lm|1,000 lm",
          "night hikes|reading in the tent|trail running|finding the zip",
          "Water Bottles|Tents"),
    _leaf("Garden > Care > Watering Cans",
          "watering can|plant mister|drip set|hose reel",
          "galvanised|powder-coated|copper|recycled-plastic", "1 l|5 l|9 l|15 m",
          "orchids and ferns|long dry weeks|greenhouse rounds|gentle sprinkling",
          "Fertiliser|Plant Pots"),
    _leaf("Office > Desk Organisers",
          "desk organiser|letter tray|pen holder|cable box",
          "bamboo|mesh-steel|felt|cork", "3 slots|5 slots|A4|small",
          "a tidy desk|the home office|loose cables|post that piles up",
          "Desk Lamps|Fountain Pens"),
    _leaf("Music > Tuners",
          "clip-on tuner|pedal tuner|metronome|tuning fork",
          "chromatic|backlit|vibration-sensing|mechanical", "440 Hz|mini|pocket|pedalboard",
          "noisy rehearsals|steady tempo|silent stage changes|first chords",
          "Sheet Music|Acoustic Guitars"),
    _leaf("Workshop > Measuring Tools",
          "tape measure|spirit level|laser meter|folding rule",
          "magnetic|aluminium|shock-proof|beech", "3 m|5 m|8 m|60 cm",
          "straight shelves|room plans|tile work|marking timber",
          "Drills|Drill Bits"),
    _leaf("Kitchen > Pantry > Spices",
          "pepper blend|curry powder|smoked salt|herb mix",
          "stone-ground|sun-dried|whole-seed|organic", "40 g|80 g|120 g|250 g",
          "slow-cooked stews|grilled fish|roast potatoes|weeknight curries",
          "Kitchen Knives|Frying Pans"),
    _leaf("Outdoors > Water Bottles",
          "water bottle|thermos flask|folding bottle|filter bottle",
          "insulated steel|borosilicate|BPA-free|titanium", "350 ml|500 ml|750 ml|1 l",
          "hot tea on the summit|bike cages|clear mountain streams|long train rides",
          "Tents|Sleeping Bags"),
    _leaf("Garden > Care > Fertiliser",
          "plant food|tomato feed|rose fertiliser|lawn feed",
          "liquid|slow-release|seaweed|granular", "250 ml|1 l|2 kg|5 kg",
          "big harvests|strong roots|lush green leaves|hungry roses",
          "Seeds|Potting Soil"),
    _leaf("Office > Desk Lamps",
          "desk lamp|clamp lamp|reading light|screen bar",
          "dimmable|brushed-brass|aluminium|matt-black", "5 W|8 W|12 W|USB-C",
          "late drafts|drawing without shadows|tired eyes|video calls",
          "Notebooks|Desk Organisers"),
    _leaf("Music > Sheet Music",
          "songbook|chord chart|study book|duet album",
          "spiral-bound|large-print|annotated|play-along", "24 songs|40 songs|60 studies|level 1",
          "folk evenings|daily warm-ups|jazz standards|teaching beginners",
          "Acoustic Guitars|Guitar Strings"),
    _leaf("Workshop > Work Gloves",
          "work gloves|safety glasses|knee pads|tool apron",
          "nitrile-coated|goat-leather|cut-resistant|padded", "S|M|L|XL",
          "rough timber|demolition days|fine assembly|kneeling on tiles",
          "Screws|Measuring Tools"),
)  # fmt: skip

BRAND_FIRST: Final = (
    "Alder|Birch|Cinder|Dune|Ember|Fern|Gale|Hazel|Ivory|Juniper|Kestrel|Lumen|Marlow|Nettle|Ochre|Pebble|"
    "Quill|Rowan|Sable|Thistle|Umber|Vesper|Willow|Yarrow"
)
BRAND_LAST: Final = "brook|craft|dale|field|forge|gate|haven|lane|mark|point|ridge|stead|vale|ware|wick|works"
MOST_BRANDS: Final = len(BRAND_FIRST.split("|")) * len(BRAND_LAST.split("|"))
QUALITIES: Final = "Classic|Compact|Everyday|Heritage|Lightweight|Premium|Studio|Traveller's|Robust|Modern"
# Nouns may be singular or plural and begin with any letter, so no sentence has an article or a verb for them.
OPENINGS: Final = (
    "{Material} {noun}, made for {use}.",
    "Our {quality} {noun} for {use}, in {material} quality.",
    "For {use}: {material} {noun} from {brand}, built to do one thing well.",
    "Designed by {brand} with {use} in mind: {material} {noun}, nothing superfluous.",
    "When it comes to {use}, our customers ask for {brand}: {material} {noun} from the {quality} line.",
)
MIDDLES: Final = (
    "Delivered as {size}, and just as good for {other}.",
    "The {material} finish ages well, and {size} is what most people pick.",
    "Size: {size}. Many customers also choose this for {other}.",
    "Made in small batches, checked by hand, delivered as {size}.",
    "Available as {size}, for beginners and old hands alike.",
)
ENDINGS: Final = (
    "Two-year guarantee.", "Packed without plastic.", "Spare parts are available.", "A gift that gets used.",
    "Easy to clean and to store.", "Tested by our own staff.", "Ships in a recycled box.",
    "Instructions included.",
)  # fmt: skip


def brand_names(count: int, rng: np.random.Generator) -> list[str]:
    """So many different made-up names."""
    names = [first + last for first in BRAND_FIRST.split("|") for last in BRAND_LAST.split("|")]
    return [names[i] for i in rng.permutation(len(names))[:count]]


def describe_item(category: Category, brand: str, number: int, draw: list[int]) -> tuple[str, str]:
    """Title and description of an item, from eleven random numbers."""
    words = [category.nouns, category.materials, category.sizes, category.uses, category.uses]
    noun, material, size, use, other = (
        _pick(text.split("|"), d) for text, d in zip(words, draw, strict=False)
    )
    quality = _pick(QUALITIES.split("|"), draw[5])
    model = f"{brand[0]}{_pick(BRAND_LAST.split('|'), draw[6])[0].upper()}-{100 + number}"
    titles = (
        f"{brand} {quality} {capwords(noun)}, {material}, {size} ({model})",
        f"{brand} {material} {noun}, {size} – {model}",
        f"{noun.capitalize()} {model} by {brand}: {material}, {size}",
        f"{brand} {model} {quality.lower()} {noun} for {use}, {size}",
    )
    parts = {
        "noun": noun,
        "material": material,
        "size": size,
        "use": use,
        "brand": brand,
        "quality": quality.lower(),
    }
    parts["Material"] = material[0].upper() + material[1:]
    parts["other"] = other if other != use else "everyday use"
    sentences = (_pick(OPENINGS, draw[7]), _pick(MIDDLES, draw[8]), _pick(ENDINGS, draw[9]))
    return _pick(titles, draw[10]), " ".join(sentence.format(**parts) for sentence in sentences)


def _pick(choices: list[str] | tuple[str, ...], number: int) -> str:
    return choices[number % len(choices)]
