"""Brainf**k and Befunge-93: interpreters that touch nothing, and tasks about programs."""

from rlpt.tasks.esolangs import befunge_factorial as befunge_factorial
from rlpt.tasks.esolangs import befunge_fibonacci as befunge_fibonacci
from rlpt.tasks.esolangs import befunge_print as befunge_print
from rlpt.tasks.esolangs import brainfuck_copy as brainfuck_copy
from rlpt.tasks.esolangs import brainfuck_print as brainfuck_print
from rlpt.tasks.esolangs import brainfuck_sort as brainfuck_sort
