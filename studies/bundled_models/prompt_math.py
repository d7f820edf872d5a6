"""Arithmetic and word problems with known results, in the manner of school exercises."""

from __future__ import annotations

import random
from collections.abc import Callable

from studies.bundled_models import topics

Problem = tuple[str, str]  # question, result

_ITEMS = topics.words("""
apples, oranges, books, pencils, marbles, stickers, cookies, candies, stamps, flowers, eggs, balloons, toys, coins, cards,
shells, cupcakes, tickets, bottles, chairs, muffins, crayons, buttons, stones, sandwiches, notebooks, plums, beads
""")


def _pick(rng: random.Random) -> tuple[str, str, str]:
    first, second = rng.sample(topics.NAMES, 2)
    return first, second, rng.choice(_ITEMS)


def plain(rng: random.Random) -> Problem:
    """A bare sum, difference, product or quotient."""
    kind = rng.randrange(4)
    if kind == 0:
        a, b = rng.randint(1, 30), rng.randint(1, 20)
        expression, result = f"{a} + {b}", a + b
    elif kind == 1:
        a = rng.randint(3, 40)
        b = rng.randint(1, min(a, 20))
        expression, result = f"{a} - {b}", a - b
    elif kind == 2:
        a, b = rng.randint(2, 12), rng.randint(2, 10)
        expression, result = f"{a} {rng.choice('x*')} {b}", a * b
    else:
        b, result = rng.randint(2, 12), rng.randint(2, 15)
        expression = f"{b * result} / {b}"
    form = rng.choice(
        ["What is {}?", "Calculate {}.", "Compute {} and show your work.", "Please work out {}.", "How much is {}?"]
    )
    return form.format(expression), str(result)


def give_and_take(rng: random.Random) -> Problem:
    """Start with some, lose some, gain some."""
    name, other, item = _pick(rng)
    start, lost, gained = rng.randint(8, 60), rng.randint(1, 7), rng.randint(2, 30)
    loses = rng.choice([f"gives {lost} to {other}", f"loses {lost}", f"sells {lost}", f"uses {lost} of them"])
    gains = rng.choice([f"buys {gained} more", f"finds {gained} more", f"gets {gained} from a friend"])
    question = rng.choice([f"How many {item} does {name} have now?", f"How many {item} are left in the end?"])
    return f"{name} has {start} {item}. {name} {loses} and then {gains}. {question}", str(start - lost + gained)


def groups(rng: random.Random) -> Problem:
    """Equal groups, perhaps with some extra."""
    name, _, item = _pick(rng)
    boxes, each, extra = rng.randint(2, 12), rng.randint(2, 12), rng.choice([0, 0, rng.randint(1, 9)])
    box = rng.choice(["boxes", "bags", "baskets", "shelves", "packets"])
    more = f" {name} also has {extra} loose {item}." if extra else ""
    text = f"{name} has {boxes} {box} with {each} {item} in each.{more} How many {item} does {name} have in total?"
    return text, str(boxes * each + extra)


def sharing(rng: random.Random) -> Problem:
    """Divide a number of things evenly."""
    name, _, item = _pick(rng)
    friends, each = rng.randint(2, 10), rng.randint(2, 12)
    text = (
        f"{name} shares {friends * each} {item} equally among {friends} friends. How many {item} does each friend get?"
    )
    return text, str(each)


def shopping(rng: random.Random) -> Problem:
    """Cost and change."""
    name, _, item = _pick(rng)
    count, price = rng.randint(2, 9), rng.randint(2, 12)
    total = count * price
    if rng.random() < 0.5:
        text = f"{name} buys {count} {item} for ${price} each. How much does {name} pay in total?"
        return text, str(total)
    paid = total + rng.choice([1, 2, 5, 10, 20])
    text = f"{name} buys {count} {item} at ${price} each and pays with ${paid}. How much change does {name} get?"
    return text, str(paid - total)


def wages(rng: random.Random) -> Problem:
    """Hours at a rate, over some days."""
    name = rng.choice(topics.NAMES)
    rate, hours, days = rng.randint(8, 25), rng.randint(2, 9), rng.randint(2, 6)
    text = f"{name} earns ${rate} an hour and works {hours} hours a day. How much does {name} earn in {days} days?"
    return text, str(rate * hours * days)


