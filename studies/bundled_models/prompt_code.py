"""Small Python tasks: instructions, and bare signatures with a docstring whose examples were computed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from studies.bundled_models import topics

Task = tuple[str, str, str, Callable[[random.Random], tuple[Any, ...]], Callable[..., Any]]


def _numbers(rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(-9, 30) for _ in range(rng.randint(3, 6))],)


def _word(rng: random.Random) -> tuple[str]:
    return (rng.choice([*topics.ANIMALS, *topics.FOODS, *topics.JOBS, "level", "radar", "noon"]),)


def _sentence(rng: random.Random) -> tuple[str]:
    return (f"the {rng.choice(topics.ADJECTIVES)} {rng.choice(topics.ANIMALS)} sees {rng.choice(topics.PLACES)}",)


def _one(rng: random.Random) -> tuple[int]:
    return (rng.randint(1, 30),)


def _two(rng: random.Random) -> tuple[int, int]:
    return rng.randint(1, 40), rng.randint(1, 20)


def _numbers_and_one(rng: random.Random) -> tuple[list[int], int]:
    return _numbers(rng)[0], rng.randint(1, 9)


def _two_lists(rng: random.Random) -> tuple[list[int], list[int]]:
    return _numbers(rng)[0], _numbers(rng)[0]


def _words(rng: random.Random) -> tuple[list[str]]:
    return (rng.sample([*topics.ANIMALS, *topics.FOODS], rng.randint(2, 5)),)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _factorial(n: int) -> int:
    return 1 if n < 2 else n * _factorial(n - 1)


def _fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def _gcd(a: int, b: int) -> int:
    return a if b == 0 else _gcd(b, a % b)


_L, _S, _N = "numbers: List[int]", "text: str", "n: int"
TASKS: tuple[Task, ...] = (
    ("sum_of_list", _L, "return the sum of all numbers in a list", _numbers, sum),
    ("product_of_two", "a: int, b: int", "return the product of two numbers", _two, lambda a, b: a * b),
    ("largest_number", _L, "return the largest number in a list", _numbers, max),
    ("smallest_number", _L, "return the smallest number in a list", _numbers, min),
    ("average", _L, "return the average of a list of numbers", _numbers, lambda x: round(sum(x) / len(x), 2)),
    ("count_even", _L, "count the even numbers in a list", _numbers, lambda x: sum(v % 2 == 0 for v in x)),
    ("count_odd", _L, "count the odd numbers in a list", _numbers, lambda x: sum(v % 2 for v in x)),
    ("keep_positive", _L, "keep only the positive numbers of a list", _numbers, lambda x: [v for v in x if v > 0]),
    ("remove_negatives", _L, "remove the negative numbers from a list", _numbers, lambda x: [v for v in x if v >= 0]),
    ("square_all", _L, "return a list with the square of each number", _numbers, lambda x: [v * v for v in x]),
    ("double_all", _L, "return a list with each number doubled", _numbers, lambda x: [2 * v for v in x]),
    ("sort_descending", _L, "sort a list of numbers from largest to smallest", _numbers, lambda x: sorted(x)[::-1]),
    ("reverse_list", _L, "reverse a list", _numbers, lambda x: x[::-1]),
    ("second_largest", _L, "return the second largest number of a list", _numbers, lambda x: sorted(x)[-2]),
    ("running_total", _L, "return the running totals of a list", _numbers, lambda x: [sum(x[: i + 1]) for i in range(len(x))]),
    ("range_of_list", _L, "return the difference between the largest and the smallest number", _numbers, lambda x: max(x) - min(x)),
    ("has_duplicates", _L, "check whether a list has duplicates", _numbers, lambda x: len(set(x)) < len(x)),
    ("first_and_last", _L, "return the first and the last number of a list as a tuple", _numbers, lambda x: (x[0], x[-1])),
    ("is_sorted", _L, "check whether a list is sorted in ascending order", _numbers, lambda x: x == sorted(x)),
    ("greater_than", f"{_L}, limit: int", "return the numbers greater than a limit", _numbers_and_one, lambda x, n: [v for v in x if v > n]),
    ("add_to_each", f"{_L}, amount: int", "add an amount to each number of a list", _numbers_and_one, lambda x, n: [v + n for v in x]),
    ("contains", f"{_L}, value: int", "check whether a value is in a list", _numbers_and_one, lambda x, n: n in x),
    ("common_elements", "first: List[int], second: List[int]", "return the sorted common elements of two lists", _two_lists, lambda a, b: sorted(set(a) & set(b))),
    ("merge_sorted", "first: List[int], second: List[int]", "merge two lists into one sorted list", _two_lists, lambda a, b: sorted(a + b)),
    ("reverse_string", _S, "reverse a string", _word, lambda s: s[::-1]),
    ("is_palindrome", _S, "check whether a string is a palindrome", _word, lambda s: s == s[::-1]),
    ("count_vowels", _S, "count the vowels in a string", _word, lambda s: sum(c in "aeiou" for c in s)),
    ("count_consonants", _S, "count the consonants in a string", _word, lambda s: sum(c.isalpha() and c not in "aeiou" for c in s)),
    ("to_upper", _S, "convert a string to upper case", _word, str.upper),
    ("remove_vowels", _S, "remove all vowels from a string", _word, lambda s: "".join(c for c in s if c not in "aeiou")),
    ("unique_letters", _S, "return the sorted unique letters of a string", _word, lambda s: "".join(sorted(set(s)))),
    ("first_letter", _S, "return the first letter of a string", _word, lambda s: s[0]),
    ("count_words", _S, "count the words in a sentence", _sentence, lambda s: len(s.split())),
    ("longest_word", _S, "return the longest word of a sentence", _sentence, lambda s: max(s.split(), key=len)),
    ("capitalize_words", _S, "capitalize the first letter of each word", _sentence, str.title),
    ("reverse_words", _S, "reverse the order of the words in a sentence", _sentence, lambda s: " ".join(s.split()[::-1])),
    ("word_lengths", _S, "return a list with the length of each word", _sentence, lambda s: [len(w) for w in s.split()]),
    ("remove_spaces", _S, "remove all spaces from a string", _sentence, lambda s: s.replace(" ", "")),
    ("join_words", "words: List[str]", "join a list of words with commas", _words, lambda w: ", ".join(w)),
    ("longest_string", "words: List[str]", "return the longest string in a list", _words, lambda w: max(w, key=len)),
    ("sort_by_length", "words: List[str]", "sort a list of words by their length", _words, lambda w: sorted(w, key=len)),
    ("total_length", "words: List[str]", "return the total length of all strings in a list", _words, lambda w: sum(map(len, w))),
    ("is_even", _N, "check whether a number is even", _one, lambda n: n % 2 == 0),
    ("is_prime", _N, "check whether a number is prime", _one, _is_prime),
    ("factorial", _N, "return the factorial of a number", lambda r: (r.randint(1, 8),), _factorial),
    ("fibonacci", _N, "return the n-th Fibonacci number", lambda r: (r.randint(1, 15),), _fibonacci),
    ("sum_to_n", _N, "return the sum of the numbers from 1 to n", _one, lambda n: n * (n + 1) // 2),
    ("digit_sum", _N, "return the sum of the digits of a number", lambda r: (r.randint(10, 9999),), lambda n: sum(map(int, str(n)))),
    ("divisors", _N, "return all divisors of a number", _one, lambda n: [d for d in range(1, n + 1) if n % d == 0]),
    ("to_binary", _N, "convert a number to a binary string", _one, lambda n: f"{n:b}"),
    ("is_perfect_square", _N, "check whether a number is a perfect square", _one, lambda n: int(n**0.5 + 0.5) ** 2 == n),
    ("gcd", "a: int, b: int", "return the greatest common divisor of two numbers", _two, _gcd),
    ("maximum", "a: int, b: int", "return the larger of two numbers", _two, max),
    ("absolute_difference", "a: int, b: int", "return the absolute difference of two numbers", _two, lambda a, b: abs(a - b)),
    ("celsius_to_fahrenheit", "degrees: int", "convert degrees Celsius to Fahrenheit", _one, lambda c: c * 9 / 5 + 32),
    ("rectangle_area", "width: int, height: int", "return the area of a rectangle", _two, lambda a, b: a * b),
)  # fmt: skip

_WORDS = (
    "Write a Python function to {what}.", "Write a function in Python that can {what}.", "How do I {what} in Python?",
    "Create a Python function named {name} to {what}.", "Give me Python code to {what}.", "Please write Python code to {what}.",
    "Write a short Python function `{name}` to {what} and explain it briefly.", "Show me how to {what} in Python.",
)  # fmt: skip
_CONCEPTS = topics.words("""
a for loop, a while loop, a list comprehension, a dictionary, a tuple, a set, a lambda function, a class, inheritance, a decorator,
a generator, exception handling, reading a file, writing a file, string formatting, slicing, recursion, the map function,
the zip function, the enumerate function, a default argument, a global variable, an import statement, the range function,
an if statement, sorting with a key, a module, a context manager, type hints, a docstring, a boolean expression, f-strings
""")
_ASKS = (
    "Explain {} in Python with a short example.", "What is {} in Python?", "Show a simple example of {} in Python.",
    "When should I use {} in Python?", "Write a short Python example that uses {}.",
)  # fmt: skip


def _as_name(rng: random.Random, name: str) -> str:
    return rng.choice([name, name, f"get_{name}", f"find_{name}", f"{name}_of", f"my_{name}", f"compute_{name}"])


def stub(rng: random.Random) -> str:
    """A bare signature with a docstring, to be completed."""
    name, signature, what, make, solve = rng.choice(TASKS)
    name = _as_name(rng, name)
    if rng.random() < 0.3:
        signature = ", ".join(part.split(":")[0].strip() for part in signature.split(", "))
    examples = []
    for _ in range(rng.randint(1, 2)):
        arguments = make(rng)
        examples.append(f"    >>> {name}({', '.join(map(repr, arguments))})\n    {solve(*arguments)!r}\n")
    sentence = what[0].upper() + what[1:]
    head = "from typing import List\n\n\n" if "List[" in signature else ""
    return f'{head}def {name}({signature}):\n    """ {sentence}.\n{"".join(examples)}    """\n'


def asserted(rng: random.Random) -> str:
    """An instruction with tests."""
    name, _, what, make, solve = rng.choice(TASKS)
    name = _as_name(rng, name)
    tests = []
    for _ in range(rng.randint(1, 3)):
        arguments = make(rng)
        tests.append(f"assert {name}({', '.join(map(repr, arguments))}) == {solve(*arguments)!r}")
    form = rng.choice(
        [
            "Write a Python function to {}. Your code should pass these tests:\n\n{}",
            "Write a function to {}.\n\n{}",
            (
                "You are an expert Python programmer, and here is your task: Write a function to {}. "
                "Your code should pass these tests:\n\n{}"
            ),
        ]
    )
    return form.format(what, "\n".join(tests))


def instruction(rng: random.Random) -> str:
    """A task or a question in words."""
    if rng.random() < 0.3:
        return rng.choice(_ASKS).format(rng.choice(_CONCEPTS))
    name, _, what, _, _ = rng.choice(TASKS)
    return rng.choice(_WORDS).format(name=_as_name(rng, name), what=what)


def code_prompt(rng: random.Random) -> str:
    """One task of a random form."""
    return rng.choices([stub, asserted, instruction], weights=[5, 3, 3])[0](rng)
