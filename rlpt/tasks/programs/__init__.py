"""Programs in micro-languages and what can be asked about them: the output, an input, the program itself."""

from rlpt.tasks.programs import abduction as abduction
from rlpt.tasks.programs import brainfuck_language as brainfuck_language
from rlpt.tasks.programs import deduction as deduction
from rlpt.tasks.programs import induction as induction
from rlpt.tasks.programs import stack_language as stack_language
