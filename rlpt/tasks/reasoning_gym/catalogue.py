"""The data sets of reasoning-gym 0.1.25: levels, answers' lengths and characters, who judges, and which are left out.

Measured over 120 items a level: the lengths (half as much again where several answers are right, else a quarter) and
the characters, rounded up to classes; an item outside them is drawn anew. The curricula go on to items that take
seconds or hold tens of thousands of characters: the levels here are those before that. What each is, `items.settings`
says.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from rlpt.tasks.base import DIGITS

LOWER, UPPER, LETTERS = string.ascii_lowercase, string.ascii_uppercase, string.ascii_letters

# Forms of answers that verifiers evaluate (as Python, by sympy): numbers, operators, certain functions; no attribute,
# no call of anything else, no power of a power. Whatever has another form is wrong and never reaches the verifier.
ARITHMETIC = r"(?:[0-9]{1,6}(?![0-9])|[-+/() ]|\*(?!\*))+"
POLYNOMIAL = r"(?:[0-9]{1,40}(?![0-9])|[xyz]|[-+ ]|\*(?!\*)|\*\*[0-9]{1,2}(?![0-9]|\s*\*\*))+"
_FUNCTIONS = r"(?:exp|sin|cos|log|sqrt|asin|atan)\("
_EXPONENT = r"\*\*(?:[0-9]{1,2}|\([0-9]{1,2}/[0-9]{1,2}\))(?![0-9]|\s*\*\*)"
_SYMBOL = r"(?<![A-Za-z])[CxX](?![A-Za-z(])"
PRIMITIVE = rf"(?:[0-9]{{1,12}}(?![0-9])|{_FUNCTIONS}|{_SYMBOL}|[-+/() ]|\*(?!\*)|{_EXPONENT})+"
# Forms that prompts ask for, where verifiers take any text that holds the right numbers or letters; no negative zero.
_NUMBER = r"(?!-0(?:\.0*)?(?![0-9.]))-?[0-9]{1,12}(?:\.[0-9]{1,12})?"
NUMBERS = rf"{_NUMBER}(?:, ?{_NUMBER})*"
PRESSES = r"[ABC](?: ?\u2192 ?[ABC])*"
DURATION = r"-?[0-9]{1,6} days(?:, [0-9:.]{1,16})?|[0-9]{1,4}:[0-9:.]{1,16}"


@dataclass(frozen=True)
class DataSet:
    """What our side knows of a data set."""

    limits: tuple[int, ...]  # longest answer, in characters, by level; the last holds for levels above
    characters: str  # that answers may hold
    exact: bool = False  # one answer is right, in the prompt's form: equality decides, not the package's verifier
    form: str = ""  # a regular expression of the whole answer; empty: any


DATA_SETS: dict[str, DataSet] = {
    "ab": DataSet((37, 70, 104, 142), " #AB", exact=True),
    "acre": DataSet((12,), "defimnortu", exact=True),
    "advanced_geometry": DataSet((27, 32, 32, 38, 38, 38, 39), DIGITS + " (),-.°"),
    "aiw": DataSet((2, 2, 2, 2, 2, 2, 3, 3, 3, 3), DIGITS, exact=True),
    "arc_1d": DataSet((24, 62, 124), DIGITS + " ", exact=True),
    "arc_agi": DataSet((1799, 1799, 1799, 1799, 1799, 1799, 1799), DIGITS + "\n ", exact=True),
    "base_conversion": DataSet((18, 18, 22, 22, 25, 25, 25, 25), DIGITS + LOWER, exact=True),
    "basic_arithmetic": DataSet((4, 5, 7, 8, 13, 18, 18, 20), DIGITS + "-", exact=True),
    "bf": DataSet((7, 7), DIGITS + LOWER, exact=True),
    "binary_alternation": DataSet((3, 4, 4, 4), DIGITS + "-", exact=True),
    "binary_matrix": DataSet((249, 249, 1562, 1562), DIGITS + "\n ", exact=True),
    "bitwise_arithmetic": DataSet((13, 18, 30, 33, 50, 54, 69, 95, 133, 220), DIGITS + "-abcdefx", exact=True),
    "caesar_cipher": DataSet((120, 120, 200, 368, 368), UPPER + " ", exact=True),
    "calendar_arithmetic": DataSet((9, 9, 9, 9, 9, 9, 9), DIGITS + "-FMNSTWYadehinorstuy", exact=True),
    "chain_sum": DataSet((3, 4, 5, 5, 7, 7, 8, 8, 9, 9), DIGITS + "-", exact=True),
    "circuit_logic": DataSet((1, 1, 1), "01", exact=True),
    "coin_flip": DataSet((8, 9, 11, 12, 14, 15, 17, 18, 20, 21), DIGITS + "."),
    "color_cube_rotation": DataSet((7, 7, 7, 7, 7), LOWER, exact=True),
    "complex_arithmetic": DataSet((20, 23, 24, 26, 26, 26, 33, 35, 39, 39), DIGITS + " +-.i"),
    "count_bits": DataSet((2, 3, 3, 3, 3), DIGITS, exact=True),
    "count_primes": DataSet((4, 5, 5, 5, 5), DIGITS, exact=True),
    "countdown": DataSet((42, 63, 65, 72), DIGITS + " ()*+-/", form=ARITHMETIC),
    "course_schedule": DataSet((5, 5, 5, 5, 5, 5, 5, 5, 5, 5), "FTaelrsu", exact=True),
    "cryptarithm": DataSet((59, 59, 59, 59), DIGITS + UPPER + ",="),
    "decimal_arithmetic": DataSet((14, 15, 18, 18, 21, 21, 21, 24, 24, 24), DIGITS + "-.", form=NUMBERS),
    "decimal_chain_sum": DataSet((8, 9, 12, 14, 14, 19, 20, 22, 24, 27), DIGITS + "-.", exact=True),
    "dice": DataSet((14, 22, 22, 27, 29, 34, 37), DIGITS + "/", exact=True),
    "emoji_mystery": DataSet((112, 170, 237, 332, 355, 370), DIGITS + LETTERS + " !\"$'(),-./:;?_", exact=True),
    "family_relationships": DataSet((9, 17, 17, 17, 17, 17, 17, 17, 17), LOWER + "-", exact=True),
    "figlet_font": DataSet((7, 13, 18, 18, 20, 20), UPPER, exact=True),
    "fraction_simplification": DataSet((24, 27, 27, 30, 30, 30, 30), DIGITS + "/$\\{}acdfr"),
    "futoshiki": DataSet((122, 302, 302, 422, 422), DIGITS + "\n <>\u2227\u2228", exact=True),
    "game_of_life": DataSet((277, 689, 1627, 1627, 1627), ",01[]", exact=True),
    "game_of_life_halting": DataSet((5, 5, 5, 5, 5, 5), "FTaelrsu", exact=True),
    "gcd": DataSet((4, 4, 4, 4, 4, 7, 7), DIGITS, exact=True),
    "graph_color": DataSet((120, 255, 255, 323, 323, 323), DIGITS + ' {}":,'),
    "group_anagrams": DataSet((414, 1854, 2117, 4074), LOWER + ' ",[]'),
    "gsm_symbolic": DataSet((8,), DIGITS + ".-", exact=True),
    "intermediate_integration": DataSet(
        (99, 99, 99, 99, 99, 99, 99, 99), DIGITS + " +-*/()acegilnopqrstxCX", form=PRIMITIVE
    ),
    "isomorphic_strings": DataSet((5, 5, 5, 5), "FTaelrsu", exact=True),
    "jugs": DataSet((210, 210), ' ",->ABCD[]efilmoprtuy'),
    "kakurasu": DataSet((47, 71, 107, 107, 125, 146, 146, 188), "\n 01"),
    "knight_swap": DataSet((330, 330), ' ",123ABCD[]w'),
    "knights_knaves": DataSet((78, 108, 110, 111, 144, 179), LETTERS + " ,."),
    "largest_island": DataSet((3, 3, 3, 3, 3, 3, 3, 3, 4, 4), DIGITS, exact=True),
    "lcm": DataSet((8, 12, 15, 20, 25, 29, 30), DIGITS, exact=True),
    "leg_counting": DataSet((3, 3, 4, 4, 4, 4, 4, 4, 5, 5), DIGITS, exact=True),
    "letter_counting": DataSet((2, 2, 3, 3, 3, 3, 3, 3), DIGITS, exact=True),
    "letter_jumble": DataSet((112, 113, 280, 280, 288, 544, 544, 575, 1084, 1084), LETTERS + " ", exact=True),
    "list_functions": DataSet((50,), DIGITS + " ,[]-", exact=True),
    "mahjong_puzzle": DataSet((4, 4, 4), "CPaeghins", exact=True),
    "manipulate_matrix": DataSet((249, 624, 1562, 1562, 3062), DIGITS + "\n ", exact=True),
    "maze": DataSet((2, 2, 2, 2), DIGITS, exact=True),
    "mini_sudoku": DataSet((31, 31, 31, 31, 31), "\n 1234", exact=True),
    "modulo_grid": DataSet((524, 1024, 2049, 2049, 2049), "\n✅❌", exact=True),
    "n_queens": DataSet((47, 107, 107, 191, 191), "\n Q_"),
    "needle_haystack": DataSet((15, 17), LETTERS + "-", exact=True),
    "number_filtering": DataSet((464, 834, 1033, 1033, 1149), DIGITS + " ',-.[]", exact=True),
    "number_format": DataSet((27, 27, 27, 27), DIGITS + "."),
    "number_sequence": DataSet((4, 4, 4, 4), DIGITS + "-", exact=True),
    "number_sorting": DataSet((1027, 5215), DIGITS + " ',-.[]", exact=True),
    "palindrome_generation": DataSet((75, 150, 747, 749), LOWER),
    "palindrome_partitioning": DataSet((155, 1536, 1824), LOWER + ' ",[]'),
    "path_star": DataSet((24, 24, 29, 44, 44, 44, 52, 52, 59, 69), DIGITS + " ", exact=True),
    "polynomial_equations": DataSet((23, 30, 30, 30, 30, 30, 32), DIGITS + " ,-.", form=NUMBERS),
    "polynomial_multiplication": DataSet((195, 195, 207, 210, 317, 317, 486, 486), DIGITS + " +-*xyz", form=POLYNOMIAL),
    "pool_matrix": DataSet((117, 263, 534, 534, 978), DIGITS + "\n ."),
    "power_function": DataSet((33, 35, 35, 35, 35), DIGITS + "+-.eE"),
    "prime_factorization": DataSet((44, 50, 50, 62), DIGITS + " \u00d7"),
    "products": DataSet((3, 4, 8, 10, 15, 19, 25, 30, 37, 42), DIGITS, exact=True),
    "quantum_lock": DataSet((38, 50, 50, 56, 56, 68, 74), " ABC→", form=PRESSES),
    "ransom_note": DataSet((5, 5, 5, 5, 5, 5, 5), "FTaelrsu", exact=True),
    "rearc": DataSet((249, 249, 302, 359, 422, 422, 422, 902, 902, 902), DIGITS + "\n ", exact=True),
    "rectangle_count": DataSet((2, 3, 3, 3, 3), DIGITS, exact=True),
    "rotate_matrix": DataSet((249, 1562, 1562), DIGITS + "\n ", exact=True),
    "rotten_oranges": DataSet((2, 2, 2), DIGITS + "-", exact=True),
    "rubiks_cube": DataSet((4, 10, 16, 28, 46, 88, 148), " 'BDFLRU"),
    "self_reference": DataSet((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), "123456", exact=True),
    "sentence_reordering": DataSet((165, 370, 529, 529), DIGITS + LETTERS + " !\"#$'()*,-./:;?[]_", exact=True),
    "shortest_path": DataSet((180, 239, 279, 410, 471), LOWER + " "),
    "simple_equations": DataSet((4, 4, 4, 4, 5, 5, 5, 5, 5, 8), DIGITS, exact=True),
    "simple_geometry": DataSet((4, 5, 5, 5), DIGITS, exact=True),
    "simple_integration": DataSet((38, 54, 66, 81), DIGITS + " +-*/()CxX", form=PRIMITIVE),
    "sokoban": DataSet((17, 33, 38, 57, 59, 83, 83), "DLRU"),
    "spell_backward": DataSet((4, 7, 9, 12, 13), LETTERS, exact=True),
    "spiral_matrix": DataSet((249, 1562), DIGITS + " ", exact=True),
    "string_insertion": DataSet((63, 125, 622, 622), "ABCDE", exact=True),
    "string_manipulation": DataSet((65, 124, 125, 612, 620, 622, 622, 622), "abcz", exact=True),
    "string_splitting": DataSet((17, 19, 23, 23), DIGITS + " ", exact=True),
    "string_synthesis": DataSet((27, 27, 32, 32), DIGITS + " ", exact=True),
    "sudoku": DataSet((161, 161, 161), DIGITS + "\n ", exact=True),
    "survo": DataSet((48, 74, 74, 104, 139), DIGITS + "\n ", exact=True),
    "syllogism": DataSet((3, 3, 3, 3, 3, 3, 3, 3, 3, 3), "NYeos", exact=True),
    "time_intervals": DataSet((26, 26, 26, 26, 26, 26, 27, 27, 29, 29), DIGITS + " ,-.:adsy", form=DURATION),
    "tower_of_hanoi": DataSet((335, 1487, 1487), DIGITS + "\n MPdefgikmorstv"),
    "tsumego": DataSet((3, 3, 3, 4, 4, 4, 4), DIGITS + UPPER, exact=True),
    "word_ladder": DataSet((81, 161, 161), UPPER + ","),
    "word_sequence_reversal": DataSet((247, 437, 872, 872), DIGITS + LETTERS + " ,", exact=True),
    "word_sorting": DataSet((82, 199, 274, 555, 558, 1114, 1114, 1173), DIGITS + LETTERS + " ,_", exact=True),
    "zebra_puzzles": DataSet((9, 9, 9), LOWER, exact=True),
}

# Why the rest are no tasks; tests/contracts/test_reasoning_gym.py measures each reason.
UNUSABLE: dict[str, str] = {
    "boxnet": "comes with no right answer",
    "codeio": "makes an item by executing a program from its data",
    "composite": "a mixture of other data sets, with no problem of its own",
    "propositional_logic": "its verifier gives 1 to a premise copied from the prompt",
    "puzzle24": "its verifier gives 1 to 6*4*1*1 whatever the numbers are",
    "rush_hour": "comes with no right answer",
}
