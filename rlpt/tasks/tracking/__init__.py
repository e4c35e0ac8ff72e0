"""State that changes step by step: permutations, automata, parities, brackets, stacks."""

from rlpt.tasks.tracking import automaton as automaton
from rlpt.tasks.tracking import brackets as brackets
from rlpt.tasks.tracking import parity as parity
from rlpt.tasks.tracking import permutation as permutation
from rlpt.tasks.tracking import stack_machine as stack_machine