def travel(rng: random.Random) -> Problem:
    """Distance, speed, time."""
    thing = rng.choice(["train", "car", "bus", "cyclist", "boat", "truck"])
    speed, hours = rng.randint(3, 30) * 5, rng.randint(2, 8)
    if rng.random() < 0.6:
        unit = rng.choice(["miles", "kilometers"])
        return f"A {thing} travels at {speed} {unit} per hour for {hours} hours. How far does it go?", str(
            speed * hours
        )
    return f"A {thing} covers {speed * hours} miles in {hours} hours. What is its average speed?", str(speed)


def ages(rng: random.Random) -> Problem:
    """Ages apart."""
    first, second, _ = _pick(rng)
    young, gap, years = rng.randint(4, 30), rng.randint(2, 12), rng.randint(2, 10)
    text = f"{first} is {young} years old. {second} is {gap} years older. How old will {second} be in {years} years?"
    return text, str(young + gap + years)


def multiples(rng: random.Random) -> Problem:
    """Twice or half as many, then the sum."""
    first, second, item = _pick(rng)
    base = rng.randint(2, 30) * 2
    if rng.random() < 0.5:
        text = f"{first} has {base} {item}. {second} has half as many. How many {item} do they have altogether?"
        return text, str(base + base // 2)
    factor = rng.choice([2, 3])
    word = "twice" if factor == 2 else "three times"
    text = f"{first} has {base} {item}. {second} has {word} as many. How many {item} do they have together?"
    return text, str(base * (factor + 1))


def percent(rng: random.Random) -> Problem:
    """A percentage or a discount."""
    share, base = rng.choice([10, 20, 25, 50]), rng.randint(1, 20) * 20
    if rng.random() < 0.5:
        return rng.choice([f"What is {share}% of {base}?", f"Calculate {share} percent of {base}."]), str(
            base * share // 100
        )
    thing = rng.choice(["jacket", "bicycle", "lamp", "phone", "chair", "game", "watch"])
    return f"A {thing} costs ${base} and is {share}% off. What is the sale price?", str(base - base * share // 100)


def rectangle(rng: random.Random) -> Problem:
    """Area or perimeter."""
    long, short = rng.randint(4, 20), rng.randint(2, 12)
    thing = rng.choice(["rectangle", "garden", "room", "field", "table top"])
    if rng.random() < 0.5:
        return f"A {thing} is {long} meters long and {short} meters wide. What is its area?", str(long * short)
    return f"A {thing} is {long} meters long and {short} meters wide. What is its perimeter?", str(2 * (long + short))


def equation(rng: random.Random) -> Problem:
    """A linear equation."""
    x, a, b = rng.randint(1, 12), rng.randint(2, 9), rng.randint(1, 20)
    return rng.choice([f"Solve for x: {a}x + {b} = {a * x + b}", f"If {a}x + {b} = {a * x + b}, what is x?"]), str(x)


def saving(rng: random.Random) -> Problem:
    """Weekly saving towards a sum, then a purchase."""
    name = rng.choice(topics.NAMES)
    weekly, weeks = rng.randint(3, 20), rng.randint(3, 10)
    cost = rng.randint(2, weekly * weeks - 1)
    text = (
        f"{name} saves ${weekly} every week for {weeks} weeks and then spends ${cost} on a gift. "
        f"How much money does {name} have left?"
    )
    return text, str(weekly * weeks - cost)


# The weights follow how often a small teacher is right: often for bare sums, hardly ever where two steps are needed.
KINDS: dict[Callable[[random.Random], Problem], int] = {
    plain: 10, groups: 4, rectangle: 3, sharing: 2, shopping: 2, equation: 2, multiples: 2, travel: 1, percent: 1, saving: 1,
    give_and_take: 1, wages: 1, ages: 1,
}  # fmt: skip


def problem(rng: random.Random) -> Problem:
    """One exercise of a random kind."""
    return rng.choices(list(KINDS), weights=list(KINDS.values()))[0](rng)
